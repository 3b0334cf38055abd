"""Which arrays does an HDF5 file hold, and where do their bytes lie?

Keras keeps its weights in HDF5, a format that can point out of its file, compute values by plugins and claim more than
it has, and whose library in C has had its share of memory errors. What `model.save` writes needs little of it: groups
of the oldest kind, and arrays that lie in one piece. That much is read here, in Python, and all else is refused by
name. The library never sees the file.

Layout of superblocks, B-trees, heaps and headers: The HDF Group, "HDF5 File Format Specification Version 3.0".
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from evenkeel_runtime.failure import refused

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_WAY_OUT = "save the model again with Keras' own model.save"
_OBJECTS = 200_000
_DEPTH = 64
_RANK = 32
_NAME_BYTES = 1024
_TIMES, _SLACK_BYTES = 2, 1 << 20
_SOFT_LINK = 2
_BY_REFERENCE = 0x02
"""A message's flag: its content lies elsewhere in the file."""
_NUMBERS = {
    (1, 2, 5): "float16", (1, 2, 8): "bfloat16", (1, 4, 8): "float32", (1, 8, 11): "float64",
    (0, 1, 1): "int8", (0, 2, 1): "int16", (0, 4, 1): "int32", (0, 8, 1): "int64",
    (0, 1, 0): "uint8", (0, 2, 0): "uint16", (0, 4, 0): "uint32", (0, 8, 0): "uint64",
}  # fmt: skip
"""By class, size, and for integers whether they are signed, for floats how wide the exponent is."""
_CLASSES = {
    2: "times", 3: "text", 4: "bits", 6: "records", 7: "references", 8: "names", 9: "lists of any length", 10: "arrays",
}  # fmt: skip

