"""Train a recurrent network that reads handwritten digits row by row, measure it, and write it for Evenkeel to serve.

    pip install 'torch>=2.13,<2.14' 'scikit-learn>=1.7'
    python examples/recurrent_digits/train.py --out out/recurrent_digits

The 1,797 real digits that scikit-learn carries, four fifths to train on, a fifth held out. An image is a sequence of 8
rows of 8 pixels: an LSTM reads them from top to bottom, and its last state decides. It prints the accuracy on the
held-out digits; below 0.95 nothing is written. In the folder are then:

    digits.pt2           the model, by torch.export.save: `rows` FP32 [-1, 8, 8], ink from 0 to 1, to `logits` FP32
                         [-1, 10]
    digits.pt2.sha256    its checksum, for spec.model.sha256
    request.json         one held-out digit of each kind, as one Open Inference Protocol request
    expected.json        what the network answers to it, and the true labels

A recurrent network is exported and served as any other: its state begins at zero with every request and ends with it.
`evenkeel check out/recurrent_digits/digits.pt2` says what the runtime would do with it. To deploy it, put it on the
volume behind the claim `models`, then:

    kubectl apply -f examples/recurrent_digits/modeldeployment.yaml
    kubectl port-forward svc/recurrent-digits 8080:80 &
    curl -H 'Content-Type: application/json' -d @out/recurrent_digits/request.json \
      localhost:8080/v2/models/recurrent-digits/infer
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.export import Dim

FULL_INK = 16
ACCURACY_FLOOR = 0.95
EPOCHS = 40
BATCH = 64
STATE = 64


class Reader(nn.Module):
    """An LSTM over the rows of an image, and a linear layer on its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.decide = nn.LSTM(8, STATE, batch_first=True), nn.Linear(STATE, 10)

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        """Return logits [batch, 10] of images [batch, 8, 8], where 0 is no ink and 1 is full ink."""
        states, _ = self.lstm(rows)
        return {"logits": self.decide(states[:, -1])}


@dataclass(frozen=True, slots=True)
class Split:
    """Images [n, 8, 8] with ink from 0 to 1, and their digits; a fifth is held out, every digit in proportion."""

    train_rows: Tensor
    train_digits: Tensor
    heldout_rows: Tensor
    heldout_digits: Tensor


def load() -> Split:
    bundled = load_digits()
    split = train_test_split(
        bundled.images / FULL_INK, bundled.target, test_size=0.2, stratify=bundled.target, random_state=0
    )
    train_rows, heldout_rows, train_digits, heldout_digits = map(torch.as_tensor, split)
    return Split(train_rows.float(), train_digits, heldout_rows.float(), heldout_digits)


def fit(split: Split) -> Reader:
    """Return the network in eval mode, trained by Adam on a learning rate that rises and falls once."""
    torch.manual_seed(0)
    model = Reader()
    optimiser = torch.optim.Adam(model.parameters())
    steps = EPOCHS * -(-len(split.train_rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.01, total_steps=steps)
    for _ in range(EPOCHS):
        for chosen in torch.split(torch.randperm(len(split.train_rows)), BATCH):
            loss = nn.functional.cross_entropy(model(split.train_rows[chosen])["logits"], split.train_digits[chosen])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
    return model.eval()


def accuracy(model: Reader, split: Split) -> float:
    with torch.no_grad():
        predicted = model(split.heldout_rows)["logits"].argmax(1)
    return float((predicted == split.heldout_digits).float().mean())


def write(model: Reader, split: Split, out: Path) -> str:
    """Write the model and what belongs to it into the folder; return the model's SHA-256."""
    out.mkdir(parents=True, exist_ok=True)
    chosen = [int((split.heldout_digits == digit).nonzero()[0]) for digit in range(10)]
    rows, path = split.heldout_rows[chosen], out / "digits.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of how its own LSTM keeps its weights
        program = torch.export.export(model, (rows,), dynamic_shapes={"rows": {0: Dim("batch")}})
    torch.export.save(program, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{sha256}  {path.name}\n")
    tensor = {"name": "rows", "datatype": "FP32", "shape": list(rows.shape), "data": rows.flatten().tolist()}
    (out / "request.json").write_text(json.dumps({"inputs": [tensor]}) + "\n")
    with torch.no_grad():
        expected = {"truth": split.heldout_digits[chosen].tolist(), "logits": model(rows)["logits"].tolist()}
    (out / "expected.json").write_text(json.dumps(expected) + "\n")
    return sha256


def main(argv: list[str] | None = None) -> None:
    """Train, measure, write; exits with 1 and a sentence where the model is not good enough to be served."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for digits.pt2 and what belongs to it")
    out: Path = parser.parse_args(argv).out
    if out.exists() and not out.is_dir():
        parser.error(f"--out: {out} is a file; name a folder")
    split = load()
    print(f"{len(split.train_rows)} digits to train on, {len(split.heldout_rows)} held out")
    model = fit(split)
    found = accuracy(model, split)
    print(f"held out: accuracy {found:.4f}")
    if found < ACCURACY_FLOOR:
        sys.exit(f"accuracy {found:.4f} on held-out digits is below {ACCURACY_FLOOR}, nothing was written")
    print(f"wrote {out / 'digits.pt2'} (sha256 {write(model, split, out)})")


if __name__ == "__main__":
    main()
