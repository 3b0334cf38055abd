"""What is sent: complete HTTP requests, written to files once, so that the client spends nothing on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PATH = b"/v2/models/model/infer"
_HEAD = b"POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: %%s\r\n%%sContent-Length: %%d\r\n\r\n" % PATH


def binary(folder: Path, name: str, *shape: int) -> Path:
    """Write a request for the binary tensor extension, both ways; `shape` includes the rows."""
    values = _values(shape)
    header = json.dumps(
        {
            "inputs": [{**_entry(name, shape), "parameters": {"binary_data_size": values.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    length = b"Inference-Header-Content-Length: %d\r\n" % len(header)
    body = header + values.tobytes()
    return _written(folder, "binary", shape, _HEAD % (b"application/octet-stream", length, len(body)) + body)


def text(folder: Path, name: str, *shape: int) -> Path:
    """Write the same request in JSON, seven digits per value."""
    data = [round(float(value), 7) for value in _values(shape).ravel()]
    body = json.dumps({"inputs": [{**_entry(name, shape), "data": data}]}).encode()
    return _written(folder, "json", shape, _HEAD % (b"application/json", b"", len(body)) + body)


def at(path: bytes, request: Path) -> Path:
    """Write the same request to another address of the server."""
    moved = request.with_name(f"{request.name}-{path.strip(b'/').replace(b'/', b'-').decode()}")
    moved.write_bytes(request.read_bytes().replace(PATH, path, 1))
    return moved


def _values(shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def _entry(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": list(shape)}


def _written(folder: Path, kind: str, shape: tuple[int, ...], request: bytes) -> Path:
    path = folder / f"{kind}-{'x'.join(map(str, shape))}"
    path.write_bytes(request)
    return path
