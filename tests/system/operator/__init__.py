"""The operator against a fake API server: what it does when the cluster misbehaves."""
