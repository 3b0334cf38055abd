"""Train one of timm's networks to read handwritten digits, measure it, and write it as a folder that Evenkeel serves.

    pip install 'torch>=2.13,<2.14' 'timm>=1.0.31,<2' 'scikit-learn>=1.7'
    python examples/statedict_digits/train.py --out out/statedict_digits

The 1,797 real digits that scikit-learn carries (8×8 pixels, shown to the network at 32×32), four fifths to train on, a
fifth held out. It prints the accuracy on the held-out digits; below 0.95 nothing is written. In the folder are then:

    digits/          the model, by timm.models.save_for_hf: `image` FP32 [-1, 1, 32, 32], ink from 0 to 1, to `logits`
                     FP32 [-1, 10]; weights in safetensors, and a config that names the architecture and the classes
    request.json     one held-out digit of each kind, as one Open Inference Protocol request
    expected.json    what timm answers to it, and the true labels

`evenkeel check out/statedict_digits/digits` says what the runtime would do with it, and prints the sha256 that
spec.model.sha256 takes. To deploy it, put the folder on the volume behind the claim `models`, then:

    kubectl apply -f examples/statedict_digits/modeldeployment.yaml
    kubectl port-forward svc/statedict-digits 8080:80 &
    curl -H 'Content-Type: application/json' -d @out/statedict_digits/request.json \
      localhost:8080/v2/models/statedict-digits/infer
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

ARCHITECTURE = "test_resnet"
"""The smallest of timm's residual networks, 0.5 million weights; any other name of timm's registry does as well."""
SIZE = 32
ACCURACY_FLOOR = 0.95
EPOCHS = 12
BATCH = 64


@dataclass(frozen=True, slots=True)
class Split:
    """Images [N, 1, 32, 32] with ink from 0 to 1, and their digits; a fifth is held out, every digit in proportion."""

    train_images: Tensor
    train_digits: Tensor
    heldout_images: Tensor
    heldout_digits: Tensor


def load() -> Split:
    rows, digits = load_digits(return_X_y=True)
    split = train_test_split(rows, digits, test_size=0.2, stratify=digits, random_state=0)
    train_rows, heldout_rows, train_digits, heldout_digits = map(torch.as_tensor, split)
    return Split(_images(train_rows), train_digits, _images(heldout_rows), heldout_digits)


def _images(rows: Tensor) -> Tensor:
    small = (rows.float() / 16).reshape(-1, 1, 8, 8)
    return nn.functional.interpolate(small, size=(SIZE, SIZE), mode="bilinear")


def fit(split: Split) -> nn.Module:
    """Return the network in eval mode, trained from scratch with AdamW and a one-cycle schedule."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(
        ARCHITECTURE, num_classes=10, in_chans=1, pretrained_cfg_overlay={"input_size": (1, SIZE, SIZE)}
    )
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = EPOCHS * -(-len(split.train_images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for chosen in torch.split(torch.randperm(len(split.train_images)), BATCH):
            loss = nn.functional.cross_entropy(model(split.train_images[chosen]), split.train_digits[chosen])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return model.eval()


def accuracy(model: nn.Module, split: Split) -> float:
    with torch.no_grad():
        predicted = model(split.heldout_images).argmax(1)
    return float((predicted == split.heldout_digits).float().mean())


def write(model: nn.Module, split: Split, out: Path) -> None:
    """Write the model's folder and what belongs to it."""
    timm.models.save_for_hf(
        model,
        out / "digits",
        model_config={"label_names": [str(digit) for digit in range(10)]},
        safe_serialization=True,
    )
    chosen = [int((split.heldout_digits == digit).nonzero()[0]) for digit in range(10)]
    images = split.heldout_images[chosen]
    tensor = {"name": "image", "datatype": "FP32", "shape": list(images.shape), "data": images.flatten().tolist()}
    (out / "request.json").write_text(json.dumps({"inputs": [tensor]}) + "\n")
    with torch.no_grad():
        expected = {"truth": split.heldout_digits[chosen].tolist(), "logits": model(images).tolist()}
    (out / "expected.json").write_text(json.dumps(expected) + "\n")


def main(argv: list[str] | None = None) -> None:
    """Train, measure, write; exits with 1 and a sentence where the model is not good enough to be served."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for digits/ and what belongs to it")
    out: Path = parser.parse_args(argv).out
    if out.exists() and not out.is_dir():
        parser.error(f"--out: {out} is a file; name a folder")
    split = load()
    print(f"{len(split.train_images)} digits to train on, {len(split.heldout_images)} held out")
    model = fit(split)
    found = accuracy(model, split)
    print(f"held out: accuracy {found:.4f}")
    if found < ACCURACY_FLOOR:
        sys.exit(f"accuracy {found:.4f} on held-out digits is below {ACCURACY_FLOOR}, nothing was written")
    write(model, split, out)
    print(f"wrote {out / 'digits'}")


if __name__ == "__main__":
    main()
