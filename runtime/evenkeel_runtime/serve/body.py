"""What does the JSON of a request hold: an object, its fields, numbers that fit an element type?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from evenkeel_runtime.models.datatypes import Datatype

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evenkeel_runtime.serve.oip import Array, Part


RANK = 16
"""How many dimensions a tensor of a request may have."""


class BadRequest(Exception):
    """The client's mistake: `message` names the field."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


def document_of(header: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(header)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadRequest("the body has to be a JSON object")
    return document


def field(entry: dict[str, Any], name: str, kind: type, prefix: str = "") -> Any:
    value = entry.get(name)
    if not isinstance(value, kind):
        raise BadRequest(f"{prefix}{name} {'is missing' if value is None else f'has to be a {kind.__name__}'}")
    return value


def may_hold_booleans(text: bytes, stop: int) -> bool:
    """Return whether `true` or `false` may stand among the values of a request in JSON, which ends at `stop`.

    Looking for a letter of either, which the protocols' own words behind the first bracket mostly have not, is a
    hundred times as fast as looking at each value's type.
    """
    start = text.find(b"[", 0, stop)
    return text.find(b"u", start, stop) >= 0 or text.find(b"l", start, stop) >= 0


def require_shallow(values: object, name: str) -> None:
    """Raise BadRequest where lists are nested, by their first elements, deeper than any tensor's."""
    depth = 0
    while isinstance(values, list) and values:
        depth, values = depth + 1, values[0]
    if depth > RANK:
        raise too_deep(name)


def too_deep(name: str) -> BadRequest:
    return BadRequest(f"{name} is nested too deep: in more than {RANK} lists")


def values_of(data: list[Any], part: Part, datatype: Datatype, name: str, mixed: bool = False) -> Array:
    """Return the JSON's numbers as an array; `name` is what the request calls them.

    Text, null and booleans are no numbers, though numpy would convert them. `mixed`: booleans may be among the values.
    """
    try:
        found = np.array(data)
    except (ValueError, OverflowError) as error:
        require_shallow(data, name)
        raise BadRequest(f"{name} is uneven: its nested lists differ in length") from error
    if found.size != part.count:
        raise BadRequest(f"{name} has {found.size} values, the shape {list(part.shape)} needs {part.count}")
    if part.dtype == np.uint64 and found.dtype.kind == "f":
        found = _large_integers(data, found, name)
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "fiu"}["f" if datatype.word == "BF16" else part.dtype.kind]
    if found.dtype.kind not in kinds or (mixed and kinds != "b" and _holds_boolean(data)):
        if not part.count:
            return np.zeros(part.shape, part.dtype)
        raise BadRequest(f"{name} holds values that are not {datatype.word}")
    if datatype.word == "BF16":
        return _to_bf16(found.astype(np.float32)).reshape(part.shape)
    if part.dtype.kind in "iu" and part.count:
        limits = np.iinfo(part.dtype)
        if int(found.min()) < limits.min or int(found.max()) > limits.max:
            raise BadRequest(f"{name} holds a value outside {datatype.word}")
    try:
        with np.errstate(over="raise"):
            cast: Array = found.astype(part.dtype, copy=False).reshape(part.shape)
    except FloatingPointError as error:
        raise BadRequest(f"{name} holds a value outside {datatype.word}") from error
    return cast


def _holds_boolean(values: list[Any]) -> bool:
    types = set(map(type, values))
    return bool in types or (list in types and any(map(_holds_boolean, values)))


def _large_integers(data: list[Any], found: Array, name: str) -> Array:
    """Return integers of which some need all 64 bits: numpy's common type for them and small ones is a float."""
    whole = np.array(data, dtype=object)
    if not all(type(value) is int for value in whole.flat):
        return found
    try:
        return whole.astype(np.uint64)
    except OverflowError as error:
        raise BadRequest(f"{name} holds a value outside UINT64") from error


def _to_bf16(values: NDArray[np.float32]) -> Array:
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits: Array) -> NDArray[np.float32]:
    """Return bfloat16 bits as numbers that JSON can hold."""
    return (bits.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
