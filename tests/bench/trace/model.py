"""Which model is served? One whose request takes more CPU than the quota gives in one of its periods.

With 200m a pod runs for 20 ms of every 100. A request of less than that would be answered at full speed or, where the
quota is used up, 80 ms later: five times the one is less than the other, and no size of the deployment would help. One
of COST_S needs two periods: alone it takes 30 to 110 ms, by the moment at which it comes, and 150 under load.
"""

from __future__ import annotations

import io
import json
import time
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

COST_S = 0.030
"""CPU of one request, about."""

FEATURES = 4
_CHANNELS, _PIXELS = 32, 48
_TRIED = 8
_ROUNDS = 10


class Convolutions(nn.Module):
    """The same convolution over and over: its cost grows with the rows, so that nothing is gained by batches."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = layers
        self.convolution = nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        picture = x.reshape(-1, FEATURES, 1, 1).repeat(1, _CHANNELS // FEATURES, _PIXELS, _PIXELS)
        for _ in range(self.layers):
            picture = torch.tanh(self.convolution(picture))
        return picture.mean(dim=(2, 3))


@dataclass(frozen=True)
class Model:
    """A file, the body of a request, and the CPU that it takes here."""

    content: bytes
    body: bytes
    cost_s: float


def model(cost_s: float = COST_S) -> Model:
    """Return a model whose request takes about `cost_s` of CPU on this machine, by one thread."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    layers = max(1, round(cost_s / seconds(Convolutions(_TRIED)) * _TRIED))
    network = Convolutions(layers).eval()
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        batch = {"x": {0: torch.export.Dim("batch")}}
        torch.export.save(torch.export.export(network, (torch.zeros(2, FEATURES),), dynamic_shapes=batch), written)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, FEATURES], "data": [0.1, 0.2, 0.3, 0.4]}
    return Model(written.getvalue(), json.dumps({"inputs": [tensor]}).encode(), seconds(network))


def seconds(network: nn.Module) -> float:
    """Return the CPU of one row: the least of several, for what disturbs a measurement only makes it longer."""
    row, found = torch.zeros(1, FEATURES), []
    with torch.inference_mode():
        for _ in range(_ROUNDS):
            before = time.thread_time()
            network(row)
            found.append(time.thread_time() - before)
    return min(found)
