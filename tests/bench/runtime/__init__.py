"""What does the bundled runtime cost per request, beside the model's own forward? `python -m tests.bench.runtime`"""
