"""Train a vision transformer that reads handwritten digits, measure it, and write it as a folder that Evenkeel serves.

    pip install 'torch>=2.13,<2.14' 'torchvision>=0.28,<0.29' 'transformers>=5.23,<5.24' 'scikit-learn>=1.7'
    python examples/transformers_digits/train.py --out out/transformers_digits

The 1,797 real digits that scikit-learn carries, four fifths to train on, a fifth held out, as pictures of 8×8 pixels of
red, green and blue. The image processor makes them 16×16, a small ViT reads them as 16 patches, trained from scratch.
It prints the accuracy on the held-out digits; below 0.93 nothing is written. In the folder are then:

    digits/          model and image processor, by save_pretrained: `image` UINT8 [-1, -1, -1, 3], pictures of any size,
                     to `label` BYTES [-1], `probabilities` and `logits` FP32 [-1, 10]
    request.json     one held-out digit of each kind, as one Open Inference Protocol request
    expected.json    what transformers answers to it, and the true labels

`evenkeel check out/transformers_digits/digits` says what the runtime would do with it, and prints the sha256 that
spec.model.sha256 takes. To deploy it, put the folder on the volume behind the claim `models`, then:

    kubectl apply -f examples/transformers_digits/modeldeployment.yaml
    kubectl port-forward svc/transformers-digits 8080:80 &
    curl -H 'Content-Type: application/json' -d @out/transformers_digits/request.json \
      localhost:8080/v2/models/transformers-digits/infer
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

FULL_INK = 16
DIGITS = tuple(str(digit) for digit in range(10))
SIDE, PATCH = 16, 4
ACCURACY_FLOOR = 0.93
EPOCHS = 25
BATCH = 64


@dataclass(frozen=True, slots=True)
class Split:
    """Pictures UINT8 [n, 8, 8, 3] and their digits; a fifth is held out, every digit in proportion."""

    train_pictures: Tensor
    train_digits: Tensor
    heldout_pictures: Tensor
    heldout_digits: Tensor


def load() -> Split:
    bundled = load_digits()
    split = train_test_split(bundled.images, bundled.target, test_size=0.2, stratify=bundled.target, random_state=0)
    train_ink, heldout_ink, train_digits, heldout_digits = map(torch.as_tensor, split)
    return Split(_pictures(train_ink), train_digits, _pictures(heldout_ink), heldout_digits)


def _pictures(ink: Tensor) -> Tensor:
    """Return grey pictures of ink counts [n, 8, 8]."""
    return (ink * 255 / FULL_INK).round().to(torch.uint8)[..., None].repeat(1, 1, 1, 3)


def processor() -> Any:
    """Return what makes the model's input of a picture, by torchvision, as the runtime has it."""
    return ViTImageProcessor(size={"height": SIDE, "width": SIDE})


def fit(split: Split, prepare: Any) -> Any:
    """Return the model in eval mode, trained from scratch with AdamW and a one-cycle schedule."""
    torch.manual_seed(0)
    model = ViTForImageClassification(
        ViTConfig(
            image_size=SIDE, patch_size=PATCH, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=128, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            id2label=dict(enumerate(DIGITS)), label2id={name: digit for digit, name in enumerate(DIGITS)},
        )
    )  # fmt: skip
    values = prepared(prepare, split.train_pictures)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = EPOCHS * -(-len(values) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        for chosen in torch.split(torch.randperm(len(values)), BATCH):
            answer = model(pixel_values=values[chosen], labels=split.train_digits[chosen])
            optimiser.zero_grad()
            answer.loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def prepared(prepare: Any, pictures: Tensor) -> Tensor:
    """Return [n, 3, SIDE, SIDE] of pictures [n, height, width, 3]."""
    values: Tensor = prepare(list(pictures), input_data_format="channels_last", return_tensors="pt")["pixel_values"]
    return values


def accuracy(model: Any, prepare: Any, split: Split) -> float:
    with torch.no_grad():
        predicted = model(pixel_values=prepared(prepare, split.heldout_pictures)).logits.argmax(1)
    return float((predicted == split.heldout_digits).float().mean())


def write(model: Any, prepare: Any, split: Split, out: Path) -> None:
    """Write the model's folder and what belongs to it."""
    model.save_pretrained(out / "digits")
    prepare.save_pretrained(out / "digits")
    chosen = [int((split.heldout_digits == digit).nonzero()[0]) for digit in range(10)]
    pictures = split.heldout_pictures[chosen]
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(pictures.shape), "data": pictures.flatten().tolist()}
    (out / "request.json").write_text(json.dumps({"inputs": [tensor]}) + "\n")
    with torch.no_grad():
        logits = model(pixel_values=prepared(prepare, pictures)).logits
    expected = {
        "truth": [DIGITS[digit] for digit in split.heldout_digits[chosen].tolist()],
        "label": [DIGITS[digit] for digit in logits.argmax(1).tolist()],
        "probabilities": logits.softmax(1).tolist(),
        "logits": logits.tolist(),
    }
    (out / "expected.json").write_text(json.dumps(expected) + "\n")


def main(argv: list[str] | None = None) -> None:
    """Train, measure, write; exits with 1 and a sentence where the model is not good enough to be served."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for digits/ and what belongs to it")
    out: Path = parser.parse_args(argv).out
    if out.exists() and not out.is_dir():
        parser.error(f"--out: {out} is a file; name a folder")
    split, prepare = load(), processor()
    print(f"{len(split.train_pictures)} digits to train on, {len(split.heldout_pictures)} held out")
    model = fit(split, prepare)
    found = accuracy(model, prepare, split)
    print(f"held out: accuracy {found:.4f}")
    if found < ACCURACY_FLOOR:
        sys.exit(f"accuracy {found:.4f} on held-out digits is below {ACCURACY_FLOOR}, nothing was written")
    write(model, prepare, split, out)
    print(f"wrote {out / 'digits'}")


if __name__ == "__main__":
    main()
