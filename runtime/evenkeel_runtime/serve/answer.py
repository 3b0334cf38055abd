"""How does an answer of the Open Inference Protocol v2 look in bytes?

All but the values depends only on the shapes and on what was asked for in which form, so it is kept and used again,
down to the HTTP head. A receipt stands in the head and, as the last of the JSON, among the answer's parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        self._kept: dict[object, tuple[bytes, ...]] = {}

    def write(self, plan: Plan, arrays: list[Array], receipt: bytes | None = None) -> tuple[bytes, bytes]:
        """Return the HTTP head, complete but for the connection line, and the body."""
        if not plan.is_plain:
            return self._one_by_one(plan, arrays, receipt)
        look = _look(plan, arrays, receipt)
        around = self._kept.get(look) if plan.id is None else None
        if around is None:
            forms = {is_binary for _, is_binary in plan.outputs}
            if len(forms) > 1:
                return self._one_by_one(plan, arrays, receipt)
            around = self._around(plan, arrays, receipt) if True in forms else self._gaps(plan, arrays)
            if plan.id is None:
                if len(self._kept) >= _KEPT:
                    self._kept.clear()
                self._kept[look] = around
        if plan.outputs and plan.outputs[0][1]:
            return _binary(plan, arrays, receipt, around)
        return self._text(plan, arrays, receipt, around)

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

    def _around(self, plan: Plan, arrays: list[Array], receipt: bytes | None) -> tuple[bytes, bytes]:
        """Return the HTTP head and the JSON: whole, or up to where a receipt of that length goes."""
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
        length = len(document)
        if receipt is not None:
            document = document[:-1] + _PARAMETERS
            length = len(document) + len(receipt) + len(_END)
        return _binary_head(length, sum(arrays[index].nbytes for index, _ in plan.outputs)), document

    def _gaps(self, plan: Plan, arrays: list[Array]) -> tuple[bytes, ...]:
        """Return the JSON around the values of every output."""
        entries = [
            _entry(self._outputs[index].name, self._word(index, arrays), arrays[index].shape, b'"data":' + _GAP)
            for index, _ in plan.outputs
        ]
        return tuple(self._document(plan, entries).split(_GAP))

    def _text(
        self, plan: Plan, arrays: list[Array], receipt: bytes | None, between: tuple[bytes, ...]
    ) -> tuple[bytes, bytes]:
        pieces = [between[0]]
        for place, (index, _) in enumerate(plan.outputs, 1):
            pieces += (_values(arrays[index], self._word(index, arrays)), between[place])
        document = with_receipt(b"".join(pieces), receipt)
        return with_line(_text_head(len(document)), receipt), document

    def _word(self, index: int, arrays: list[Array]) -> str:
        return output_datatype(self._outputs[index].datatype, arrays[index])

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


def _look(plan: Plan, arrays: list[Array], receipt: bytes | None) -> tuple[object, ...]:
    """Return all that the text of an answer depends on, but for the values and the receipt itself."""
    size = None if receipt is None else len(receipt)
    if len(plan.outputs) == 1:
        index, is_binary = plan.outputs[0]
        array = arrays[index]
        return size, index, is_binary, array.shape, array.dtype.char
    return size, plan.outputs, *((arrays[index].shape, arrays[index].dtype.char) for index, _ in plan.outputs)


def _binary(plan: Plan, arrays: list[Array], receipt: bytes | None, around: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    head, document = around
    if len(plan.outputs) == 1:
        tensors = arrays[plan.outputs[0][0]].tobytes()
    else:
        tensors = b"".join([arrays[index].tobytes() for index, _ in plan.outputs])
    if receipt is None:
        return head, document + tensors
    return with_line(head, receipt), b"".join((document, receipt, _END, tensors))


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
    return orjson.dumps(values.ravel(), option=orjson.OPT_SERIALIZE_NUMPY)
