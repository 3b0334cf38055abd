"""How do arrays pass between two processes of a replica? In memory that both see, and a few words on where they lie.

Numbers are copied once by who writes, and are views for who reads. Nothing is pickled: what a process that runs a
model says is data to the one that holds the connections.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_ALIGNED = 64
"""Bytes: a cache line, and what vector instructions like best."""

Lie = tuple[str, Sequence[int], int, "Sequence[int] | None"]
"""Where an array lies: its element type as numpy writes it, its shape, its offset in bytes, and the length of each of
its elements where they are `bytes`."""


class Room:
    """Memory of two processes, one of which writes what the other reads. It is as large as what was written at most:
    it grows, and does not shrink."""

    def __init__(self, fd: int | None = None) -> None:
        """Make it, or take part in the one that `fd` stands for."""
        self.fd = os.memfd_create("evenkeel") if fd is None else fd
        self._map: Any = b""

    def write(self, groups: Iterable[Sequence[Array]]) -> list[list[Lie]]:
        """Put arrays there, over those before, and return where they lie."""
        end = 0
        told: list[list[Lie]] = []
        puts: list[tuple[Array | bytes, Lie]] = []
        for group in groups:
            told.append([])
            for array in group:
                texts = list(array.flat) if array.dtype.hasobject else None
                content: Array | bytes = array if texts is None else b"".join(texts)
                lie: Lie = array.dtype.str, array.shape, end, None if texts is None else [*map(len, texts)]
                told[-1].append(lie)
                puts.append((content, lie))
                size = len(content) if isinstance(content, bytes) else content.nbytes
                end += -(-size // _ALIGNED) * _ALIGNED
        self._reach(end)
        for content, (dtype, shape, start, _) in puts:
            if isinstance(content, bytes):
                self._map[start : start + len(content)] = content
            else:
                np.ndarray(shape, dtype, self._map, start)[...] = content
        return told

    def read(self, told: Sequence[Lie]) -> list[Array]:
        """Return the arrays that lie there; they are valid until the other process writes again."""
        found = []
        for dtype, shape, start, lengths in told:
            if lengths is None:
                self._reach(start + np.dtype(dtype).itemsize * math.prod(shape))
                found.append(np.ndarray(shape, dtype, self._map, start))
                continue
            self._reach(start + sum(lengths))
            texts = np.empty(len(lengths), object)
            for index, length in enumerate(lengths):
                texts[index] = self._map[start : start + length]
                start += length
            found.append(texts.reshape(shape))
        return found

    def _reach(self, end: int) -> None:
        """See so many bytes, which are there or are made. Views of what was seen before stay valid."""
        if end <= len(self._map) and self._map:
            return
        if os.fstat(self.fd).st_size < max(end, 1):
            os.ftruncate(self.fd, -(-max(end, 1) // mmap.PAGESIZE) * mmap.PAGESIZE)
        self._map = mmap.mmap(self.fd, 0)
