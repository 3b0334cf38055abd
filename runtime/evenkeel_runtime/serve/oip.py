"""What does an inference request of the Open Inference Protocol v2 ask for, and is it possible?

Sizes are checked against each other before anything of that size is allocated. Clients send the same request again and
again with other values: what was read from the JSON part of a binary request is kept, and from what surrounds the
values of a JSON request (frames.py).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.models.datatypes import ANY, BY_WORD, BYTES
from evenkeel_runtime.models.loaded import Dimension
from evenkeel_runtime.serve.body import RANK, BadRequest, document_of, field, may_hold_booleans, values_of
from evenkeel_runtime.serve.dimensions import require_dimensions
from evenkeel_runtime.serve.frames import Frames
from evenkeel_runtime.serve.strings import LENGTH_BYTES, strings_of, unpacked
from evenkeel_runtime.serve.views import AS_IT_IS, View, view_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evenkeel_runtime.serve.caller import Caller, Form

    Array = NDArray[np.generic]

_KEPT = 512
_KEPT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Part:
    """Where an input is: `start` counts from the end of the JSON part; None where the values are in the JSON."""

    word: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    count: int
    start: int | None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request's JSON says. `parts` are in the model's order, `outputs` in the client's: (index, is it binary).

    Requests of the same `kind` may share a batch: per input the datatype and the shape of one row. `has_text` says that
    an input is BYTES; `is_plain`, that every output is asked for as numbers, as the model answers them. `views` are the
    forms of the outputs, empty where all are plain. `are_rows` says that V1's one instance stood without the leading 1
    of a model that takes exactly one row.
    """

    id: str | None
    parts: tuple[Part, ...]
    rows: int
    kind: tuple[object, ...]
    binary_bytes: int
    outputs: tuple[tuple[int, bool], ...]
    has_text: bool = False
    is_plain: bool = True
    views: tuple[View, ...] = ()
    are_rows: bool = False


@dataclass(slots=True, eq=False, repr=False)
class Asked:
    """An inference request, the payload of its work. Who asked, in which form the answer is wanted and
    when the request had arrived, by `time.perf_counter`, is added where it is admitted."""

    plan: Plan
    arrays: list[Array]
    caller: Caller = dataclasses.field(init=False)
    form: Form = dataclasses.field(init=False)
    begun: float = dataclasses.field(init=False)


