"""How does an answer of the Open Inference Protocol v2 look in bytes?

All but the values depends only on the shapes and on what was asked for in which form, so it is kept and used again,
down to the HTTP head. A receipt stands in the head and, as the last of the JSON, among the answer's parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import orjson

from evenkeel_runtime import receipts
from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.models.datatypes import BYTES
from evenkeel_runtime.serve.body import from_bf16
from evenkeel_runtime.serve.oip import Plan
from evenkeel_runtime.serve.strings import packed, readable
from evenkeel_runtime.serve.views import Outputs, output_datatype

if TYPE_CHECKING:
    from evenkeel_runtime.serve.oip import Array

_KEPT = 512
_HEAD = b"HTTP/1.1 200 OK\r\n"
_GAP = b"\0"
"""Where values go: a byte that JSON holds only escaped."""
_PARAMETERS = b',"parameters":{"%s":"' % receipts.HEADER.encode()
_END = b'"}}'
_LINE = b"%s: " % receipts.HEADER.encode()
_LONGEST_LINE = 2048
"""A receipt that is longer, of 300 rows and more, stands in the body only: proxies refuse long heads."""


class Writer:
    """Writes answers of one model."""

    def __init__(
        self,
        model: str,
        version: str,
        outputs: tuple[Tensor, ...],
        classes: tuple[str, ...] = (),
        has_batch: bool = True,
    ) -> None:
        self._names = orjson.dumps({"model_name": model, "model_version": version})[1:-1]
        self._outputs = outputs
        self._seen = Outputs(outputs, classes, has_batch)
        self._heads: dict[object, tuple[bytes, bytes]] = {}
        self._between: dict[object, tuple[bytes, ...]] = {}

    def write(self, plan: Plan, arrays: list[Array], receipt: bytes | None = None) -> tuple[bytes, bytes]:
        """Return the HTTP head, complete but for the connection line, and the body."""
        wanted = plan.outputs
        if plan.is_plain:
            if all(is_binary for _, is_binary in wanted):
                return self._binary(plan, arrays, receipt)
            if not any(is_binary for _, is_binary in wanted):
                return self._text(plan, arrays, receipt)
        return self._one_by_one(plan, arrays, receipt)

    def _one_by_one(self, plan: Plan, arrays: list[Array], receipt: bytes | None) -> tuple[bytes, bytes]:
        """Write what is not the same in every answer of a kind: forms that differ, strings of any length."""
        entries: list[bytes] = []
        tensors: list[bytes] = []
        for (name, word, array), (_, is_binary) in zip(self._seen.of(plan, arrays), plan.outputs, strict=True):
            if is_binary:
                data = packed(array) if word == BYTES else array.tobytes()
                tensors.append(data)
                size = b'"parameters":{"binary_data_size":%d}' % len(data)
                entries.append(_entry(name, word, array.shape, size))
            else:
                entries.append(_entry(name, word, array.shape, b'"data":' + _values(array, word)))
        document = with_receipt(self._document(plan, entries), receipt)
        if not tensors:
            return with_line(_text_head(len(document)), receipt), document
        head = _binary_head(len(document), sum(map(len, tensors)))
        return with_line(head, receipt), document + b"".join(tensors)

    def _binary(self, plan: Plan, arrays: list[Array], receipt: bytes | None) -> tuple[bytes, bytes]:
        if receipt is not None:
            head, document = self._binary_around(plan, arrays, len(receipt))
            parts = [document, receipt, _END, *(arrays[index].tobytes() for index, _ in plan.outputs)]
            return with_line(head, receipt), b"".join(parts)
        head, document = self._binary_around(plan, arrays, 0)
        if len(plan.outputs) == 1:
            return head, document + arrays[plan.outputs[0][0]].tobytes()
        return head, b"".join([document, *(arrays[index].tobytes() for index, _ in plan.outputs)])

    def _binary_around(self, plan: Plan, arrays: list[Array], receipt_bytes: int) -> tuple[bytes, bytes]:
        """Return the HTTP head and the JSON: whole, or up to where a receipt of that length goes."""
        key = (receipt_bytes, *_look(plan, arrays)) if plan.id is None else None
        kept = self._heads.get(key) if key else None
        if kept is None:
            entries = [
                _entry(
                    self._outputs[index].name,
                    output_datatype(self._outputs[index].datatype, arrays[index]),
                    arrays[index].shape,
                    b'"parameters":{"binary_data_size":%d}' % arrays[index].nbytes,
                )
                for index, _ in plan.outputs
            ]
            document = self._document(plan, entries)
            length = len(document)
            if receipt_bytes:
                document = document[:-1] + _PARAMETERS
                length = len(document) + receipt_bytes + len(_END)
            size = sum(arrays[index].nbytes for index, _ in plan.outputs)
            kept = _binary_head(length, size), document
            if key:
                if len(self._heads) >= _KEPT:
                    self._heads.clear()
                self._heads[key] = kept
        return kept

    def _text(self, plan: Plan, arrays: list[Array], receipt: bytes | None) -> tuple[bytes, bytes]:
        key = _look(plan, arrays) if plan.id is None else None
        between = self._between.get(key) if key else None
        words = [output_datatype(self._outputs[index].datatype, arrays[index]) for index, _ in plan.outputs]
        if between is None:
            entries = [
                _entry(self._outputs[index].name, word, arrays[index].shape, b'"data":' + _GAP)
                for (index, _), word in zip(plan.outputs, words, strict=True)
            ]
            between = tuple(self._document(plan, entries).split(_GAP))
            if key:
                if len(self._between) >= _KEPT:
                    self._between.clear()
                self._between[key] = between
        pieces = [between[0]]
        for (index, _), word, after in zip(plan.outputs, words, between[1:], strict=True):
            pieces += (_values(arrays[index], word), after)
        document = with_receipt(b"".join(pieces), receipt)
        return with_line(_text_head(len(document)), receipt), document

    def _document(self, plan: Plan, entries: list[bytes]) -> bytes:
        identifier = b"" if plan.id is None else b',"id":' + orjson.dumps(plan.id)
        return b'{%s%s,"outputs":[%s]}' % (self._names, identifier, b",".join(entries))


def with_receipt(document: bytes, receipt: bytes | None) -> bytes:
    """Return a JSON object with the receipt among its parameters."""
    return document if receipt is None else b"".join((document[:-1], _PARAMETERS, receipt, _END))


def with_line(head: bytes, receipt: bytes | None) -> bytes:
    """Return the HTTP head with the receipt, where it is not too long for one."""
    if receipt is None or len(receipt) > _LONGEST_LINE:
        return head
    return b"%s%s%s\r\n" % (head, _LINE, receipt)


def _look(plan: Plan, arrays: list[Array]) -> tuple[object, ...]:
    """Return all that the text of an answer depends on, but for the values."""
    return plan.outputs, *((arrays[index].shape, arrays[index].dtype.char) for index, _ in plan.outputs)


def _text_head(document: int) -> bytes:
    return b"%scontent-type: application/json\r\ncontent-length: %d\r\n" % (_HEAD, document)


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


def _values(array: Array, datatype: str) -> bytes:
    if datatype == BYTES:
        return orjson.dumps(readable(array).reshape(-1).tolist())
    values = from_bf16(array) if datatype == "BF16" else array
    return orjson.dumps(np.ascontiguousarray(values).reshape(-1), option=orjson.OPT_SERIALIZE_NUMPY)
