"""What does every peer do with the bytes of a request and of an answer, and how does it run the model?

Nothing here is slower than it need be: orjson, numpy views, the traced and frozen model that the runtime's own
calibration ends up with, one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Model = Callable[[Floats], Floats]

LENGTH = "inference-header-content-length"
OCTETS = "application/octet-stream"


def load(path: str) -> Model:
    """Return the TorchScript model in the file as a function of float32 arrays."""
    import torch

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    module = torch.jit.load(path).eval()
    rows = torch.zeros(1, *((784,) if path.endswith("mlp.pt") else (1, 28, 28)))
    with torch.inference_mode():
        for _ in range(5):  # TorchScript specialises in its first calls
            module(rows)

    def call(array: Floats) -> Floats:
        with torch.inference_mode():
            found: Floats = module(torch.from_numpy(array)).numpy()
        return found

    return call


def of_document(document: dict[str, Any]) -> Floats:
    """Return the tensor of an inference request whose values are in its JSON."""
    entry = document["inputs"][0]
    return np.array(entry["data"], np.float32).reshape(entry["shape"])


def document_of(answer: Floats) -> dict[str, Any]:
    """Return the answer as an inference response."""
    entry = {"name": "answer", "datatype": "FP32", "shape": list(answer.shape), "data": answer.ravel().tolist()}
    return {"model_name": "model", "outputs": [entry]}


def of_body(body: bytes, header: str | None) -> Floats:
    """Return the tensor of a request, in JSON or behind a JSON part of `header` bytes."""
    if header is None:
        return of_document(orjson.loads(body))
    split = int(header)
    entry = orjson.loads(body[:split])["inputs"][0]
    return np.frombuffer(bytearray(body[split:]), np.float32).reshape(entry["shape"])


def body_of(answer: Floats, is_binary: bool) -> tuple[bytes, dict[str, str]]:
    """Return the answer's body and headers, in the form that was asked in."""
    if not is_binary:
        return orjson.dumps(document_of(answer)), {"content-type": "application/json"}
    entry = {
        "name": "answer",
        "datatype": "FP32",
        "shape": answer.shape,
        "parameters": {"binary_data_size": answer.nbytes},
    }
    document = orjson.dumps({"model_name": "model", "outputs": [entry]})
    return document + answer.tobytes(), {"content-type": OCTETS, LENGTH: str(len(document))}
