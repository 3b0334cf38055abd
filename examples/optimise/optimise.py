"""Make a digit reader smaller and faster in three ways, and print what each costs and gains in one table.

    pip install '.[runtime]'
    python examples/optimise/optimise.py --out out/optimise

The network, two hidden layers of 1,024, learns the 1,797 real digits that scikit-learn carries (8×8 pixels): four
fifths to train on, a fifth held out. Then:

    BF16, INT8     the same file, computed less exactly, as `spec.runtime.precision` does it: matrix products in
                   bfloat16, or in bytes with one scale per row
    pruned         the quarter of each hidden layer's units with the largest weights is kept (torch.nn.utils.prune), the
                   rest learns on without the others, and then they are cut out: a smaller network, and not one with
                   zeros in it, which computes as long as before

Each is loaded as a replica loads it, which also chooses how it is called and how many rows share a call. The columns:
the file's size, the time of a row that is called alone and of one that shares a call, on this machine, the accuracy on
held-out digits, and the largest change of a logit by the precision. What is faster depends on the processor and on the
layers: bytes pay where weights are more than its cache holds, and cost where they are few.

In the folder are then `digits.pt2` and `pruned.pt2` (`image` FP32 [-1, 64], ink from 0 to 1, to `logits` FP32 [-1, 10])
with their checksums. To deploy the smaller, put `pruned.pt2` on the volume behind the claim `models`:

    kubectl apply -f examples/optimise/modeldeployment.yaml
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils import prune

from evenkeel_runtime.config import Model
from evenkeel_runtime.serve.loading import tried_out

FULL_INK = 16
UNITS = 1024
KEPT = 0.25
EPOCHS, TUNING_EPOCHS = 15, 8
BATCH = 64
ROWS = 64
"""The most that share a call."""


class Reader(nn.Module):
    """Two hidden layers, of as many units as they are given."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.first, self.second, self.answer = nn.Linear(64, first), nn.Linear(first, second), nn.Linear(second, 10)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return logits [batch, 10] of images [batch, 64], where 0 is no ink and 1 is full ink."""
        return {"logits": self.answer(torch.relu(self.second(torch.relu(self.first(image)))))}


@dataclass(frozen=True, slots=True)
class Split:
    """Images [n, 64] with ink from 0 to 1, and their digits; a fifth is held out, every digit in proportion."""

    train_images: Tensor
    train_digits: Tensor
    heldout_images: Tensor
    heldout_digits: Tensor


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one file at one precision: a row's time alone and in a shared call, and the largest change of a logit, which
    is None where nothing is computed less exactly."""

    file_bytes: int
    alone_s: float
    shared_s: float
    accuracy: float
    difference: float | None


def load() -> Split:
    rows, digits = load_digits(return_X_y=True)
    split = train_test_split(rows / FULL_INK, digits, test_size=0.2, stratify=digits, random_state=0)
    train_images, heldout_images, train_digits, heldout_digits = map(torch.as_tensor, split)
    return Split(train_images.float(), train_digits, heldout_images.float(), heldout_digits)


def fit(model: Reader, split: Split, epochs: int) -> None:
    """Train by Adam, on a learning rate that rises and falls once."""
    optimiser = torch.optim.Adam(model.parameters(), weight_decay=1e-4)
    steps = epochs * -(-len(split.train_images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.003, total_steps=steps)
    for _ in range(epochs):
        for chosen in torch.split(torch.randperm(len(split.train_images)), BATCH):
            logits = model(split.train_images[chosen])["logits"]
            loss = nn.functional.cross_entropy(logits, split.train_digits[chosen])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()


def mask(layer: nn.Linear) -> None:
    """Hold the units with the smallest weights (L2) at zero, bias included: behind relu they say nothing then."""
    prune.ln_structured(layer, "weight", amount=1 - KEPT, n=2, dim=0)  # type: ignore[no-untyped-call]
    prune.custom_from_mask(layer, "bias", kept(layer))  # type: ignore[no-untyped-call]


def kept(layer: nn.Linear) -> Tensor:
    """Return the mask of a layer's units: 1 where one is kept."""
    return cast(Tensor, layer.weight_mask)[:, 0]


def cut(model: Reader) -> Reader:
    """Return a network without the units that are held at zero; it answers the same."""
    first, second = kept(model.first).bool(), kept(model.second).bool()
    smaller = Reader(int(first.sum()), int(second.sum()))
    with torch.no_grad():
        smaller.first.weight.copy_(model.first.weight[first])
        smaller.first.bias.copy_(model.first.bias[first])
        smaller.second.weight.copy_(model.second.weight[second][:, first])
        smaller.second.bias.copy_(model.second.bias[second])
        smaller.answer.weight.copy_(model.answer.weight[:, second])
        smaller.answer.bias.copy_(model.answer.bias)
    return smaller


def write(model: Reader, path: Path) -> None:
    """Write the model and its checksum."""
    program = torch.export.export(model.eval(), (torch.zeros(2, 64),), dynamic_shapes={"image": {0: Dim("batch")}})
    torch.export.save(program, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{sha256}  {path.name}\n")


def measured(path: Path, precision: str, split: Split) -> Measured:
    """Load the file as a replica of that `spec.runtime.precision` does, and try it."""
    content = path.read_bytes()
    told = Model("TorchExport", "", False, precision=precision)
    _, found = tried_out(memoryview(bytearray(content)), told, "cpu", ROWS)
    with torch.inference_mode():
        logits = torch.as_tensor(found.call(split.heldout_images)[0])
    accuracy = float((logits.argmax(1) == split.heldout_digits).float().mean())
    alone_s = dict(found.profile)[1]
    return Measured(len(content), alone_s, 1 / found.rows_per_second, accuracy, found.difference)


def main(argv: list[str] | None = None) -> None:
    """Train, prune, write, measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for digits.pt2 and pruned.pt2")
    out: Path = parser.parse_args(argv).out
    if out.exists() and not out.is_dir():
        parser.error(f"--out: {out} is a file; name a folder")
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    split, model = load(), Reader(UNITS, UNITS)
    fit(model, split, EPOCHS)
    write(model, out / "digits.pt2")
    for layer in (model.first, model.second):
        mask(layer)
    fit(model, split, TUNING_EPOCHS)
    write(cut(model), out / "pruned.pt2")
    print(f"{'':13} {'file kB':>8} {'alone µs':>9} {'shared µs':>10} {'accuracy':>9} {'change':>8}")
    for name in ("digits", "pruned"):
        for precision in ("FP32", "BF16", "INT8"):
            found = measured(out / f"{name}.pt2", precision, split)
            change = "" if found.difference is None else f"{found.difference:.4f}"
            print(
                f"{name + ' ' + precision:13} {found.file_bytes / 1e3:8.0f} {found.alone_s * 1e6:9.0f}"
                f" {found.shared_s * 1e6:10.1f} {found.accuracy:9.4f} {change:>8}"
            )


if __name__ == "__main__":
    main()
