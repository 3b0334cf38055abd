"""Train a logistic regression that reads handwritten digits, measure it, and write it as a file that Evenkeel serves.

    pip install 'scikit-learn>=1.7' 'skops>=0.16,<0.17'
    python examples/sklearn_digits/train.py --out out/sklearn_digits

The 1,797 real digits that scikit-learn carries (8×8 pixels), four fifths to train on, a fifth held out. It prints
accuracy, precision, recall and F1 (macro) of the held-out digits; below an accuracy of 0.95 nothing is written. In the
folder are then:

    digits.skops           the model, by skops.io.dump: `input` FP64 [-1, 64], ink from 0 to 16, to `label` INT64 [-1]
                           and `probabilities` FP64 [-1, 10]
    digits.skops.sha256    its checksum, for spec.model.sha256
    request.json           one held-out digit of each kind, as one Open Inference Protocol request
    expected.json          what scikit-learn answers to it, and the true labels

`evenkeel check out/sklearn_digits/digits.skops` says what the runtime would do with it. To deploy it, put it on the
volume behind the claim `models`, then:

    kubectl apply -f examples/sklearn_digits/modeldeployment.yaml
    kubectl port-forward svc/sklearn-digits 8080:80 &
    curl -H 'Content-Type: application/json' -d @out/sklearn_digits/request.json \
      localhost:8080/v2/models/sklearn-digits/infer
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

ACCURACY_FLOOR = 0.95
REGULARISATION = 0.1
"""LogisticRegression's C, the inverse of the strength of the L2 term."""


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of 64 ink counts and their digits; a fifth is held out, every digit in proportion."""

    train_rows: Any
    train_digits: Any
    heldout_rows: Any
    heldout_digits: Any


@dataclass(frozen=True, slots=True)
class Quality:
    """Shares from 0 to 1. Precision, recall and F1 are macro averages: every digit counts the same."""

    accuracy: float
    precision: float
    recall: float
    f1: float


def load() -> Split:
    rows, digits = load_digits(return_X_y=True)
    train_rows, heldout_rows, train_digits, heldout_digits = train_test_split(
        rows, digits, test_size=0.2, stratify=digits, random_state=0
    )
    return Split(train_rows, train_digits, heldout_rows, heldout_digits)


def fit(split: Split) -> Pipeline:
    """Return a fitted pipeline: pixels of equal spread, then one weight per pixel and digit."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISATION, max_iter=1000)).fit(
        split.train_rows, split.train_digits
    )


def quality(model: Pipeline, split: Split) -> Quality:
    predicted = model.predict(split.heldout_rows)
    precision, recall, f1, _ = precision_recall_fscore_support(
        split.heldout_digits, predicted, average="macro", zero_division=0
    )
    return Quality(float(accuracy_score(split.heldout_digits, predicted)), float(precision), float(recall), float(f1))


def write(model: Pipeline, split: Split, out: Path) -> str:
    """Write the model and what belongs to it into the folder; return the model's SHA-256."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "digits.skops"
    skops.io.dump(model, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{sha256}  {path.name}\n")
    chosen = [int(np.flatnonzero(split.heldout_digits == digit)[0]) for digit in range(10)]
    rows = split.heldout_rows[chosen]
    tensor = {"name": "input", "datatype": "FP64", "shape": list(rows.shape), "data": rows.flatten().tolist()}
    (out / "request.json").write_text(json.dumps({"inputs": [tensor]}) + "\n")
    expected = {
        "truth": split.heldout_digits[chosen].tolist(),
        "label": model.predict(rows).tolist(),
        "probabilities": model.predict_proba(rows).tolist(),
    }
    (out / "expected.json").write_text(json.dumps(expected) + "\n")
    return sha256


def main(argv: list[str] | None = None) -> None:
    """Train, measure, write; exits with 1 and a sentence where the model is not good enough to be served."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for digits.skops and what belongs to it")
    out: Path = parser.parse_args(argv).out
    if out.exists() and not out.is_dir():
        parser.error(f"--out: {out} is a file; name a folder")
    split = load()
    print(f"{len(split.train_rows)} digits to train on, {len(split.heldout_rows)} held out")
    model = fit(split)
    found = quality(model, split)
    print("held out:", *(f"{name} {value:.4f}" for name, value in asdict(found).items()))
    if found.accuracy < ACCURACY_FLOOR:
        sys.exit(f"accuracy {found.accuracy:.4f} on held-out digits is below {ACCURACY_FLOOR}, nothing was written")
    sha256 = write(model, split, out)
    print(f"wrote {out / 'digits.skops'} (sha256 {sha256})")


if __name__ == "__main__":
    main()
