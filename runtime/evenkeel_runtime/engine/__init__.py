"""Requests become batches, batches become answers. `batching.py` is pure: the operator's simulator imports it too."""
