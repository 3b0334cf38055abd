"""Train a ridge regression that says how far diabetes goes in a year, measure it, and write it as a file for Evenkeel.

    pip install 'scikit-learn>=1.7' 'skops>=0.16,<0.17'
    python examples/sklearn_diabetes/train.py --out out/sklearn_diabetes

The 442 real patients that scikit-learn carries, ten measurements each and a score of the disease a year later, from 25
to 346; four fifths to train on, a fifth held out. It prints the mean absolute error and the root of the mean squared
error on the held-out patients, in points of the score; above a mean absolute error of 50 nothing is written. In the
folder are then:

    diabetes.skops           the model, by skops.io.dump: `input` FP64 [-1, 10], the measurements as they were made, to
                             `prediction` FP64 [-1], the score
    diabetes.skops.sha256    its checksum, for spec.model.sha256
    request.json             ten held-out patients, as one Open Inference Protocol request
    expected.json            what scikit-learn answers to it, and the true scores

`evenkeel check out/sklearn_diabetes/diabetes.skops` says what the runtime would do with it. The manifest gives the mean
absolute error a ceiling. To deploy it, put it on the volume behind the claim `models`, then:

    kubectl apply -f examples/sklearn_diabetes/modeldeployment.yaml
    kubectl port-forward svc/sklearn-diabetes 8080:80 &
    curl -H 'Content-Type: application/json' -d @out/sklearn_diabetes/request.json \
      localhost:8080/v2/models/sklearn-diabetes/infer

A year later, the true score of a patient is a label: `{"receipt": …, "row": 0, "label": 151.0}` to `/v1/feedback`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import skops.io
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, root_mean_squared_error
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

ERROR_CEILING = 50.0
REGULARISATION = 10.0
"""Ridge's alpha, the strength of the L2 term."""
ASKED = 10
"""How many patients are in the request."""


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of ten measurements and the scores a year later; a fifth is held out."""

    train_rows: Any
    train_scores: Any
    heldout_rows: Any
    heldout_scores: Any


@dataclass(frozen=True, slots=True)
class Quality:
    """Errors in points of the score."""

    mae: float
    rmse: float


def load() -> Split:
    rows, scores = load_diabetes(return_X_y=True, scaled=False)
    train_rows, heldout_rows, train_scores, heldout_scores = train_test_split(
        rows, scores, test_size=0.2, random_state=0
    )
    return Split(train_rows, train_scores, heldout_rows, heldout_scores)


def fit(split: Split) -> Pipeline:
    """Return a fitted pipeline: measurements of equal spread, then one weight for each."""
    return make_pipeline(StandardScaler(), Ridge(alpha=REGULARISATION)).fit(split.train_rows, split.train_scores)


def quality(model: Pipeline, split: Split) -> Quality:
    predicted = model.predict(split.heldout_rows)
    return Quality(
        float(mean_absolute_error(split.heldout_scores, predicted)),
        float(root_mean_squared_error(split.heldout_scores, predicted)),
    )


def write(model: Pipeline, split: Split, out: Path) -> str:
    """Write the model and what belongs to it into the folder; return the model's SHA-256."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "diabetes.skops"
    skops.io.dump(model, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{sha256}  {path.name}\n")
    rows = split.heldout_rows[:ASKED]
    tensor = {"name": "input", "datatype": "FP64", "shape": list(rows.shape), "data": rows.flatten().tolist()}
    (out / "request.json").write_text(json.dumps({"inputs": [tensor]}) + "\n")
    expected = {"truth": split.heldout_scores[:ASKED].tolist(), "prediction": model.predict(rows).tolist()}
    (out / "expected.json").write_text(json.dumps(expected) + "\n")
    return sha256


def main(argv: list[str] | None = None) -> None:
    """Train, measure, write; exits with 1 and a sentence where the model is not good enough to be served."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for diabetes.skops and what belongs to it")
    out: Path = parser.parse_args(argv).out
    if out.exists() and not out.is_dir():
        parser.error(f"--out: {out} is a file; name a folder")
    split = load()
    print(f"{len(split.train_rows)} patients to train on, {len(split.heldout_rows)} held out")
    model = fit(split)
    found = quality(model, split)
    print("held out:", *(f"{name} {value:.2f}" for name, value in asdict(found).items()))
    if found.mae > ERROR_CEILING:
        sys.exit(f"mae {found.mae:.2f} on held-out patients is above {ERROR_CEILING:g}, nothing was written")
    sha256 = write(model, split, out)
    print(f"wrote {out / 'diabetes.skops'} (sha256 {sha256})")


if __name__ == "__main__":
    main()
