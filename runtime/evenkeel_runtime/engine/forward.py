"""How do the rows of a batch become rows of answers? From request bytes through one call of the model, and back.

Rows are copied once, into a staging tensor of the largest batch, which also makes them writable, aligned and
contiguous, and on a GPU's host pinned; a batch larger than that, and a model without a batch dimension, get a tensor of
their own. So does a batch of strings: what was staged would be kept until the next such batch, and strings have any
length.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evenkeel_runtime.engine.batching import Batch, Work
from evenkeel_runtime.engine.cuda import DEVICE
from evenkeel_runtime.models.datatypes import ANY, BYTES
from evenkeel_runtime.models.loaded import BadInput, Call, Signature

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

_BF16 = np.dtype("V2")
"""How answers in bfloat16 lie in numpy, which has no type for them: as bits, and not as UINT16, which they are not."""

Answers = dict[int, "list[Array] | Exception"]
"""By a request's position in its batch, its outputs or why there are none."""


class BadAnswer(Exception):
    """The model answered with something that is not as many rows as it was given, or not numbers that can be told."""


class Forward:
    """One model, ready to be called with batches from the host of `device`. Not thread-safe: one thread at a time runs
    it."""

    def __init__(self, signature: Signature, call: Call, device: str, max_rows: int) -> None:
        import torch

        self._torch = torch
        self._inference = torch.inference_mode()  # entered for each call: to make it anew costs as much again
        self._call = call
        self._pins = device == DEVICE
        self._signature = signature
        self._words = tuple(tensor.datatype for tensor in signature.inputs)
        self._has_text = BYTES in self._words
        self.max_rows = max_rows
        self._staging: dict[object, tuple[list[Array], list[torch.Tensor]]] = {}

    def run(self, batch: Batch) -> Answers:
        """Return each request's outputs. The arrays are valid until the next run."""
        calls = self.calls(batch)
        try:
            while True:
                next(calls)
        except StopIteration as end:
            answers: Answers = end.value
            return answers

    def calls(self, batch: Batch) -> Generator[None, None, Answers]:
        """Run a batch as `run` does, and yield between two calls of the model: nearly always there is one.

        A model may raise because of one row (an index beyond its table, a number that is none). Requests that shared
        the call with it are run again, each alone, so that nobody is answered with another one's error.
        """
        if len(batch.works) == 1:
            if not self._is_beyond(batch):
                return self._together(batch)
            return {0: (yield from self._alone(batch.works[0]))}
        try:
            return self._together(batch)
        except Exception:  # noqa: BLE001 - the model is the user's program and may raise anything
            answers: Answers = {}
        for index, work in enumerate(batch.works):
            yield
            answers[index] = yield from self._alone_or_why_not(work)
        return answers

    def _is_beyond(self, batch: Batch) -> bool:
        return not self.max_rows or batch.rows > self.max_rows

    def _together(self, batch: Batch) -> Answers:
        tensors = self._gather(batch)
        self._require_ranges(tensors)
        with self._inference:
            outputs = [self._array(output) for output in self._call(*tensors)]
        for output in outputs:
            if output.ndim == 0 or output.shape[0] != batch.rows:
                raise BadAnswer(f"the model answered a batch of {batch.rows} rows with shape {list(output.shape)}")
        if len(batch.works) == 1:
            return {0: outputs}
        answers: Answers = {}
        start = 0
        alone = outputs[0] if len(outputs) == 1 else None  # nearly every model's; a comprehension costs 0.3 us each
        for index, work in enumerate(batch.works):
            stop = start + work.rows
            answers[index] = [output[start:stop] for output in outputs] if alone is None else [alone[start:stop]]
            start = stop
        return answers

    def _alone_or_why_not(self, work: Work) -> Generator[None, None, list[Array] | Exception]:
        try:
            return (yield from self._alone(work))
        except Exception as error:  # noqa: BLE001 - as above
            return error

    def _alone(self, work: Work) -> Generator[None, None, list[Array]]:
        """Run a request that shares its call with nobody, in pieces where it has more rows than the largest batch."""
        arrays: list[Array] = work.payload.arrays
        step = self.max_rows or 0
        words = self._word_of_each(work.kind)
        if not step or work.rows <= step:
            return self._call_with(arrays, words)
        pieces: list[list[Array]] = []
        for start in range(0, work.rows, step):
            if pieces:
                yield
            pieces.append(self._call_with([array[start : start + step] for array in arrays], words))
        joined: list[Array] = [np.concatenate(parts) for parts in zip(*pieces, strict=True)]
        return joined

    def _call_with(self, arrays: Sequence[Array], words: Sequence[str]) -> list[Array]:
        tensors = [self._tensor(np.array(array), word) for array, word in zip(arrays, words, strict=True)]
        self._require_ranges(tensors)
        with self._inference:
            return [np.array(self._array(output)) for output in self._call(*tensors)]

    def _require_ranges(self, tensors: Sequence[torch.Tensor]) -> None:
        """Raise BadInput where an input holds what the model cannot look up; a number that is none it cannot either."""
        for wanted in self._signature.ranges:
            values = tensors[wanted.input].numpy()
            for value in (values.min(), values.max()) if values.size else ():
                if not wanted.least <= value <= wanted.most:
                    name = self._signature.inputs[wanted.input].name
                    raise BadInput(f"{name} holds {value}, the model takes {wanted.least} to {wanted.most}")

    def _word_of_each(self, kind: Any) -> Sequence[str]:
        """Return the inputs' datatypes; where the file does not say, the kind has what the request says."""
        if ANY not in self._words:
            return self._words
        return [word if word != ANY else said for word, (said, _) in zip(self._words, kind, strict=True)]

    def _gather(self, batch: Batch) -> list[torch.Tensor]:
        first: list[Array] = batch.works[0].payload.arrays
        if self._has_text:
            return self._joined(batch)
        staged = self._staging.get(batch.works[0].kind)
        if staged is None:
            staged = self._stage(batch.works[0].kind, first)
        arrays, tensors = staged
        if len(batch.works) == 1:
            for whole, array in zip(arrays, first, strict=True):
                whole[: batch.rows] = array
        else:
            for index, whole in enumerate(arrays):
                np.concatenate([work.payload.arrays[index] for work in batch.works], out=whole[: batch.rows])
        return [tensor[: batch.rows] for tensor in tensors]

    def _joined(self, batch: Batch) -> list[torch.Tensor]:
        columns = zip(*(work.payload.arrays for work in batch.works), strict=True)
        words = self._word_of_each(batch.works[0].kind)
        return [self._tensor(np.concatenate(column), word) for column, word in zip(columns, words, strict=True)]

    def _stage(self, kind: object, examples: Sequence[Array]) -> tuple[list[Array], list[torch.Tensor]]:
        if len(self._staging) >= 8:  # free dimensions other than the batch make kinds without end
            self._staging.clear()
        arrays = [self._room((self.max_rows, *example.shape[1:]), example.dtype) for example in examples]
        tensors = [self._tensor(array, word) for array, word in zip(arrays, self._word_of_each(kind), strict=True)]
        self._staging[kind] = arrays, tensors
        return arrays, tensors

    def _room(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        if not self._pins:
            return np.zeros(shape, dtype)
        count = math.prod(shape)
        room: Array = self._torch.zeros(count * dtype.itemsize, dtype=self._torch.uint8, pin_memory=True).numpy()
        return room.view(dtype).reshape(shape)

    def _tensor(self, array: Array, word: str) -> Any:
        if word == BYTES:
            return array
        tensor = self._torch.from_numpy(array)
        return tensor.view(self._torch.bfloat16) if word == "BF16" else tensor

    def _array(self, tensor: Any) -> Array:
        if isinstance(tensor, np.ndarray):
            return tensor
        if tensor.dtype == self._torch.bfloat16:
            half: Array = tensor.contiguous().view(self._torch.uint16).numpy().view(_BF16)
            return half
        found: Array = tensor.numpy()
        if found.dtype.kind == "c":
            raise BadAnswer(
                f"the model answers {found.dtype.name}, which no answer can carry: save one of real numbers"
            )
        return found
