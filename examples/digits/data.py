"""Which digits are learned from, and which are held out?

The split does not depend on the seed of a training run: a digit held out from one version of the model is held
out from all of them, so that their measurements compare.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

FULL_INK = 16
"""The bundled digits count the inked pixels of a 4×4 block of the scan: 0 to 16."""


@dataclass(frozen=True, slots=True)
class Digits:
    """Handwritten digits. Images are float32 [n, 1, 28, 28] from 0 to 1, labels int64 [n] from 0 to 9."""

    train_images: Tensor
    train_labels: Tensor
    heldout_images: Tensor
    heldout_labels: Tensor


def resized(blocks: Tensor) -> Tensor:
    """Return float32 images [n, 1, 28, 28] from 0 to 1 of ink counts [n, 8, 8] from 0 to `FULL_INK`."""
    ink = blocks.to(torch.float32).unsqueeze(1) / FULL_INK
    return F.interpolate(ink, size=(28, 28), mode="bilinear", align_corners=False)


def shifted(images: Tensor, most: int = 2) -> Tensor:
    """Return images [n, 1, 28, 28] each moved by up to `most` pixels down or up and right or left, at random.

    Whoever writes a little off the middle has written the same digit: 25 positions of every training digit for one.
    """
    padded = F.pad(images, (most, most, most, most))
    each = torch.arange(len(images)).reshape(-1, 1, 1)
    rows = torch.randint(0, 2 * most + 1, (len(images), 1, 1)) + torch.arange(28).reshape(1, 28, 1)
    columns = torch.randint(0, 2 * most + 1, (len(images), 1, 1)) + torch.arange(28).reshape(1, 1, 28)
    return padded[each, 0, rows, columns].unsqueeze(1)


def split_indices(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices of labels [n] to train on, and those held out: a fifth, every class in proportion."""
    train, heldout = train_test_split(
        torch.arange(len(labels)).numpy(), test_size=0.2, stratify=labels.numpy(), random_state=0
    )
    return torch.from_numpy(train), torch.from_numpy(heldout)


def load() -> Digits:
    """Return the 1,797 real digits that scikit-learn carries, resized and split."""
    bundled = load_digits()
    images = resized(torch.from_numpy(bundled.images))
    labels = torch.from_numpy(bundled.target)
    train, heldout = split_indices(labels)
    return Digits(images[train], labels[train], images[heldout], labels[heldout])
