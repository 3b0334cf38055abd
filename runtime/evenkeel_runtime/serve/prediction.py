"""Which class did the model predict, and how sure was it? Or which number?

Read from the answer's tensors, on the way out: it costs a microsecond, so a single row of few classes goes through
Python's own lists, which are faster there than any call of numpy's. A row that is a distribution (no value below zero,
their sum 1) is taken as probabilities, any other as logits: then the confidence is softmax's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING, Any

import numpy as np

from evenkeel_runtime.models.datatypes import BYTES
from evenkeel_runtime.models.loaded import Signature
from evenkeel_runtime.receipts import MAX_CLASSES, SCALE
from evenkeel_runtime.serve.body import from_bf16

if TYPE_CHECKING:
    from evenkeel_runtime.serve.oip import Array

FEW = 64
_LONGEST, _NAMES_BYTES = 1024, 1 << 20
"""Of one name, in characters, and of all as JSON: they go with every push, beside the counts."""
_FLOATS = ("FP16", "BF16", "FP32", "FP64")
_SUM = 0.01
"""How far the sum of probabilities may be from 1: those of ten thousand classes in half precision are."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Where a model's prediction is: `output` is the position of its tensor, `classes` their number (0: a number).

    `names` are the classes' names in their order, empty where they have none. `values` are what the tensor holds for
    each class where it holds one value per row; `scores` is then the position of the tensor of their probabilities.
    """

    output: int
    classes: int
    names: tuple[str, ...] = ()
    is_bf16: bool = False
    values: Mapping[Any, int] | None = None
    scores: int | None = None

    @property
    def told_names(self) -> tuple[str, ...]:
        """The names that labels may use; empty where one would stand for two classes, or the service takes them not:
        labels are then indices."""
        names = self.names
        is_sound = len(set(names)) == len(names) and all(
            0 < len(name) <= _LONGEST and "\0" not in name for name in names
        )
        return names if is_sound and len(json.dumps(names)) <= _NAMES_BYTES else ()

    @property
    def is_quick(self) -> bool:
        """Whether a single row is worth a quick look."""
        return self.values is None and not self.is_bf16 and 0 < self.classes <= FEW

    def one(self, arrays: Sequence[Array]) -> tuple[int, int] | None:
        """Return class and confidence (1/65535) of an answer of one row; None where a quick look does not tell.

        For a model of which `is_quick` holds.
        """
        array = arrays[self.output]
        if len(array) != 1:
            return None
        (row,) = array.tolist()
        best = max(row)
        total = sum(row)
        if 1 - _SUM < total < 1 + _SUM and min(row) >= 0:
            return row.index(best), int(best * SCALE) if best < 1 else SCALE
        try:
            return row.index(best), int(exp(best) / sum(map(exp, row)) * SCALE)
        except (OverflowError, ValueError, ZeroDivisionError):  # far from zero, or no numbers at all
            return None

    def many(self, arrays: Sequence[Array]) -> tuple[list[int], list[int]]:
        """Return the classes and confidences (1/65535) of every row; a class that is none of the model's is the first,
        without any confidence."""
        array = self._array(arrays[self.output])
        if self.values is None:
            return _chosen(array)
        found = [self.values.get(value) for value in array.reshape(-1).tolist()]
        classes = [0 if class_ is None else class_ for class_ in found]
        if self.scores is None:
            return classes, [0] * len(classes)
        scores = arrays[self.scores][np.arange(len(classes)), classes].tolist()
        return classes, [
            0 if class_ is None or not 0 <= score <= 1 else int(score * SCALE)
            for class_, score in zip(found, scores, strict=True)
        ]

    def numbers(self, arrays: Sequence[Array]) -> list[float]:
        """Return the number that each row predicts."""
        return [float(value) for value in self._array(arrays[self.output]).reshape(-1).tolist()]

    def _array(self, array: Array) -> Array:
        return from_bf16(array) if self.is_bf16 else array


def _chosen(array: Array) -> tuple[list[int], list[int]]:
    values = array.astype(np.float64)
    classes = values.argmax(axis=1)
    best = values[np.arange(len(values)), classes]
    with np.errstate(all="ignore"):
        softmax = 1 / np.exp(values - best[:, None]).sum(axis=1)
        is_distribution = (abs(values.sum(axis=1) - 1) < _SUM) & (values.min(axis=1) >= 0)
    confidence = np.nan_to_num(np.where(is_distribution, best, softmax), nan=0.0)
    return classes.tolist(), (confidence.clip(0, 1) * SCALE).astype(int).tolist()


def prediction_of(signature: Signature, parameters: Mapping[str, object]) -> Prediction | None:
    """Return where the prediction is, None where neither the outputs nor the file say which it is.

    A classifier of scikit-learn names its classes. Else the first output decides: two and more columns are scores of
    as many classes, by whose names the file may call them, a single column is a number.
    """
    outputs = signature.outputs
    if parameters.get("task") == "multi-label classification":
        return None  # a receipt has room for one class per row
    classes = parameters.get("classes")
    if isinstance(classes, list) and outputs[0].name == "label":
        if len(classes) > MAX_CLASSES:
            return None
        is_text = outputs[0].datatype == BYTES
        values = {str(name).encode() if is_text else name: index for index, name in enumerate(classes)}
        scores = next((index for index, tensor in enumerate(outputs) if tensor.name == "probabilities"), None)
        return Prediction(0, len(classes), tuple(map(str, classes)), values=values, scores=scores)
    if not outputs or outputs[0].datatype not in _FLOATS or outputs[0].shape[:1] not in ((-1,), (1,)):
        return None  # a TorchScript file states nothing; a model of no batch has no rows
    is_bf16 = outputs[0].datatype == "BF16"
    match outputs[0].shape[1:]:
        case () | (1,):
            return Prediction(0, 0, is_bf16=is_bf16)
        case (columns,) if 2 <= columns <= MAX_CLASSES:
            names = signature.classes if len(signature.classes) == columns else ()
            return Prediction(0, columns, names, is_bf16)
    return None
