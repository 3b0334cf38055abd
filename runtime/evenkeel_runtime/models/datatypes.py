"""Which words name an element's type: in the Open Inference Protocol, in numpy, in torch, and in an exported file?

BYTES, text or other strings of bytes, is none of torch's types: such a tensor is a numpy array of `bytes` objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Datatype:
    """One row of the table. `code` is torch's ScalarType; BF16 travels as two bytes that numpy has no type for."""

    word: str
    torch: str
    numpy: str
    code: int
    size: int


DATATYPES = (
    Datatype("BOOL", "bool", "bool", 12, 1),
    Datatype("UINT8", "uint8", "uint8", 1, 1),
    Datatype("UINT16", "uint16", "uint16", 28, 2),
    Datatype("UINT32", "uint32", "uint32", 34, 4),
    Datatype("UINT64", "uint64", "uint64", 35, 8),
    Datatype("INT8", "int8", "int8", 2, 1),
    Datatype("INT16", "int16", "int16", 3, 2),
    Datatype("INT32", "int32", "int32", 4, 4),
    Datatype("INT64", "int64", "int64", 5, 8),
    Datatype("FP16", "float16", "float16", 6, 2),
    Datatype("FP32", "float32", "float32", 7, 4),
    Datatype("FP64", "float64", "float64", 8, 8),
    Datatype("BF16", "bfloat16", "uint16", 13, 2),
)
BYTES = "BYTES"
BY_WORD = {
    **{datatype.word: datatype for datatype in DATATYPES},
    BYTES: Datatype(BYTES, "", "object", -1, 0),
}
BY_CODE = {datatype.code: datatype for datatype in DATATYPES}
BY_TORCH = {datatype.torch: datatype for datatype in DATATYPES}

_FLOATS = ("BF16", "FP16", "FP32", "FP64")
"""By how exactly they hold a number, the coarsest first."""


def coarsest(words: Iterable[str]) -> str | None:
    """Return the coarsest element type of those that are floating points; None where none is."""
    found = set(words)
    return next((word for word in _FLOATS if word in found), None)


ANY = "ANY"
"""The datatype of a tensor whose file does not say: a TorchScript input takes what it is given."""
