"""How good is the model on digits it has never seen?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Quality:
    """Shares from 0 to 1. Precision, recall and F1 are macro averages: every digit counts the same."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    confusion_matrix: tuple[tuple[int, ...], ...]
    """Ten rows of ten counts: row = true digit, column = predicted digit."""


def predictions(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the most probable digit, int64 [n], of images [n, 1, 28, 28]."""
    with torch.inference_mode():
        return model(images).argmax(dim=1)


def quality(labels: Tensor, predicted: Tensor) -> Quality:
    """Compare true with predicted digits, both int64 [n]. A digit that is never predicted has precision 0."""
    true, guess, classes = labels.numpy(), predicted.numpy(), range(10)
    precision, recall, f1, _ = precision_recall_fscore_support(
        true, guess, labels=classes, average="macro", zero_division=0
    )
    matrix = confusion_matrix(true, guess, labels=classes)
    return Quality(
        accuracy=float(accuracy_score(true, guess)),
        precision=float(precision),
        recall=float(recall),
        f1=float(f1),
        confusion_matrix=tuple(tuple(int(count) for count in row) for row in matrix),
    )
