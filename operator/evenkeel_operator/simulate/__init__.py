"""What would have happened? A trace of demand against the operator's own law, and against other autoscalers."""
