"""The bundled runtime: one pod's server for one model.

A model's way through it, one folder a stage, each importing only what stands above it in this list:

    contract   what operator and runtime have agreed on (standard library only; the operator imports this file)
    fetch/     the address becomes verified bytes on disk, hashed while they are read
    models/    what is this file, is it safe, and how does it become a callable
    engine/    requests become batches, batches become answers
    serve/     HTTP and gRPC: the Open Inference Protocol, health, metrics, signals, receipts, drain

`evenkeel_runtime prepare` inspects a model in a Job that has no GPU, `fetch` is the init container that holds the
credentials, `serve` is the server.

The path of one prediction: `serve/protocol.py` cuts a request out of a connection's bytes, `serve/service.py` goes by
its address, `serve/oip.py` or `serve/v1.py` reads its tensors; `engine/batching.py` lets it wait, `engine/forward.py`
calls the model; `serve/receipts.py` signs what came out and `serve/answer.py` writes it. With several GPUs the model is
called in processes that `serve/engines.py` has started, and `engine/process.py` passes batches to them.
"""
