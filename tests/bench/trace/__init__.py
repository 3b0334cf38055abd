"""Does the size of real replicas follow a real demand? A trace at its own speed, against pods that a quota slows."""
