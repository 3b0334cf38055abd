"""What do a server and its model say about themselves, in the Open Inference Protocol's words, and in Triton's?"""

from __future__ import annotations

from typing import Any

import orjson

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.models.datatypes import BYTES

EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration")
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


def configuration_of(
    name: str, platform: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], most_rows: int
) -> dict[str, Any]:
    """Return the model's configuration in Triton's words (its protocol extension "model configuration"), for clients
    that ask how many rows a request may have: at most `most_rows`, of which `dims` have one; 0, all of a request's."""
    put, got = (
        [
            {"name": tensor.name, "data_type": _data_type(tensor), "dims": tensor.shape[1 if most_rows else 0 :]}
            for tensor in group
        ]
        for group in (inputs, outputs)
    )
    return {"name": name, "platform": platform, "max_batch_size": most_rows, "input": put, "output": got}


def _data_type(tensor: Tensor) -> str:
    word = "STRING" if tensor.datatype == BYTES else tensor.datatype
    return f"TYPE_{word}" if word in DATA_TYPES else "TYPE_INVALID"


DATA_TYPES = (
    "INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64",
    "STRING", "BF16",
)  # fmt: skip
"""In the order of their numbers (model_config.proto)."""