class Reader:
    """Reads requests for one model."""

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
        self._index = {tensor.name: index for index, tensor in enumerate(inputs)}
        self._outputs = tuple(outputs)
        self._output_index = {tensor.name: index for index, tensor in enumerate(outputs)}
        self._has_batch = has_batch
        self._max_rows = max_rows
        self._dimensions = tuple(dimensions)
        self._shape_names = [f"inputs[{tensor.name}].shape" for tensor in inputs]
        self._way_out = f"; {way_out}" if way_out else ""
        self._plans: dict[bytes, Plan] = {}
        self._frames = Frames()

    def read(self, body: bytes, json_bytes: int | None) -> Asked:
        """Return what is asked by a body of so much JSON with tensors behind it, or of JSON only; raises BadRequest."""
        if json_bytes is None:
            if (known := self._frames.read(body)) is not None:
                return Asked(known[0], [known[1]])
            header, split = body, len(body)
        else:
            header, split = body[:json_bytes], json_bytes
            if split > len(body):
                raise BadRequest(f"Inference-Header-Content-Length is {split}, the body has {len(body)} bytes")
        plan = self._plans.get(header)
        if plan is None:
            if not header:
                raise BadRequest("the body is empty; it has to be an inference request in JSON")
            document = document_of(header)
            plan = self._plan(document)
            if all(part.start is not None for part in plan.parts):
                if len(header) <= _KEPT_BYTES:
                    if len(self._plans) >= _KEPT:
                        self._plans.clear()
                    self._plans[header] = plan
            else:
                asked = self._with_values(plan, document, body, split)
                if json_bytes is None:
                    self._frames.keep(body, plan, asked.arrays)
                return asked
        if len(body) - split != plan.binary_bytes:
            raise _uneven(plan, len(body) - split)
        if plan.has_text:
            return self._with_values(plan, {}, body, split)
        arrays: list[Array] = []
        for part in plan.parts:
            arrays.append(np.ndarray(part.shape, part.dtype, body, split + (part.start or 0)))
        return Asked(plan, arrays)

    def read_document(self, document: dict[str, Any], tensors: bytes) -> Asked:
        """Return what a document asks with these bytes of tensors behind it; raises BadRequest."""
        return self._with_values(self._plan(document), document, tensors, 0)

    def _with_values(self, plan: Plan, document: dict[str, Any], body: bytes, split: int) -> Asked:
        if len(body) - split != plan.binary_bytes:
            raise _uneven(plan, len(body) - split)
        data = {entry["name"]: entry.get("data") for entry in document.get("inputs", ())}
        mixed = may_hold_booleans(body, split)
        arrays: list[Array] = []
        for tensor, part in zip(self._inputs, plan.parts, strict=True):
            if part.start is None:
                name = f"inputs[{tensor.name}].data"
                if part.word == BYTES:
                    arrays.append(strings_of(data[tensor.name], part.count, part.shape, name))
                else:
                    arrays.append(values_of(data[tensor.name], part, BY_WORD[part.word], name, mixed))
                continue
            start = split + part.start
            if part.word == BYTES:
                text = memoryview(body)[start : start + part.size]
                arrays.append(unpacked(text, part.count, part.shape, tensor.name))
            else:
                arrays.append(np.frombuffer(body, part.dtype, part.count, start).reshape(part.shape))
        return Asked(plan, arrays)

    def _plan(self, document: dict[str, Any]) -> Plan:
        entries = field(document, "inputs", list)
        parts: dict[int, Part] = {}
        start = 0
        for entry in entries:
            if not isinstance(entry, dict):
                raise BadRequest("inputs has to hold objects")
            name = field(entry, "name", str, "inputs[].")
            index = self._index.get(name)
            if index is None:
                raise BadRequest(f"inputs: the model has no input {name[:200]!r}; it has {', '.join(self._index)}")
            if index in parts:
                raise BadRequest(f"inputs: {name!r} is given twice")
            part, size = self._part(entry, name, self._inputs[index], start)
            parts[index] = part
            start += size
        missing = [tensor.name for index, tensor in enumerate(self._inputs) if index not in parts]
        if missing:
            raise BadRequest(f"inputs: {', '.join(missing)} is missing")
        ordered = tuple(parts[index] for index in range(len(self._inputs)))
        if self._dimensions:
            require_dimensions(self._dimensions, [part.shape for part in ordered], self._shape_names)
        kind = tuple((part.word, part.shape[1:]) for part in ordered)
        identifier = document.get("id")
        if identifier is not None and not isinstance(identifier, str):
            raise BadRequest("id has to be a string")
        wanted, views = self._wanted(document)
        has_text = any(part.word == BYTES for part in ordered)
        is_plain = not views and all(self._outputs[index].datatype != BYTES for index, _ in wanted)
        return Plan(identifier, ordered, self._rows(ordered), kind, start, wanted, has_text, is_plain, views)

    def _rows(self, parts: tuple[Part, ...]) -> int:
        if not self._has_batch:
            return 1
        rows = parts[0].shape[0]
        for tensor, part in zip(self._inputs, parts, strict=True):
            if part.shape[0] != rows:
                raise BadRequest(f"inputs: {tensor.name} has {part.shape[0]} rows, {self._inputs[0].name} has {rows}")
        if rows == 0:
            raise BadRequest(f"inputs: {self._inputs[0].name} has no rows")
        if rows > self._max_rows:
            raise BadRequest(f"inputs: {rows} rows are more than the {self._max_rows} that one request may have")
        return rows

    def _part(self, entry: dict[str, Any], name: str, wanted: Tensor, start: int) -> tuple[Part, int]:
        word = field(entry, "datatype", str, f"inputs[{name}].")
        datatype = BY_WORD.get(word)
        if datatype is None or (wanted.datatype != word and (wanted.datatype != ANY or word == BYTES)):
            raise BadRequest(f"inputs[{name}].datatype is {word[:40]!r}, the model takes {wanted.datatype}")
        shape = self._shape(field(entry, "shape", list, f"inputs[{name}]."), name, wanted)
        count = math.prod(shape)
        size = count * datatype.size
        parameters = entry.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise BadRequest(f"inputs[{name}].parameters has to be an object")
        stated = parameters.get("binary_data_size")
        if stated is None:
            if not isinstance(entry.get("data"), list):
                kind = "strings" if word == BYTES else "numbers"
                raise BadRequest(f"inputs[{name}].data is missing: a list of {kind}, or parameters.binary_data_size")
            return Part(word, np.dtype(datatype.numpy), shape, count, None), 0
        least = size if word != BYTES else count * LENGTH_BYTES
        if type(stated) is not int or (stated < least if word == BYTES else stated != size):
            raise BadRequest(
                f"inputs[{name}].parameters.binary_data_size is {str(stated)[:40]}, "
                f"the shape {list(shape)} of {word} needs {'at least ' * (word == BYTES)}{least}"
            )
        if "data" in entry:
            raise BadRequest(f"inputs[{name}] has both data and parameters.binary_data_size")
        return Part(word, np.dtype(datatype.numpy), shape, count, start, stated), stated

    def _shape(self, given: list[Any], name: str, wanted: Tensor) -> tuple[int, ...]:
        if len(given) > RANK or any(type(size) is not int or not 0 <= size < 1 << 40 for size in given):
            raise BadRequest(f"inputs[{name}].shape has to be a list of at most {RANK} sizes, it is {str(given)[:120]}")
        shape = tuple(given)
        if wanted.datatype != ANY and not fits(wanted.shape, shape):
            way_out = self._way_out if fits(wanted.shape[1:], shape[1:]) else ""
            raise BadRequest(f"inputs[{name}].shape is {list(shape)}, the model takes {list(wanted.shape)}{way_out}")
        return shape

    def _wanted(self, document: dict[str, Any]) -> tuple[tuple[tuple[int, bool], ...], tuple[View, ...]]:
        """Return which outputs in which form; no views where all are as the model answers them."""
        parameters = document.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise BadRequest("parameters has to be an object")
        is_binary = parameters.get("binary_data_output", False) is True
        asked = document.get("outputs")
        if not asked:
            return tuple((index, is_binary) for index in self._output_index.values()), ()
        if not isinstance(asked, list):
            raise BadRequest("outputs has to be a list")
        wanted: list[tuple[int, bool]] = []
        views: list[View] = []
        for entry in asked:
            name = field(entry, "name", str, "outputs[].") if isinstance(entry, dict) else ""
            if name not in self._output_index:
                raise BadRequest(
                    f"outputs: the model has no output {name[:200]!r}; it has {', '.join(self._output_index)}"
                )
            own = entry.get("parameters") or {}
            if not isinstance(own, dict):
                raise BadRequest(f"outputs[{name}].parameters has to be an object")
            index = self._output_index[name]
            wanted.append((index, own.get("binary_data", is_binary) is True))
            views.append(view_of(own, self._outputs[index], self._has_batch))
        if len({index for index, _ in wanted}) != len(wanted):
            raise BadRequest("outputs: a name is given twice")
        return tuple(wanted), tuple(views) if any(view is not AS_IT_IS for view in views) else ()


def fits(wanted: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Return whether a model takes this shape, as far as its sizes are numbers."""
    return len(wanted) == len(shape) and all(size in (-1, got) for size, got in zip(wanted, shape, strict=True))


def _uneven(plan: Plan, size: int) -> BadRequest:
    return BadRequest(f"the body has {size} bytes of tensors behind its JSON, the inputs say {plan.binary_bytes}")
