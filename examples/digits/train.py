"""Train a network that reads handwritten digits, measure it, and write it as a file that Evenkeel serves.

    python examples/digits/train.py --out out/digits

Equal options give equal files on the same machine with the same number of threads. Another --seed or another
number of --epochs gives other weights: a second version to roll out.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a script, only this folder is on the path

from examples.digits import data, evaluate, export
from examples.digits.model import Net

ACCURACY_FLOOR = 0.97


@dataclass(frozen=True, slots=True)
class Options:
    """How to train."""

    epochs: int = 15
    lr: float = 0.02  # of the first epoch; it falls along half a cosine towards 0
    momentum: float = 0.9
    weight_decay: float = 5e-4  # L2: adds weight_decay · w to the gradient of every weight w
    batch_size: int = 32
    seed: int = 0


def fit(net: Net, images: Tensor, labels: Tensor, options: Options) -> Iterator[float]:
    """Train on images [n, 1, 28, 28] and labels [n]; yield the mean loss of each epoch in nats per image."""
    optimizer = torch.optim.SGD(
        net.parameters(), lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay
    )
    # The steps shrink to nothing over the epochs: with a constant rate the last ones jump about the minimum.
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    net.train()
    for epoch in range(1, options.epochs + 1):
        total = 0.0
        batches = torch.split(torch.randperm(len(images)), options.batch_size)
        # disable=None: the bar is for terminals
        for batch in tqdm(batches, desc=f"epoch {epoch}", unit="batch", leave=False, disable=None):
            optimizer.zero_grad()
            loss = F.nll_loss(net(data.shifted(images[batch])), labels[batch])
            torch.autograd.backward(loss)
            optimizer.step()
            total += loss.item() * len(batch)
        schedule.step()
        yield total / len(images)


def main(argv: list[str] | None = None) -> None:
    """Train, measure, export; exits with 1 and a sentence where the model is not good enough to be served."""
    out, options = _arguments(argv)
    torch.manual_seed(options.seed)
    digits, net = data.load(), Net()
    print(f"{len(digits.train_images)} digits to train on, {len(digits.heldout_images)} held out")

    losses: list[float] = []
    start = time.perf_counter()
    for loss in fit(net, digits.train_images, digits.train_labels, options):
        losses.append(loss)
        print(
            f"epoch {len(losses):2}/{options.epochs}  loss {loss:.4f}  {time.perf_counter() - start:5.1f} s",
            flush=True,
        )
        if not math.isfinite(loss):
            sys.exit(f"the loss is {loss}: the steps are too large, train with a smaller --lr than {options.lr}")

    quality = evaluate.quality(digits.heldout_labels, evaluate.predictions(net.eval(), digits.heldout_images))
    _report(quality)
    if quality.accuracy < ACCURACY_FLOOR:
        sys.exit(
            f"accuracy {quality.accuracy:.4f} on held-out digits is below {ACCURACY_FLOOR}, nothing was exported: "
            "train longer (--epochs) or with another --lr"
        )

    out.mkdir(parents=True, exist_ok=True)
    path = out / "digits.pt2"
    export.write_requests(out, digits, export.save(net, path, digits.heldout_images))
    metrics = {
        **asdict(quality),
        "loss_per_epoch": losses,
        "options": asdict(options),
        "sha256": export.sha256(path),
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"wrote {path} ({path.stat().st_size:,} bytes, sha256 {metrics['sha256']})")
    print(f"it reloads and answers all held-out digits as the network does, within {export.TOLERANCE:.0e}")


def _report(quality: evaluate.Quality) -> None:
    print(
        "held out:",
        *(f"{name} {getattr(quality, name):.4f}" for name in ("accuracy", "precision", "recall", "f1")),
    )
    print("confusion matrix (row: true digit, column: predicted)")
    for digit, row in enumerate(quality.confusion_matrix):
        print(f"{digit:4} |" + "".join(f"{count:4}" for count in row))


def _arguments(argv: list[str] | None) -> tuple[Path, Options]:
    default = Options()
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for digits.pt2 and what belongs to it")
    parser.add_argument("--epochs", type=int, default=default.epochs, help="passes over the training digits")
    parser.add_argument("--lr", type=float, default=default.lr, help="step size of the first epoch; it falls towards 0")
    parser.add_argument("--momentum", type=float, default=default.momentum, help="share of the last step that is kept")
    parser.add_argument("--weight-decay", type=float, default=default.weight_decay, help="strength of the L2 term")
    parser.add_argument("--batch-size", type=int, default=default.batch_size, help="digits per step")
    parser.add_argument("--seed", type=int, default=default.seed, help="of first weights, order and dropout")
    given = parser.parse_args(argv)
    out = given.out
    if out.exists() and not out.is_dir():
        parser.error(f"--out: {out} is a file; name a folder")
    for flag, ok, allowed in (
        ("--epochs", given.epochs >= 1, "at least 1"),
        ("--lr", 0 < given.lr < math.inf, "above 0"),
        ("--momentum", 0 <= given.momentum < 1, "from 0 to below 1"),
        ("--weight-decay", 0 <= given.weight_decay < math.inf, "0 or more"),
        ("--batch-size", given.batch_size >= 1, "at least 1"),
        ("--seed", 0 <= given.seed < 2**63, "from 0 to 2^63 - 1"),
    ):
        if not ok:
            parser.error(f"{flag} must be {allowed}")
    del given.out
    return out, Options(**vars(given))


if __name__ == "__main__":
    main()
