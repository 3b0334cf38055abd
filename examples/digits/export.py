"""What does a server get: a .pt2 file, its checksum, and requests with known answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from examples.digits.data import Digits
from examples.digits.model import Net

TOLERANCE = 1e-5
"""How far a log-probability of the saved file may be from the network's."""


def exported(net: Net) -> ExportedProgram:
    """Return the network in evaluation mode as a program: `image` [batch, 1, 28, 28] to [batch, 10], any batch."""
    example = torch.zeros(2, 1, 28, 28)  # not 1: torch.export takes a batch of one for a constant
    program = torch.export.export(net.eval(), (example,), dynamic_shapes={"image": {0: Dim("batch")}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # source paths of this machine; without them equal weights give equal bytes
    return program


def save(net: Net, path: Path, images: Tensor) -> Callable[[Tensor], Tensor]:
    """Write the network to `path` and its checksum beside it; return the model that the saved file holds.

    Raises ValueError where the file answers images [n, 1, 28, 28] otherwise than the network.
    """
    torch.export.save(exported(net), path)
    reloaded = torch.export.load(path).module()
    with torch.inference_mode():
        difference = float((reloaded(images) - net.eval()(images)).abs().max())
    if not difference <= TOLERANCE:
        path.unlink()
        raise ValueError(f"{path} differs from the trained network by {difference:.2g}, allowed is {TOLERANCE:.0e}")
    path.with_name(path.name + ".sha256").write_text(f"{sha256(path)}  {path.name}\n")
    return reloaded


def sha256(path: Path) -> str:
    """Return the SHA-256 of the file as 64 lowercase hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def request(image: Tensor, name: str) -> dict[str, Any]:
    """Return one image [1, 28, 28] as the body of an Open Inference Protocol request with id `name`.

    Four decimals: half a unit of the last is 1/1250 of one step of ink, and the body is a third of the size.
    """
    data = [round(value, 4) for value in image.flatten().tolist()]
    return {
        "id": name,
        "inputs": [{"name": "image", "shape": [1, 1, 28, 28], "datatype": "FP32", "data": data}],
    }


def write_requests(folder: Path, digits: Digits, model: Callable[[Tensor], Tensor]) -> None:
    """Write a held-out 0 as `heldout/0.json` … a held-out 9 as `heldout/9.json`, and `heldout.json` about them.

    `heldout.json` says of each its true label and the log-probabilities [10] that `model` answers to that body.
    """
    (folder / "heldout").mkdir(exist_ok=True)
    expected = []
    for digit in range(10):
        first = int((digits.heldout_labels == digit).nonzero()[0])
        body = request(digits.heldout_images[first], f"heldout-{digit}")
        file = f"heldout/{digit}.json"
        (folder / file).write_text(json.dumps(body) + "\n")
        with torch.inference_mode():
            answer = model(torch.tensor(body["inputs"][0]["data"]).reshape(1, 1, 28, 28))[0]
        expected.append(
            {
                "file": file,
                "label": digit,
                "predicted": int(answer.argmax()),
                "log_probabilities": [round(value, 5) for value in answer.tolist()],
            }
        )
    (folder / "heldout.json").write_text(json.dumps(expected, indent=2) + "\n")
