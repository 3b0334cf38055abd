"""Is this JSON request one that came before, with other numbers?

Clients send the same request again and again with new values. What surrounds the values, the frame, is kept with what
it asks for; of the next such request only the numbers are parsed, straight into an array: no Python object is made per
value. Whatever is unusual, or wrong, is left to the reader of whole documents, which says what is wrong.

Why this is sound: in a kept frame the token `"data"` stands once, at the end of its first half, and nothing is
escaped, so what follows is the value of the one input's `data`. JSON is context-free: another array in that place
gives the same document with other values.
"""

from __future__ import annotations

from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import simdjson

if TYPE_CHECKING:
    from evenkeel_runtime.serve.oip import Array, Part, Plan

_KEPT = 512
_KEPT_BYTES = 4096
_BODY_BYTES = 1 << 20
"""The parser keeps about ten bytes for each of its largest text."""
_MARK = b'"data":'
_WIDE: dict[str, tuple[Literal["d", "i", "u"], np.dtype[Any]]] = {
    "f": ("d", np.dtype(np.float64)),
    "i": ("i", np.dtype(np.int64)),
    "u": ("u", np.dtype(np.uint64)),
}


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands behind the values of one request, and what the request asks for."""

    suffix: bytes
    plan: Plan


class Frames:
    """The frames of one model's requests, by what stands before the values."""

    def __init__(self) -> None:
        self._parser = simdjson.Parser(_BODY_BYTES)
        self._frames: dict[bytes, Frame] = {}
        # Where a number too large for its type is an error: numpy keeps that per context, and to run in one that is
        # there already costs 0.1 us, `np.errstate` 1.1.
        self._strictly = copy_context()
        self._strictly.run(np.seterr, over="raise")

    def read(self, body: bytes) -> tuple[Plan, Array] | None:
        """Return the plan and the values of a request in a known frame, None where it has to be read as a whole."""
        start = body.find(_MARK) + len(_MARK)
        frame = self._frames.get(body[:start])
        if frame is None or not body.endswith(frame.suffix):
            return None
        values = self._values(body[start : len(body) - len(frame.suffix)], frame.plan.parts[0])
        return None if values is None else (frame.plan, values)

    def keep(self, body: bytes, plan: Plan, arrays: list[Array]) -> None:
        """Keep the frame of a request that was read as a whole, if it is one that may be kept."""
        start = body.find(_MARK) + len(_MARK)
        stops = [at for at in (body.find(b"}", start), body.find(b'"', start)) if at >= 0]
        stop = body.rfind(b"]", start, min(stops, default=start)) + 1
        prefix, suffix = body[:start], body[stop:]
        around = prefix + suffix
        if (
            len(plan.parts) != 1
            or plan.parts[0].start is not None
            or plan.parts[0].dtype.kind not in _WIDE
            or plan.parts[0].word == "BF16"
            or len(around) > _KEPT_BYTES
            or len(body) > _BODY_BYTES
            or b"\\" in around
            or around.count(b'"data"') != 1
        ):
            return
        values = self._values(body[start:stop], plan.parts[0])
        if values is not None and values.tobytes() == arrays[0].tobytes():
            if len(self._frames) >= _KEPT:
                self._frames.clear()
            self._frames[prefix] = Frame(suffix, plan)

    def _values(self, text: bytes, part: Part) -> Array | None:
        of_type, wide = _WIDE[part.dtype.kind]
        try:
            parsed = self._parser.parse(text)
            if not isinstance(parsed, simdjson.Array):
                return None
            if text.find(b"[", text.find(b"[") + 1) >= 0 and not _lies_as(parsed, part.shape):
                return None
            found = np.frombuffer(parsed.as_buffer(of_type=of_type), wide)
            if found.size != part.count:
                return None
            if part.dtype.kind != "f" and found.size:
                limits = np.iinfo(part.dtype)
                if found.min() < limits.min or found.max() > limits.max:
                    return None
            values: Array = self._strictly.run(found.astype, part.dtype, copy=False).reshape(part.shape)
        except (ValueError, TypeError, RuntimeError, FloatingPointError):
            return None  # not JSON, not numbers, nested too deep, or too large for the type
        return values


def _lies_as(array: simdjson.Array, shape: tuple[int, ...]) -> bool:
    """Return whether nested lists have exactly these sizes."""
    if not shape or len(array) != shape[0]:
        return False
    return len(shape) == 1 or all(isinstance(row, simdjson.Array) and _lies_as(row, shape[1:]) for row in array)