Read = Callable[[int, int], bytes]
"""Returns so many bytes from this offset on, fewer at the file's end."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An array: `size` bytes from `offset` on, little-endian, in C's order."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


def arrays(read: Read, size: int) -> Mapping[str, Stored]:
    """Return the arrays in a file of `size` bytes by their paths, such as `layers/dense/vars/0`; none is read."""
    reader = _Reader(read, size)
    try:
        return reader.arrays()
    except (struct.error, IndexError) as error:
        raise refused(f"the weights are a damaged HDF5 file ({error}); {_WAY_OUT}") from error


class _Reader:
    def __init__(self, read: Read, size: int) -> None:
        self._read, self._size = read, size
        self._seen: set[int] = set()
        self._found: dict[str, Stored] = {}
        self._bytes = 0
        self._left = _TIMES * size + _SLACK_BYTES

    def arrays(self) -> Mapping[str, Stored]:
        head = self._at(0, 96)
        if head[:8] != SIGNATURE:
            raise refused(f"the weights are not an HDF5 file; {_WAY_OUT}")
        if head[8] != 0 or head[13:15] != b"\x08\x08":
            raise refused(f"the weights are an HDF5 file of version {head[8]}, Keras writes version 0; {_WAY_OUT}")
        base, _, end, _ = struct.unpack_from("<4Q", head, 24)
        if base != 0 or end > self._size:
            raise refused(f"the weights are a truncated HDF5 file ({self._size} bytes of {end}); upload it again")
        (root,) = struct.unpack_from("<Q", head, 64)
        self._object(root, "", 0)
        return self._found

    def _at(self, offset: int, count: int) -> bytes:
        if offset + count > self._size:
            raise refused(f"the weights' HDF5 file points beyond its end; {_WAY_OUT}")
        self._left -= count
        if self._left < 0:
            raise refused(f"the weights' HDF5 file leads to the same bytes again and again; {_WAY_OUT}")
        data = self._read(offset, count)
        if len(data) != count:
            raise refused(f"the weights' HDF5 file ends too early; {_WAY_OUT}")
        return data

    def _object(self, address: int, path: str, depth: int) -> None:
        """Note an array, or walk a group. No object has two names: else a small file could list one without end."""
        if address in self._seen or depth > _DEPTH or len(self._seen) > _OBJECTS:
            raise refused(f"the weights' HDF5 file leads to {path[:200]!r} by two ways, or too deep; {_WAY_OUT}")
        self._seen.add(address)
        messages = dict(self._messages(address, path))
        if 0x0011 in messages:
            tree, heap = struct.unpack_from("<2Q", messages[0x0011])
            for name, child in self._links(tree, self._heap(heap), path):
                self._object(child, f"{path}/{name}" if path else name, depth + 1)
        elif 0x0008 in messages:
            self._found[path] = self._array(messages, path)
        elif path:
            raise refused(f"the weights' HDF5 file holds {path[:200]!r}, neither group nor array; {_WAY_OUT}")

    def _messages(self, address: int, path: str) -> Iterator[tuple[int, bytes]]:
        head = self._at(address, 16)
        if head[0] != 1:
            raise refused(f"the weights' HDF5 file has a header of a later kind at {path[:200]!r}; {_WAY_OUT}")
        (count,) = struct.unpack_from("<H", head, 2)
        (length,) = struct.unpack_from("<I", head, 8)
        blocks = [(address + 16, length)]
        for start, size in blocks:
            block, at = self._at(start, size), 0
            while at + 8 <= size and count:
                kind, width, flags = struct.unpack_from("<HHB", block, at)
                content = block[at + 8 : at + 8 + width]
                at, count = at + 8 + width, count - 1
                if kind == 0x0010 and len(blocks) < 1000:
                    offset, more = struct.unpack_from("<2Q", content)
                    blocks.append((offset, more))
                elif kind == 0x0007:
                    raise refused(f"the weights' array {path[:200]!r} lies in another file; {_WAY_OUT}")
                elif kind == 0x000B:
                    raise refused(f"the weights' array {path[:200]!r} is compressed; {_WAY_OUT}")
                elif kind in (0x0002, 0x0006):
                    raise refused(f"the weights' group {path[:200]!r} is of a later kind, with links; {_WAY_OUT}")
                elif kind in (0x0001, 0x0003, 0x0008, 0x0011):
                    if flags & _BY_REFERENCE:
                        raise refused(f"the weights' HDF5 file describes {path[:200]!r} by reference; {_WAY_OUT}")
                    yield kind, content

    def _heap(self, address: int) -> bytes:
        head = self._at(address, 32)
        if head[:4] != b"HEAP":
            raise refused(f"the weights' HDF5 file has no names where it says so; {_WAY_OUT}")
        length, _, start = struct.unpack_from("<3Q", head, 8)
        return self._at(start, length)

    def _links(self, address: int, names: bytes, path: str, depth: int = 0) -> Iterator[tuple[str, int]]:
        if address in self._seen or depth > _DEPTH or len(self._seen) > _OBJECTS:
            raise refused(f"the weights' HDF5 file has a tree that holds itself, at {path[:200]!r}; {_WAY_OUT}")
        self._seen.add(address)
        head = self._at(address, 8)
        if head[:4] == b"SNOD":
            (count,) = struct.unpack_from("<H", head, 6)
            entries = self._at(address + 8, count * 40)
            for index in range(count):
                name, child, kind = struct.unpack_from("<QQI", entries, index * 40)
                if kind == _SOFT_LINK:
                    raise refused(f"the weights' group {path[:200]!r} holds a link; {_WAY_OUT}")
                yield self._name(names, name), child
            return
        if head[:5] != b"TREE\0":
            raise refused(f"the weights' HDF5 file has no tree where it says so, at {path[:200]!r}; {_WAY_OUT}")
        (count,) = struct.unpack_from("<H", head, 6)
        entries = self._at(address + 24, count * 16)
        for index in range(count):
            (child,) = struct.unpack_from("<Q", entries, index * 16 + 8)
            yield from self._links(child, names, path, depth + 1)

    @staticmethod
    def _name(names: bytes, start: int) -> str:
        stop = names.index(b"\0", start) if b"\0" in names[start : start + _NAME_BYTES] else -1
        name = names[start:stop].decode("utf-8", "replace") if stop > start else ""
        if not name or "/" in name or name in (".", ".."):
            raise refused(f"the weights' HDF5 file has an object without a name of its own ({name!r}); {_WAY_OUT}")
        return name

    def _array(self, messages: Mapping[int, bytes], path: str) -> Stored:
        if 0x0001 not in messages or 0x0003 not in messages:
            raise refused(f"the weights' array {path[:200]!r} has no shape or no type; {_WAY_OUT}")
        shape, (dtype, width) = _shape(messages[0x0001], path), _dtype(messages[0x0003], path)
        layout = messages[0x0008]
        if layout[:2] != b"\x03\x01":
            raise refused(f"the weights' array {path[:200]!r} does not lie in one piece; {_WAY_OUT}")
        offset, size = struct.unpack_from("<2Q", layout, 2)
        needed = math.prod(shape) * width
        if needed != size or (size and offset + size > self._size):
            raise refused(f"the weights' array {path[:200]!r} has {size} bytes, its shape {list(shape)} needs {needed}")
        self._bytes += size
        if self._bytes > self._size:
            raise refused(f"the weights' arrays share their bytes, up to {path[:200]!r}; {_WAY_OUT}")
        return Stored(dtype, shape, offset if size else 0, size)


def _shape(message: bytes, path: str) -> tuple[int, ...]:
    version, rank = message[0], message[1]
    if version not in (1, 2) or rank > _RANK or (version == 2 and message[3] == 2):
        raise refused(f"the weights' array {path[:200]!r} has no shape as Keras writes it; {_WAY_OUT}")
    return struct.unpack_from(f"<{rank}Q", message, 8 if version == 1 else 4)


def _dtype(message: bytes, path: str) -> tuple[str, int]:
    kind, bits = message[0] & 0x0F, message[1]
    (size,) = struct.unpack_from("<I", message, 4)
    if kind == 5 and size == 2:
        return "bfloat16", 2  # numpy has no such type: h5py writes it as two opaque bytes
    if kind == 8 and size == 1:
        return "bool", 1  # the names FALSE and TRUE
    more = (bits >> 3) & 1 if kind == 0 else message[13] if kind == 1 else -1
    found = _NUMBERS.get((kind, size, more))
    if found is None or bits & 1:
        raise refused(f"the weights' array {path[:200]!r} is of {_CLASSES.get(kind, 'numbers')} that no weight is of")
    return found, size
