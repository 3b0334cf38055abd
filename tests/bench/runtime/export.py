"""Which models are measured? `python -m tests.bench.runtime.export FOLDER` writes them.

mlp   784-128-10: so small that the server shows
cnn   the network of examples/digits, untrained: as large as people's first models are
long  half a second per forward on this core: what health answers have to get past
large 500 MB of weights: what a start has to read

The first two are written as TorchScript, too, which is what the peers load.

`python -m tests.bench.runtime.export FOLDER starts` writes what is started alone: mlp, large, and

vgg11 530 MB of safetensors and the name of an architecture of torchvision
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torchvision import models

from examples.digits.model import Net

LONG_S = 0.5
LARGE_BYTES = 500_000_000
WIDTH = 2048


class Perceptron(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(784, 128)
        self.answer = torch.nn.Linear(128, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.answer(torch.relu(self.hidden(image)))
        return found


class Long(torch.nn.Module):
    def __init__(self, times: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(WIDTH, WIDTH)
        self.times = times

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image
        for _ in range(self.times):
            x = torch.tanh(self.layer(x))
        return x


def long() -> Long:
    """Return a model whose forward of one row takes `LONG_S` on this core."""
    row, trial = torch.zeros(1, WIDTH), 20
    model = Long(trial).eval()
    with torch.inference_mode():
        model(row)
        begun = time.perf_counter()
        model(row)
        took = time.perf_counter() - begun
    return Long(max(1, round(trial * LONG_S / took))).eval()


def large() -> torch.nn.Sequential:
    """Return layers whose weights have `LARGE_BYTES` together."""
    return torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(LARGE_BYTES // (4 * WIDTH * WIDTH) + 1)))


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    if sys.argv[2:] == ["starts"]:
        _export(folder, "mlp", Perceptron(), (784,))
        _export(folder, "large", large(), (WIDTH,))
        told = {"architecture": "vgg11", "num_classes": "1000"}
        save_file(models.vgg11(weights=None).state_dict(), folder / "vgg11.safetensors", metadata=told)
        return
    for name, model, shape in (
        ("mlp", Perceptron(), (784,)),
        ("cnn", Net(), (1, 28, 28)),
        ("long", long(), (WIDTH,)),
        ("large", large(), (WIDTH,)),
    ):
        _export(folder, name, model, shape)
    for name, model, shape in (("mlp", Perceptron(), (784,)), ("cnn", Net(), (1, 28, 28))):
        traced = torch.jit.trace(model.eval(), torch.zeros(2, *shape), check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(torch.jit.freeze(traced), folder / f"{name}.pt")


def _export(folder: Path, name: str, model: torch.nn.Module, shape: tuple[int, ...]) -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(model.eval(), (torch.zeros(2, *shape),), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / f"{name}.pt2")


if __name__ == "__main__":
    main()
