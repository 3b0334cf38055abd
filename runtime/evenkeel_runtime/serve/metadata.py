"""What do a server and its model say about themselves, in the Open Inference Protocol's words?"""

from __future__ import annotations

from typing import Any

import orjson

from evenkeel_runtime.contract import Tensor

EXTENSIONS = ("binary_tensor_data", "classification")
"""What this server does beyond the Open Inference Protocol, in Triton's words."""


def of_server() -> dict[str, Any]:
    from importlib.metadata import version

    return {"name": "evenkeel", "version": version("evenkeel"), "extensions": list(EXTENSIONS)}


def of_model(
    name: str,
    version: str,
    platform: str,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    more: dict[str, object],
) -> bytes:
    """Return the model's metadata in the protocol's words; `parameters` says how it is executed."""
    tensors = [
        [{"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape} for tensor in group]
        for group in (inputs, outputs)
    ]
    body = {
        "name": name,
        "versions": [version],
        "platform": platform,
        "inputs": tensors[0],
        "outputs": tensors[1],
        "parameters": more,
    }
    return orjson.dumps(body)
