"""How is KServe's V1 protocol spoken? `{"instances": [...]}` comes in, `{"predictions": [...]}` goes out.

An instance is one row: the value of the only input, or an object with a value per input. Nothing states an element
type, so the model's own is taken (FP32 where its file does not say). A prediction is one row: the value of the only
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
from evenkeel_runtime.serve.body import BadRequest, document_of, field, from_bf16, values_of
from evenkeel_runtime.serve.oip import RANK, Asked, Part, Plan
from evenkeel_runtime.serve.strings import readable, strings_of
from evenkeel_runtime.serve.views import output_datatype

if TYPE_CHECKING:
    from evenkeel_runtime.serve.oip import Array

_BASE64 = "b64"
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"


class Predictions:
    """Reads and answers `:predict` requests for one model."""

    def __init__(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], has_batch: bool, max_rows: int) -> None:
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._has_batch = has_batch
        self._max_rows = max_rows
        self._all = tuple((index, False) for index in range(len(outputs)))

    def read(self, body: bytes) -> Asked:
        """Return what is asked; raises BadRequest."""
        instances = field(document_of(body), "instances", list)
        rows = len(instances)
        if rows == 0:
            raise BadRequest("instances has no rows")
        if rows > (self._max_rows if self._has_batch else 1):
            limit = f"the {self._max_rows} that one request may have" if self._has_batch else "the one this model takes"
            raise BadRequest(f"instances: {rows} rows are more than {limit}")
        columns = self._columns(instances)
        parts, arrays = [], []
        for tensor, (name, values) in zip(self._inputs, columns, strict=True):
            datatype = BY_WORD["FP32" if tensor.datatype == ANY else tensor.datatype]
            given = values if self._has_batch else values[0]
            if datatype.word == BYTES:
                given = _decoded(given, name)
            shape = _shape(given, name, tensor)
            part = Part(datatype.word, np.dtype(datatype.numpy), shape, math.prod(shape), None)
            flat = given if isinstance(given, list) else [given]
            if datatype.word == BYTES:
                arrays.append(strings_of(flat, part.count, shape, name))
            else:
                arrays.append(values_of(flat, part, datatype, name))
            parts.append(part)
        kind = tuple((part.word, part.shape[1:]) for part in parts)
        return Asked(Plan(None, tuple(parts), rows, kind, 0, self._all), arrays)

    def write(self, plan: Plan, arrays: list[Array], receipt: bytes | None = None) -> tuple[bytes, bytes]:
        """Return the HTTP head, complete but for the connection line, and the body."""
        columns = [
            _column(array, output_datatype(tensor.datatype, array))
            for tensor, array in zip(self._outputs, arrays, strict=True)
        ]
        found: Any
        if len(columns) == 1:
            found = columns[0] if self._has_batch else [columns[0]]
        elif self._has_batch:
            names = [tensor.name for tensor in self._outputs]
            found = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        else:
            found = [{tensor.name: column for tensor, column in zip(self._outputs, columns, strict=True)}]
        body = with_receipt(b'{"predictions":%s}' % orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY), receipt)
        return with_line(_HEAD % len(body), receipt), body

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


def _decoded(values: Any, name: str) -> Any:
    """Return nested lists of strings with every `{"b64": …}` replaced by its bytes."""
    if isinstance(values, list):
        return [_decoded(value, name) for value in values]
    if isinstance(values, dict) and isinstance(text := values.get(_BASE64), str) and len(values) == 1:
        try:
            return base64.b64decode(text, validate=True)
        except ValueError as error:  # binascii's, and a plain one for what is not ASCII
            raise BadRequest(f"{name}: {_BASE64} is not base64: {error}") from error
    return values


def _shape(values: Any, name: str, tensor: Tensor) -> tuple[int, ...]:
    """Return the sizes of nested lists, by their first elements, if the model takes them."""
    shape: list[int] = []
    while isinstance(values, list):
        shape.append(len(values))
        if not values or len(shape) > RANK:
            break
        values = values[0]
    if tensor.datatype != ANY and (
        len(shape) != len(tensor.shape)
        or any(size not in (-1, got) for size, got in zip(tensor.shape, shape, strict=True))
    ):
        raise BadRequest(f"{name} has the shape {shape[: RANK + 1]}, the model takes {list(tensor.shape)}")
    return tuple(shape)
