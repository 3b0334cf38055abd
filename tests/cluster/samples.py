"""Which model files do tests deploy? Two versions whose answers differ, and files that nobody should serve."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
import warnings
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

FEATURES, CLASSES = 4, 3
_ROWS = ((0.5, -1.0, 2.0, 0.25), (-2.0, 1.5, 0.0, 1.0))


@dataclass(frozen=True)
class Sample:
    """A model file, a request, and what torch itself answers to it, row after row."""

    content: bytes
    body: bytes
    want: tuple[float, ...]

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.content).hexdigest()


class Network(nn.Module):
    """A multilayer perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.layers(x)
        return answer


class Unable(nn.Module):
    """Fails at every input: it inverts a matrix of zeros, which no export can foresee."""

    def forward(self, x: Tensor) -> Tensor:
        inverse: Tensor = torch.linalg.inv(x.sum() * torch.zeros(FEATURES, FEATURES))
        return x @ inverse


class Voter(nn.Module):
    """Chooses the largest of the first three numbers; `bias` is what the first has before it begins."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([bias, 0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return 4 * (x[:, :3] + self.bias)


@cache
def voter(bias: float) -> bytes:
    """Return the file of such a model."""
    return _exported(Voter(bias).eval())


@cache
def version(number: int) -> Sample:
    """Return a network whose weights are drawn with `number` as the seed."""
    torch.manual_seed(number)
    network = Network().eval()
    with torch.inference_mode():
        want = tuple(network(torch.tensor(_ROWS)).flatten().tolist())
    return Sample(_exported(network), request(), want)


def request() -> bytes:
    """Return two rows as the body of an Open Inference Protocol request."""
    data = [value for row in _ROWS for value in row]
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(_ROWS), FEATURES], "data": data}
    return json.dumps({"inputs": [tensor]}).encode()


@cache
def unable() -> bytes:
    """Return a sound file of a model that cannot answer."""
    return _exported(Unable().eval())


def pickled() -> bytes:
    """Return weights as a plain pickle, which runs its author's code when it is read."""
    return pickle.dumps({"weight": [1.0, 2.0]})


def truncated() -> bytes:
    """Return the first half of a sound file, as a broken upload leaves it."""
    content = version(1).content
    return content[: len(content) // 2]


def _exported(model: nn.Module) -> bytes:
    logging.getLogger("torch.__trace").propagate = False  # hundreds of lines for a test that fails
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        batch = {"x": {0: torch.export.Dim("batch")}}
        program = torch.export.export(model, (torch.zeros(2, FEATURES),), dynamic_shapes=batch)
        torch.export.save(program, written)
    return written.getvalue()
