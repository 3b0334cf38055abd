"""How is KServe's V1 protocol spoken? `{"instances": [...]}` comes in, `{"predictions": [...]}` goes out.

An instance is one row: the value of the only input, or an object with a value per input. Nothing states an element
type, so the model's own is taken (FP32 where its file does not say). A model that takes exactly one row, whose shapes
all begin with 1, is given it with that 1 or without, and predicts alike. A prediction is one row: the value of the only
output, or an object with a value per output. Bytes that are not text are `{"b64": "…"}`. Source: KServe, "V1 Inference
Protocol"; it follows TensorFlow Serving's row format.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.models.datatypes import ANY, BY_WORD, BYTES
from evenkeel_runtime.serve.answer import with_line, with_receipt
from evenkeel_runtime.serve.body import (
    RANK,
    BadRequest,
    document_of,
    field,
    from_bf16,
    may_hold_booleans,
    too_deep,
    values_of,
)
from evenkeel_runtime.serve.dimensions import require_dimensions
from evenkeel_runtime.serve.oip import Asked, Part, Plan, fits
from evenkeel_runtime.serve.strings import readable, strings_of
from evenkeel_runtime.serve.views import output_datatype

if TYPE_CHECKING:
    from evenkeel_runtime.models.loaded import Dimension
    from evenkeel_runtime.serve.oip import Array

_BASE64 = "b64"
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"


class Predictions:
    """Reads and answers `:predict` requests for one model."""

    def __init__(
        self,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        has_batch: bool,
        max_rows: int,
        dimensions: Sequence[Dimension] = (),
        way_out: str = "",
    ) -> None:
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._has_batch = has_batch
        self._takes_one_row = not has_batch and all(tensor.shape[:1] == (1,) for tensor in (*inputs, *outputs))
        self._max_rows = max_rows
        self._dimensions = tuple(dimensions)
        self._way_out = f"; {way_out}" if way_out else ""
        self._all = tuple((index, False) for index in range(len(outputs)))

    def read(self, body: bytes) -> Asked:
        """Return what is asked; raises BadRequest."""
        instances = field(document_of(body), "instances", list)
        rows = len(instances)
        if rows == 0:
            raise BadRequest("instances has no rows")
        if rows > (self._max_rows if self._has_batch else 1):
            limit = f"the {self._max_rows} that one request may have" if self._has_batch else "the one this model takes"
            raise BadRequest(f"instances: {rows} rows are more than {limit}{self._way_out}")
        columns = self._columns(instances)
        mixed = may_hold_booleans(body, len(body))
        parts, arrays = [], []
        are_rows = self._takes_one_row
        for tensor, (name, values) in zip(self._inputs, columns, strict=True):
            datatype = BY_WORD["FP32" if tensor.datatype == ANY else tensor.datatype]
            given = values if self._has_batch else values[0]
            if datatype.word == BYTES:
                given = _decoded(given, name)
            shape = _shape(given, name)
            if self._takes_one_row and fits(tensor.shape[1:], shape):
                shape = (1, *shape)
            else:
                are_rows = False
                self._require_fit(tensor, shape, name)
            part = Part(datatype.word, np.dtype(datatype.numpy), shape, math.prod(shape), None)
            flat = given if isinstance(given, list) else [given]
            if datatype.word == BYTES:
                arrays.append(strings_of(flat, part.count, shape, name))
            else:
                arrays.append(values_of(flat, part, datatype, name, mixed))
            parts.append(part)
        if self._dimensions:
            require_dimensions(self._dimensions, [part.shape for part in parts], [name for name, _ in columns])
        kind = tuple((part.word, part.shape[1:]) for part in parts)
        return Asked(Plan(None, tuple(parts), rows, kind, 0, self._all, are_rows=are_rows), arrays)

    def write(self, plan: Plan, arrays: list[Array], receipt: bytes | None = None) -> tuple[bytes, bytes]:
        """Return the HTTP head, complete but for the connection line, and the body."""
        columns = [
            _column(array, output_datatype(tensor.datatype, array))
            for tensor, array in zip(self._outputs, arrays, strict=True)
        ]
        found: Any
        are_rows = self._has_batch or plan.are_rows
        if len(columns) == 1:
            found = columns[0] if are_rows else [columns[0]]
        elif are_rows:
            names = [tensor.name for tensor in self._outputs]
            found = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        else:
            found = [{tensor.name: column for tensor, column in zip(self._outputs, columns, strict=True)}]
        body = with_receipt(b'{"predictions":%s}' % orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY), receipt)
        return with_line(_HEAD % len(body), receipt), body

    def _require_fit(self, tensor: Tensor, shape: tuple[int, ...], name: str) -> None:
        if tensor.datatype != ANY and not fits(tensor.shape, shape):
            without = f", or {list(tensor.shape[1:])}" if self._takes_one_row else ""
            raise BadRequest(f"{name} has the shape {list(shape)}, the model takes {list(tensor.shape)}{without}")

    def _columns(self, instances: list[Any]) -> list[tuple[str, list[Any]]]:
        """Return per input, in the model's order, how its values are called and what they are."""
        names = [tensor.name for tensor in self._inputs]
        if not any(isinstance(instance, dict) and not self._is_value(instance) for instance in instances):
            if len(names) > 1:
                raise BadRequest(f"instances has to hold objects with a value for each of {', '.join(names)}")
            return [("instances", instances)]
        for row, instance in enumerate(instances):
            if not isinstance(instance, dict):
                raise BadRequest(f"instances[{row}] is not an object, others are")
            for name in names:
                if name not in instance:
                    raise BadRequest(f"instances[{row}] has no {name!r}; the model takes {', '.join(names)}")
            for name in instance:
                if name not in names:
                    raise BadRequest(
                        f"instances[{row}]: the model has no input {name[:200]!r}; it has {', '.join(names)}"
                    )
        return [(f"instances[].{name}", [instance[name] for instance in instances]) for name in names]

    def _is_value(self, instance: dict[str, Any]) -> bool:
        """Return whether an object is the only input's value, in base64, and not a value per input."""
        only = self._inputs[0]
        return len(self._inputs) == 1 and only.datatype == BYTES and only.name != _BASE64 and _BASE64 in instance


def _column(array: Array, word: str) -> Any:
    """Return an output as the JSON writer takes it, row by row."""
    if word == BYTES:
        return readable(array).tolist()
    return from_bf16(array) if word == "BF16" else np.ascontiguousarray(array)


def _decoded(values: Any, name: str, depth: int = 0) -> Any:
    """Return nested lists of strings with every `{"b64": …}` replaced by its bytes."""
    if isinstance(values, list):
        if depth == RANK:
            raise too_deep(name)
        return [_decoded(value, name, depth + 1) for value in values]
    if isinstance(values, dict) and isinstance(text := values.get(_BASE64), str) and len(values) == 1:
        try:
            return base64.b64decode(text, validate=True)
        except ValueError as error:  # binascii's, and a plain one for what is not ASCII
            raise BadRequest(f"{name}: {_BASE64} is not base64: {error}") from error
    return values


def _shape(values: Any, name: str) -> tuple[int, ...]:
    """Return the sizes of nested lists, by their first elements."""
    shape: list[int] = []
    while isinstance(values, list):
        shape.append(len(values))
        if len(shape) > RANK:
            raise too_deep(name)
        if not values:
            break
        values = values[0]
    return tuple(shape)
