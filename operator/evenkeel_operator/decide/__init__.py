"""What shall be done? Pure: plan(snapshot, now) and what it is made of; standard library, `api` and the runtime's contract only."""
