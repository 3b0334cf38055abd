"""Other projects' autoscalers, a file for each, for many configurations at once."""
