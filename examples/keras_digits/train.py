"""Train a Keras network that reads handwritten digits, measure it, and write it as a file that Evenkeel serves.

    pip install 'keras>=3.15,<3.16' 'torch>=2.13,<2.14' 'scikit-learn>=1.7'
    python examples/keras_digits/train.py --out out/keras_digits

The 1,797 real digits that scikit-learn carries, resized to 28×28 as in `examples/digits`, four fifths to train on, a
fifth held out. The network: three convolutions of 32, 64 and 64 channels with pooling between them, a dense layer of
64, ten probabilities; trained by Adam. It prints the accuracy, precision, recall and F1 (macro) of the held-out digits;
below an accuracy of 0.96 nothing is written. In the folder are then:

    digits.keras           the model, by model.save: `image` FP32 [-1, 28, 28, 1], ink from 0 to 1, to `probabilities`
                           FP32 [-1, 10]
    digits.keras.sha256    its checksum, for spec.model.sha256
    request.json           one held-out digit of each kind, as one Open Inference Protocol request
    expected.json          what Keras answers to it, and the true labels

`evenkeel check out/keras_digits/digits.keras` says what the runtime would do with it. To deploy it, put it on the
volume behind the claim `models`, then:

    kubectl apply -f examples/keras_digits/modeldeployment.yaml
    kubectl port-forward svc/keras-digits 8080:80 &
    curl -H 'Content-Type: application/json' -d @out/keras_digits/request.json \
      localhost:8080/v2/models/keras-digits/infer
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"  # chosen when Keras is imported

import keras
import numpy as np
import torch
from keras import layers

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a script, only this folder is on the path

from examples.digits import data, evaluate
from examples.digits.data import Digits

ACCURACY_FLOOR = 0.96
BATCH_SIZE = 32


def network() -> keras.Model:
    """Return the network: images [n, 28, 28, 1], where 0 is no ink and 1 is full ink, to probabilities [n, 10]."""
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax", name="probabilities"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def channels_last(images: torch.Tensor) -> Any:
    """Return images [n, 1, 28, 28] as Keras has them: [n, 28, 28, 1]."""
    return images.permute(0, 2, 3, 1).numpy()


def fit(digits: Digits, epochs: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = network()
    model.fit(
        channels_last(digits.train_images), digits.train_labels.numpy(), batch_size=BATCH_SIZE, epochs=epochs, verbose=2
    )
    return model


def answers(model: keras.Model, images: torch.Tensor) -> Any:
    """Return the model's probabilities [n, 10] of images [n, 1, 28, 28]."""
    return model.predict(channels_last(images), verbose=0)


def quality(model: keras.Model, digits: Digits) -> evaluate.Quality:
    predicted = answers(model, digits.heldout_images).argmax(1)
    return evaluate.quality(digits.heldout_labels, torch.from_numpy(predicted))


def write(model: keras.Model, digits: Digits, out: Path) -> str:
    """Write the model and what belongs to it into the folder; return the model's SHA-256."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "digits.keras"
    model.save(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{sha256}  {path.name}\n")
    chosen = [int((digits.heldout_labels == digit).nonzero()[0]) for digit in range(10)]
    images = digits.heldout_images[chosen]
    rows = channels_last(images)
    tensor = {"name": "image", "datatype": "FP32", "shape": list(rows.shape), "data": rows.flatten().tolist()}
    (out / "request.json").write_text(json.dumps({"inputs": [tensor]}) + "\n")
    expected = {"truth": list(range(10)), "probabilities": np.asarray(answers(model, images)).tolist()}
    (out / "expected.json").write_text(json.dumps(expected) + "\n")
    return sha256


def main(argv: list[str] | None = None) -> None:
    """Train, measure, write; exits with 1 and a sentence where the model is not good enough to be served."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for digits.keras and what belongs to it")
    parser.add_argument("--epochs", type=int, default=24, help="passes over the training digits")
    given = parser.parse_args(argv)
    if given.out.exists() and not given.out.is_dir():
        parser.error(f"--out: {given.out} is a file; name a folder")
    if given.epochs < 1:
        parser.error("--epochs must be at least 1")
    digits = data.load()
    print(f"{len(digits.train_images)} digits to train on, {len(digits.heldout_images)} held out")
    model = fit(digits, given.epochs)
    found = asdict(quality(model, digits))
    print("held out:", *(f"{name} {found[name]:.4f}" for name in ("accuracy", "precision", "recall", "f1")))
    if found["accuracy"] < ACCURACY_FLOOR:
        sys.exit(f"accuracy {found['accuracy']:.4f} on held-out digits is below {ACCURACY_FLOOR}, nothing was written")
    print(f"wrote {given.out / 'digits.keras'} (sha256 {write(model, digits, given.out)})")


if __name__ == "__main__":
    main()
