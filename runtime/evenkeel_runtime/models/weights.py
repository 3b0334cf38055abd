"""Which tensors do safetensors files hold, and how do they become torch's without a copy?

The format is a length, a JSON header that says where each tensor lies, and the bytes, as described at
github.com/huggingface/safetensors. It is read here, and not by its library, because the library maps a file by its path
or copies what it is given: the weights of a replica are views of the memory that was hashed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evenkeel_runtime.failure import refused
from evenkeel_runtime.models.bundle import Bundle, Held, malformed

if TYPE_CHECKING:
    import torch

ENDING = ".safetensors"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_HEADER_BYTES = 100 << 20
_TENSORS = 200_000

_DTYPES: Mapping[str, tuple[str, int]] = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U64": ("uint64", 8),
    "U32": ("uint32", 4),
    "U16": ("uint16", 2),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor: `start` and `stop` are in its file."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Weights:
    """All tensors by name, and what the file says beside them (only of a file that stands alone)."""

    tensors: Mapping[str, Weight]
    metadata: Mapping[str, str]


def looks_like(head: bytes, size: int) -> bool:
    """Return whether a file begins as safetensors does."""
    length = int.from_bytes(head[:8], "little")
    return len(head) > 8 and head[8:9] == b"{" and 0 < length <= min(_HEADER_BYTES, size - 8)


def read(bundle: Bundle) -> Weights:
    """Return what the bundle's safetensors files hold: one of them, or those that an index names."""
    names = [name for name in bundle.files if name.endswith(ENDING) and "/" not in name]
    if INDEX in bundle.files:
        return _sharded(bundle)
    if SINGLE in names:
        return _header(SINGLE, bundle.files[SINGLE])
    if len(names) == 1:
        return _header(names[0], bundle.files[names[0]])
    if names:
        raise refused(f"the folder has several files of weights ({', '.join(names[:6])}) and no {INDEX}; save it again")
    raise refused(_without(bundle))


def loaded(bundle: Bundle, weights: Weights) -> dict[str, torch.Tensor]:
    """Return the tensors, as views of the bundle's memory wherever they are aligned in it."""
    import torch

    found: dict[str, torch.Tensor] = {}
    for name, weight in weights.tensors.items():
        dtype, size = _DTYPES[weight.dtype]
        view = bundle.files[weight.file].view
        assert view is not None
        part = view[weight.start : weight.stop]
        if weight.start % size:
            part = memoryview(bytearray(part))
        kind: torch.dtype = getattr(torch, dtype)
        flat = torch.frombuffer(part, dtype=kind) if len(part) else torch.empty(0, dtype=kind)
        found[name] = flat.reshape(weight.shape)
    return found


def _sharded(bundle: Bundle) -> Weights:
    named = bundle.json(INDEX).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(file, str) for file in named.values()):
        raise refused(f"{INDEX} has no weight_map from names to files; save the model again")
    tensors: dict[str, Weight] = {}
    for file in sorted(set(named.values())):
        if not file.endswith(ENDING):
            raise refused(f"{INDEX} names {file[:200]!r}, which is no safetensors file: {_PICKLES}")
        if file not in bundle.files:
            raise refused(f"{INDEX} names {file[:200]!r}, which is not in the folder; upload all of it")
        for name, weight in _header(file, bundle.files[file]).tensors.items():
            if named.get(name) == file:
                tensors[name] = weight
    if missing := sorted(named.keys() - tensors.keys()):
        raise refused(f"{INDEX} names {', '.join(missing[:6])[:600]}, which its files do not hold; upload all of it")
    return Weights(tensors, {})


def _header(file: str, held: Held) -> Weights:
    head = held.read(0, 9)
    length = int.from_bytes(head[:8], "little")
    if not looks_like(head, held.size):
        if held.size > 9:
            raise refused(f"{file} is no safetensors file, or only the beginning of one; upload it again")
        raise refused(f"{file} is empty; upload it again")
    try:
        header = json.loads(held.read(8, length), object_pairs_hook=_once)
        metadata = header.pop("__metadata__", {})
        if len(header) > _TENSORS:
            raise ValueError(f"{len(header)} tensors")
        tensors = {name: _weight(file, 8 + length, told) for name, told in header.items()}
        texts = {key: text for key, text in metadata.items() if isinstance(text, str)}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise malformed(file, error) from error
    end = 8 + length
    for name, weight in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if weight.start != end:
            raise refused(f"the tensor {name[:200]!r} in {file} overlaps another one or leaves a gap; save it again")
        end = weight.stop
    if end != held.size:
        raise refused(f"{file} has {held.size} bytes, its header speaks of {end}; upload it again")
    return Weights(tensors, texts)


def _weight(file: str, base: int, told: Any) -> Weight:
    dtype, shape, (start, stop) = told["dtype"], tuple(told["shape"]), told["data_offsets"]
    if dtype not in _DTYPES:
        raise ValueError(f"elements of the type {str(dtype)[:20]}")
    if any(type(number) is not int or not 0 <= number < 1 << 48 for number in (*shape, start, stop)) or len(shape) > 16:
        raise ValueError("a shape or a place that is none")
    if stop - start != math.prod(shape) * _DTYPES[dtype][1]:
        raise ValueError(f"{stop - start} bytes for the shape {list(shape)}")
    return Weight(file, dtype, shape, base + start, base + stop)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name that stands there twice")
    return found


_PICKLES = "unpickling weights would run their author's code; save with save_pretrained or safetensors.torch.save_file"
_PICKLED = re.compile(r"\.(bin|pt|pth|ckpt|pkl|pickle|joblib|msgpack|h5|ot|onnx|gguf)$")


def _without(bundle: Bundle) -> str:
    others = sorted(name for name in bundle.files if _PICKLED.search(name))
    if others:
        return f"the folder has its weights in {', '.join(others[:4])}, and none in safetensors; {_PICKLES}"
    return f"the folder has no weights ({SINGLE}); it holds {bundle.named()}"
