"""Train an autoencoder that says how unlike its digits a picture is, measure it, and write it for Evenkeel to serve.

    pip install 'torch>=2.13,<2.14' 'scikit-learn>=1.7'
    python examples/autoencoder_digits/train.py --out out/autoencoder_digits

The real digits that scikit-learn carries (8×8 pixels), four fifths to train on, a fifth held out. The network squeezes
an image into 8 numbers and draws it again from them; what it has not learned to draw comes out wrong. It is trained on
the digits from 1 to 9 and never sees a zero. It prints how much of the held-out pixels' variance the drawings explain,
and how well their error tells zeros from the other held-out digits (area under the ROC curve); where that is below
0.97 nothing is written. In the folder are then:

    digits.pt2           the model, by torch.export.save: `image` FP32 [-1, 64], ink from 0 to 1, to `drawn` FP32
                         [-1, 64] and `error` FP32 [-1], the mean square of their difference
    digits.pt2.sha256    its checksum, for spec.model.sha256
    request.json         one held-out digit of each kind, as one Open Inference Protocol request
    expected.json        what the network answers to it, and the true labels

`evenkeel check out/autoencoder_digits/digits.pt2` says what the runtime would do with it. To deploy it, put it on the
volume behind the claim `models`, then:

    kubectl apply -f examples/autoencoder_digits/modeldeployment.yaml
    kubectl port-forward svc/autoencoder-digits 8080:80 &
    curl -H 'Content-Type: application/json' -d @out/autoencoder_digits/request.json \
      localhost:8080/v2/models/autoencoder-digits/infer

A client that wants the error alone asks for it: `"outputs": [{"name": "error"}]` in the request.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.export import Dim

FULL_INK = 16
UNSEEN = 0
"""The digit that is kept from training, to see whether the error tells it."""
AREA_FLOOR = 0.97
EPOCHS = 60
BATCH = 64
CODE = 8


class Autoencoder(nn.Module):
    """Two layers down to `CODE` numbers, two layers up again."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, CODE))
        self.draw = nn.Sequential(nn.Linear(CODE, 128), nn.ReLU(), nn.Linear(128, 64))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the images [batch, 64] as drawn again, and the mean square error [batch] of each."""
        drawn = self.draw(self.squeeze(image))
        return {"drawn": drawn, "error": (drawn - image).square().mean(1)}


@dataclass(frozen=True, slots=True)
class Split:
    """Images [n, 64] with ink from 0 to 1, a fifth of every digit held out, and all of `UNSEEN` kept from training."""

    train_images: Tensor
    heldout_images: Tensor
    heldout_digits: Tensor


@dataclass(frozen=True, slots=True)
class Quality:
    """`explained`: the share of the variance of known digits' pixels. `area` under the curve, from 0.5 to 1: how
    likely an unseen digit has a larger error than a known one."""

    explained: float
    area: float


def load() -> Split:
    rows, digits = load_digits(return_X_y=True)
    split = train_test_split(rows / FULL_INK, digits, test_size=0.2, stratify=digits, random_state=0)
    train_images, heldout_images, train_digits, heldout_digits = map(torch.as_tensor, split)
    return Split(train_images[train_digits != UNSEEN].float(), heldout_images.float(), heldout_digits)


def fit(split: Split) -> Autoencoder:
    """Return the network in eval mode, trained by Adam on a learning rate that rises and falls once."""
    torch.manual_seed(0)
    model = Autoencoder()
    optimiser = torch.optim.Adam(model.parameters())
    steps = EPOCHS * -(-len(split.train_images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.005, total_steps=steps)
    for _ in range(EPOCHS):
        for chosen in torch.split(torch.randperm(len(split.train_images)), BATCH):
            loss = model(split.train_images[chosen])["error"].mean()
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
    return model.eval()


def quality(model: Autoencoder, split: Split) -> Quality:
    with torch.no_grad():
        error = model(split.heldout_images)["error"]
    is_unseen = split.heldout_digits == UNSEEN
    known = split.heldout_images[~is_unseen]
    explained = 1 - error[~is_unseen].mean() / (known - known.mean(0)).square().mean()
    return Quality(float(explained), float(roc_auc_score(is_unseen.numpy(), error.numpy())))


def write(model: Autoencoder, split: Split, out: Path) -> str:
    """Write the model and what belongs to it into the folder; return the model's SHA-256."""
    out.mkdir(parents=True, exist_ok=True)
    chosen = [int((split.heldout_digits == digit).nonzero()[0]) for digit in range(10)]
    images, path = split.heldout_images[chosen], out / "digits.pt2"
    torch.export.save(torch.export.export(model, (images,), dynamic_shapes={"image": {0: Dim("batch")}}), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{sha256}  {path.name}\n")
    tensor = {"name": "image", "datatype": "FP32", "shape": list(images.shape), "data": images.flatten().tolist()}
    (out / "request.json").write_text(json.dumps({"inputs": [tensor]}) + "\n")
    with torch.no_grad():
        answer = {name: values.tolist() for name, values in model(images).items()}
    (out / "expected.json").write_text(json.dumps({"truth": split.heldout_digits[chosen].tolist(), **answer}) + "\n")
    return sha256


def main(argv: list[str] | None = None) -> None:
    """Train, measure, write; exits with 1 and a sentence where the model is not good enough to be served."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for digits.pt2 and what belongs to it")
    out: Path = parser.parse_args(argv).out
    if out.exists() and not out.is_dir():
        parser.error(f"--out: {out} is a file; name a folder")
    split = load()
    print(f"{len(split.train_images)} digits to train on, {len(split.heldout_images)} held out")
    model = fit(split)
    found = quality(model, split)
    print(f"held out: variance explained {found.explained:.4f}, zeros told by their error {found.area:.4f}")
    if found.area < AREA_FLOOR:
        sys.exit(f"zeros are told by their error at {found.area:.4f}, below {AREA_FLOOR}; nothing was written")
    print(f"wrote {out / 'digits.pt2'} (sha256 {write(model, split, out)})")


if __name__ == "__main__":
    main()
