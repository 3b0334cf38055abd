"""What if the sheets are scanned sideways from now on? Nothing about the model has changed, and it reads one in ten.

    python examples/digits/drift.py --out out/turned.jsonl

writes every bundled digit a quarter turned, a line of JSON each: `body`, the request that asks for it, and `label`, its
truth. So an application keeps what it has asked and learned; Evenkeel keeps the label and what was predicted, and never
sees the image again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a script, only this folder is on the path

from examples.digits import data, export


def turned(images: Tensor) -> Tensor:
    """Return images [n, 1, 28, 28] a quarter turned, against the clock."""
    return torch.rot90(images, 1, (2, 3))


def records(images: Tensor, labels: Tensor) -> Iterator[dict[str, Any]]:
    """Yield what an application keeps of each image [n, 1, 28, 28] and its label [n]."""
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        yield {"body": export.request(image, f"digit-{number}"), "label": label}


def read(path: Path) -> tuple[Tensor, Tensor]:
    """Return images [n, 1, 28, 28] and labels [n] of what an application has kept."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    pixels = [row["body"]["inputs"][0]["data"] for row in rows]
    return torch.tensor(pixels).reshape(-1, 1, 28, 28), torch.tensor([row["label"] for row in rows])


def write(path: Path, digits: data.Digits) -> None:
    """Write every digit turned."""
    images = turned(torch.cat([digits.train_images, digits.heldout_images]))
    labels = torch.cat([digits.train_labels, digits.heldout_labels])
    path.write_text("".join(json.dumps(row) + "\n" for row in records(images, labels)))


def main(argv: list[str] | None = None) -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    out = parser.parse_args(argv).out
    out.parent.mkdir(parents=True, exist_ok=True)
    write(out, data.load())
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
