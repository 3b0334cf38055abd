"""The bundled runtime: one pod's server for one model.

A model's way through it, one folder a stage, each importing only what stands above it in this list:

    contract   what operator and runtime have agreed on (standard library only; the operator imports this file)
    fetch/     the address becomes verified bytes on disk, hashed while they are read
    models/    what is this file, is it safe, and how does it become a callable
    engine/    requests become batches, batches become answers
    serve/     HTTP: the Open Inference Protocol, health, metrics, drain

`evenkeel_runtime prepare` inspects a model in a Job that has no GPU, `fetch` is the init container that holds the
credentials, `serve` is the server.
"""
