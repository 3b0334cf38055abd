"""Events become plans: what was seen, whose turn it is, what to do about it."""
