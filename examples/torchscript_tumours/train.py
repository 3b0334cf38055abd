"""Train a network that tells benign from malignant tumours, measure it, and write it as TorchScript for Evenkeel.

    pip install 'torch>=2.13,<2.14' 'scikit-learn>=1.7'
    python examples/torchscript_tumours/train.py --out out/torchscript_tumours

The 569 real tumours that scikit-learn carries, 30 measurements of cell nuclei each, four fifths to train on, a fifth
held out. Mean and spread of every measurement are kept in the network, so that it takes them as they were measured. It
prints the accuracy on the held-out tumours; below 0.93 nothing is written. In the folder are then:

    tumours.pt           the model, by torch.jit.save: `input_0` FP32 [n, 30] to `output_0`, the logits [n, 2], and
                         `output_1`, the probabilities [n, 2] of malignant and benign
    tumours.pt.sha256    its checksum: TorchScript is served with a pinned one only
    request.json         three held-out tumours of each kind, as one Open Inference Protocol request
    expected.json        what the network answers to it, and the true labels

A TorchScript file is a program of its author's and names neither its tensors nor their shapes: serve one where it is
all there is of a model, and export a network whose code is at hand, as `examples/digits` does. To look at this one:
`evenkeel check out/torchscript_tumours/tumours.pt --allow-native-code --sha256 …`. To deploy it, put it on the volume
behind the claim `models`, and its checksum into the manifest:

    kubectl apply -f examples/torchscript_tumours/modeldeployment.yaml
    kubectl port-forward svc/torchscript-tumours 8080:80 &
    curl -H 'Content-Type: application/json' -d @out/torchscript_tumours/request.json \
      localhost:8080/v2/models/torchscript-tumours/infer
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

ACCURACY_FLOOR = 0.93
EPOCHS = 30
BATCH = 32
MEASUREMENTS = 30
ASKED = 3
"""How many tumours of each kind are in the request."""


class Classifier(nn.Module):
    """One hidden layer over measurements of equal spread."""

    def __init__(self, mean: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.mean, self.spread = nn.Buffer(mean), nn.Buffer(spread)
        self.layers = nn.Sequential(nn.Linear(MEASUREMENTS, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 2))

    def forward(self, measured: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [batch, 2] and probabilities [batch, 2] of measurements [batch, 30]."""
        logits = self.layers((measured - self.mean) / self.spread)
        return logits, logits.softmax(1)


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of 30 measurements and what the tumour is, 0 malignant or 1 benign; a fifth is held out."""

    train_rows: Tensor
    train_kinds: Tensor
    heldout_rows: Tensor
    heldout_kinds: Tensor


def load() -> Split:
    rows, kinds = load_breast_cancer(return_X_y=True)
    split = train_test_split(rows, kinds, test_size=0.2, stratify=kinds, random_state=0)
    train_rows, heldout_rows, train_kinds, heldout_kinds = map(torch.as_tensor, split)
    return Split(train_rows.float(), train_kinds, heldout_rows.float(), heldout_kinds)


def fit(split: Split) -> Classifier:
    """Return the network in eval mode, trained by Adam on a learning rate that rises and falls once."""
    torch.manual_seed(0)
    model = Classifier(split.train_rows.mean(0), split.train_rows.std(0))
    optimiser = torch.optim.Adam(model.parameters())
    steps = EPOCHS * -(-len(split.train_rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.01, total_steps=steps)
    for _ in range(EPOCHS):
        for chosen in torch.split(torch.randperm(len(split.train_rows)), BATCH):
            logits, _ = model(split.train_rows[chosen])
            loss = nn.functional.cross_entropy(logits, split.train_kinds[chosen])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
    return model.eval()


def accuracy(model: Classifier, split: Split) -> float:
    with torch.no_grad():
        predicted = model(split.heldout_rows)[0].argmax(1)
    return float((predicted == split.heldout_kinds).float().mean())


def write(model: Classifier, split: Split, out: Path) -> str:
    """Write the model and what belongs to it into the folder; return the model's SHA-256."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "tumours.pt"
    jit: Any = torch.jit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of TorchScript's age
        jit.save(jit.script(model), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{sha256}  {path.name}\n")
    chosen = torch.cat([(split.heldout_kinds == kind).nonzero()[:ASKED, 0] for kind in range(2)])
    rows = split.heldout_rows[chosen]
    tensor = {"name": "input_0", "datatype": "FP32", "shape": list(rows.shape), "data": rows.flatten().tolist()}
    (out / "request.json").write_text(json.dumps({"inputs": [tensor]}) + "\n")
    with torch.no_grad():
        logits, probabilities = model(rows)
    expected = {
        "truth": split.heldout_kinds[chosen].tolist(),
        "output_0": logits.tolist(),
        "output_1": probabilities.tolist(),
    }
    (out / "expected.json").write_text(json.dumps(expected) + "\n")
    return sha256


def main(argv: list[str] | None = None) -> None:
    """Train, measure, write; exits with 1 and a sentence where the model is not good enough to be served."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for tumours.pt and what belongs to it")
    out: Path = parser.parse_args(argv).out
    if out.exists() and not out.is_dir():
        parser.error(f"--out: {out} is a file; name a folder")
    split = load()
    print(f"{len(split.train_rows)} tumours to train on, {len(split.heldout_rows)} held out")
    model = fit(split)
    found = accuracy(model, split)
    print(f"held out: accuracy {found:.4f}")
    if found < ACCURACY_FLOOR:
        sys.exit(f"accuracy {found:.4f} on held-out tumours is below {ACCURACY_FLOOR}, nothing was written")
    print(f"wrote {out / 'tumours.pt'} (sha256 {write(model, split, out)})")


if __name__ == "__main__":
    main()
