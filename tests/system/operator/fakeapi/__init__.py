"""A fake API server over real HTTP, for faults and for speed.

It knows what the operator uses: discovery, chunked lists, watches with bookmarks, optimistic locking, a subset of
server-side apply, the status subresource, garbage collection by owner; and it fails on demand. It does not validate,
default or authorise anything: what the real API server makes of our objects is tested on a real one, in tests/cluster.
"""
