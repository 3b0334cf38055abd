"""How does an answer of the Open Inference Protocol v2 look in bytes?

All but the values depends only on the shapes and on what was asked for in which form, so it is kept and used again,
down to the HTTP head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.serve.body import from_bf16
from evenkeel_runtime.serve.oip import Plan, output_datatype

if TYPE_CHECKING:
    from evenkeel_runtime.serve.oip import Array

_KEPT = 512
_HEAD = b"HTTP/1.1 200 OK\r\n"
_GAP = b"\0"
"""Where values go: a byte that JSON holds only escaped."""


class Writer:
    """Writes answers of one model."""

    def __init__(self, model: str, version: str, outputs: tuple[Tensor, ...]) -> None:
        self._names = orjson.dumps({"model_name": model, "model_version": version})[1:-1]
        self._outputs = outputs
        self._heads: dict[object, tuple[bytes, bytes]] = {}
        self._between: dict[object, tuple[bytes, ...]] = {}

    def write(self, plan: Plan, arrays: list[Array]) -> tuple[bytes, bytes]:
        """Return the HTTP head, complete but for the connection line, and the body."""
        wanted = plan.outputs
        look = _look(plan, arrays) if plan.id is None else None
        if (kept := self._heads.get(look)) is not None:
            return kept[0], kept[1] + _bytes(plan, arrays)
        if (between := self._between.get(look)) is not None:
            return self._text(plan, arrays, between)
        forms = {is_binary for _, is_binary in wanted}
        if forms == {True}:
            return self._first_binary(plan, arrays, look)
        if forms <= {False}:
            return self._first_text(plan, arrays, look)
        entries: list[bytes] = []
        tensors: list[bytes] = []
        for index, is_binary in wanted:
            array = arrays[index]
            word = self._word(index, arrays)
            if is_binary:
                data = array.tobytes()
                tensors.append(data)
                entries.append(
                    _entry(
                        self._outputs[index].name,
                        word,
                        array.shape,
                        b'"parameters":{"binary_data_size":%d}' % len(data),
                    )
                )
            else:
                entries.append(_entry(self._outputs[index].name, word, array.shape, b'"data":' + _numbers(array, word)))
        document = self._document(plan, entries)
        return _binary_head(len(document), sum(map(len, tensors))), document + b"".join(tensors)

    def _first_binary(self, plan: Plan, arrays: list[Array], look: object) -> tuple[bytes, bytes]:
        entries = [
            _entry(
                self._outputs[index].name,
                self._word(index, arrays),
                arrays[index].shape,
                b'"parameters":{"binary_data_size":%d}' % arrays[index].nbytes,
            )
            for index, _ in plan.outputs
        ]
        document = self._document(plan, entries)
        tensors = _bytes(plan, arrays)
        head = _binary_head(len(document), len(tensors))
        if look is not None:
            _keep(self._heads, look, (head, document))
        return head, document + tensors

    def _first_text(self, plan: Plan, arrays: list[Array], look: object) -> tuple[bytes, bytes]:
        entries = [
            _entry(self._outputs[index].name, self._word(index, arrays), arrays[index].shape, b'"data":' + _GAP)
            for index, _ in plan.outputs
        ]
        between = tuple(self._document(plan, entries).split(_GAP))
        if look is not None:
            _keep(self._between, look, between)
        return self._text(plan, arrays, between)

    def _text(self, plan: Plan, arrays: list[Array], between: tuple[bytes, ...]) -> tuple[bytes, bytes]:
        pieces = [between[0]]
        for (index, _), after in zip(plan.outputs, between[1:], strict=True):
            pieces += (_numbers(arrays[index], self._word(index, arrays)), after)
        document = b"".join(pieces)
        return b"%scontent-type: application/json\r\ncontent-length: %d\r\n" % (_HEAD, len(document)), document

    def _word(self, index: int, arrays: list[Array]) -> str:
        return output_datatype(self._outputs[index].datatype, arrays[index])

    def _document(self, plan: Plan, entries: list[bytes]) -> bytes:
        identifier = b"" if plan.id is None else b',"id":' + orjson.dumps(plan.id)
        return b'{%s%s,"outputs":[%s]}' % (self._names, identifier, b",".join(entries))


def _look(plan: Plan, arrays: list[Array]) -> tuple[object, ...]:
    """Return all that the text of an answer depends on, but for the values."""
    if len(plan.outputs) == 1:
        array = arrays[plan.outputs[0][0]]
        return plan.outputs, array.shape, array.dtype.char
    return plan.outputs, *((arrays[index].shape, arrays[index].dtype.char) for index, _ in plan.outputs)


def _bytes(plan: Plan, arrays: list[Array]) -> bytes:
    if len(plan.outputs) == 1:
        return arrays[plan.outputs[0][0]].tobytes()
    return b"".join([arrays[index].tobytes() for index, _ in plan.outputs])


def _keep(kept: dict[object, Any], look: object, found: object) -> None:
    if len(kept) >= _KEPT:
        kept.clear()
    kept[look] = found


def _binary_head(document: int, tensors: int) -> bytes:
    return (
        b"%scontent-type: application/octet-stream\r\ninference-header-content-length: %d\r\ncontent-length: %d\r\n"
        % (_HEAD, document, document + tensors)
    )


def _entry(name: str, datatype: str, shape: tuple[int, ...], last: bytes) -> bytes:
    return b'{"name":%s,"datatype":"%s","shape":%s,%s}' % (
        orjson.dumps(name),
        datatype.encode(),
        orjson.dumps(shape),
        last,
    )


def _numbers(array: Array, datatype: str) -> bytes:
    values = from_bf16(array) if datatype == "BF16" else array
    return orjson.dumps(np.ascontiguousarray(values).reshape(-1), option=orjson.OPT_SERIALIZE_NUMPY)
