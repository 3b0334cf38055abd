"""What shall be done? Pure: plan(snapshot, now) and what it is made of.

Standard library, `api` and the runtime's contract only.
"""
