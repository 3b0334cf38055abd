"""How do strings travel? In JSON as text; in binary each behind its length, as 4 bytes, the lowest first.

Source of the binary form: Triton's extension "Binary Tensor Data", element type BYTES. Inside, a tensor of strings is a
numpy array of `bytes` objects. What is not UTF-8 has no form in JSON: U+FFFD stands for it there, and whoever needs the
bytes asks for the binary form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evenkeel_runtime.serve.body import BadRequest, require_shallow

if TYPE_CHECKING:
    from evenkeel_runtime.serve.oip import Array

LENGTH_BYTES = 4


def unpacked(data: memoryview, count: int, shape: tuple[int, ...], name: str) -> Array:
    """Return the strings of a binary tensor; raises BadRequest where the lengths do not add up to `data`."""
    found: list[bytes] = []
    at, end = 0, len(data)
    for _ in range(count):
        start = at + LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "little")
        if start > end or at > end:
            raise BadRequest(
                f"inputs[{name}]: string {len(found)} ends behind its tensor's {end} bytes; each string has its length "
                "before it, in 4 bytes"
            )
        found.append(bytes(data[start:at]))
    if at != end:
        raise BadRequest(f"inputs[{name}]: {count} strings and their lengths are {at} bytes, the tensor has {end}")
    return _array(found, shape)


def packed(array: Array) -> bytes:
    """Return the binary form of an answer's strings."""
    pieces: list[bytes] = []
    for value in array.reshape(-1).tolist():
        text = _bytes(value)
        pieces += (len(text).to_bytes(LENGTH_BYTES, "little"), text)
    return b"".join(pieces)


def strings_of(data: list[Any], count: int, shape: tuple[int, ...], name: str) -> Array:
    """Return the strings of nested lists; raises BadRequest where they are not strings or not so many."""
    require_shallow(data, name)
    found = np.array(data, dtype=object).reshape(-1).tolist()
    if not all(isinstance(value, str | bytes) for value in found):
        raise BadRequest(f"{name} holds values that are not strings, or lists of different lengths")
    if len(found) != count:
        raise BadRequest(f"{name} has {len(found)} values, the shape {list(shape)} needs {count}")
    return _array([_bytes(value) for value in found], shape)


def readable(array: Array) -> Array:
    """Return the strings as text."""
    return _array([_bytes(value).decode("utf-8", "replace") for value in array.reshape(-1).tolist()], array.shape)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _array(values: list[Any], shape: tuple[int, ...]) -> Array:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)
