"""In which form does a client want an output: as the model answers it, as probabilities, or as its best classes?

`classification: k` makes each row's k largest values, largest first, texts of `value:index`, or `value:index:label`
where the model names its classes; the output's datatype is then BYTES. Source: Triton's extension "Classification",
which Triton's clients ask for as `class_count`. All values of a row are ranked, whatever their dimensions; among equals
the lower index comes first. `probabilities: true` takes the values for scores (logits, or logarithms of probabilities)
and answers their softmax over the last dimension; with both, the probabilities are ranked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.models.datatypes import ANY, BY_TORCH, BYTES
from evenkeel_runtime.serve.body import BadRequest, from_bf16

if TYPE_CHECKING:
    from evenkeel_runtime.serve.oip import Array, Plan


@dataclass(frozen=True, slots=True)
class View:
    """`top` is how many classes to name (0: none, the values themselves)."""

    top: int = 0
    probabilities: bool = False


AS_IT_IS = View()


def view_of(parameters: dict[str, Any], tensor: Tensor, has_batch: bool) -> View:
    """Return what an output's parameters ask for; raises BadRequest."""
    top = parameters.get("classification", 0)
    probabilities = parameters.get("probabilities", False)
    if not top and not probabilities:
        return AS_IT_IS
    where = f"outputs[{tensor.name}].parameters"
    if type(top) is not int or not 0 <= top < 1 << 31:
        raise BadRequest(f"{where}.classification has to be how many classes to name, it is {str(top)[:40]!r}")
    if type(probabilities) is not bool:
        raise BadRequest(f"{where}.probabilities has to be true or false")
    dimensions = len(tensor.shape) - has_batch
    if tensor.datatype == BYTES or (tensor.datatype != ANY and dimensions < 1):
        raise BadRequest(f"{where}: there is nothing to rank, {tensor.name} is not a list of numbers per row")
    return View(top, probabilities)


class Outputs:
    """What an answer calls each output, and what it holds."""

    def __init__(self, outputs: tuple[Tensor, ...], classes: tuple[str, ...], has_batch: bool) -> None:
        self._outputs = outputs
        self._classes = tuple(name.encode() for name in classes)
        self._has_batch = has_batch

    def of(self, plan: Plan, arrays: list[Array]) -> list[tuple[str, str, Array]]:
        """Return name, datatype and values of each output, in the order in which they are wanted."""
        found = []
        for number, (index, _) in enumerate(plan.outputs):
            tensor, array = self._outputs[index], arrays[index]
            word = output_datatype(tensor.datatype, array)
            if plan.views and (view := plan.views[number]) is not AS_IT_IS:
                word, array = self._seen(word, array, view)
            found.append((tensor.name, word, array))
        return found

    def _seen(self, word: str, array: Array, view: View) -> tuple[str, Array]:
        values: Any = from_bf16(array) if word == "BF16" else array
        if view.probabilities:
            values = _softmax(values if values.dtype.kind == "f" else values.astype(np.float32))
        if view.top:
            return BYTES, self._ranked(values, view.top)
        return BY_TORCH[values.dtype.name].word, values

    def _ranked(self, values: Any, top: int) -> Array:
        rows = values.reshape(len(values) if self._has_batch else 1, -1)
        order = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :top]
        named = len(self._classes) == rows.shape[1]
        form = b"%f:%d" if values.dtype.kind == "f" else b"%d:%d"
        found = np.empty(order.shape, dtype=object)
        for row, indices in enumerate(order.tolist()):
            for place, index in enumerate(indices):
                text = form % (rows[row, index], index)
                found[row, place] = text + b":" + self._classes[index] if named else text
        return found if self._has_batch else found[0]


def output_datatype(stated: str, array: Array) -> str:
    """Return the word for an answer's element type; a TorchScript model's is known only from the answer itself."""
    if stated != ANY:
        return stated
    return "BF16" if array.dtype.kind == "V" else BY_TORCH[array.dtype.name].word


def _softmax(values: Any) -> Any:
    if values.ndim == 0 or not values.size:
        return values
    with np.errstate(invalid="ignore"):  # infinity minus infinity: not a number, as torch answers
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)
