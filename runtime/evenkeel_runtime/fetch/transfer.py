"""How do all bytes of one version arrive, however often the connection breaks, and what is their hash?"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.source import Interrupted, Source, changed


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a source may fail: `attempts` in a row without a new byte, waiting twice as long each time."""

    attempts: int = 5
    first_delay_s: float = 0.25
    longest_delay_s: float = 5.0

    def delay_s(self, failures: int) -> float:
        return float(min(self.longest_delay_s, self.first_delay_s * 2 ** (failures - 1)))


@dataclass(frozen=True, slots=True)
class Arrived:
    """What a complete transfer amounted to; `version` is the place's own word for it, to read more of the same."""

    sha256: str
    size_bytes: int
    version: str | None


Begun = Callable[[int | None], Callable[[bytes], object]]
"""Given the size where it is stated, returns where the chunks go."""


def transfer(source: Source, begun: Begun, patience: Patience = Patience()) -> Arrived:
    """Read one version of the source from its first byte to its last, hash it, and pass every chunk on in order."""
    digest = hashlib.sha256()
    received = failures = 0
    version: str | None = None
    size: int | None = None
    take: Callable[[bytes], object] | None = None
    while True:
        try:
            opened = source.open(received, None, version)
            if take is None:
                size, version = opened.size_bytes, opened.version
                take = begun(size)
            elif opened.size_bytes != size or opened.version != version:
                raise changed(source.uri)
            elif received and version is None:
                raise changed(source.uri)  # nothing says that the rest belongs to the same version
            for chunk in opened.chunks:
                digest.update(chunk)
                take(chunk)
                received += len(chunk)
                failures = 0
            if size is not None and received > size:
                raise changed(source.uri)
            if size is not None and received < size:
                raise Interrupted(f"{size - received} of {size} bytes are missing")
            return Arrived(digest.hexdigest(), received, version)
        except Interrupted as error:
            failures += 1
            _wait_or_give_up(source, error, failures, patience)


def _wait_or_give_up(source: Source, error: Interrupted, failures: int, patience: Patience) -> None:
    if failures >= patience.attempts:
        raise ModelError(
            Reason.SOURCE_UNAVAILABLE, f"{source.uri} does not answer ({failures} attempts): {error}"
        ) from error
    time.sleep(patience.delay_s(failures))


def into_file(path: Path) -> Begun:
    """Return a place for the chunks: a new file, with its room reserved first so that a full disk fails at once."""

    def begin(size: int | None) -> Callable[[bytes], object]:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o444)
        if size:
            os.posix_fallocate(descriptor, 0, size)
        stream = os.fdopen(descriptor, "wb", buffering=0)

        def take(chunk: bytes) -> None:
            view = memoryview(chunk)
            while view:  # a raw write may be short
                view = view[stream.write(view) :]

        return take

    return begin


def into_nothing(size: int | None) -> Callable[[bytes], object]:
    """Return a place for the chunks of a model that is only hashed."""
    return lambda chunk: None


class Memory:
    """A place for the chunks: anonymous memory, page-aligned, so that tensors are views of it and no copy is made.

    Parsing what was hashed, and not the file again, leaves no moment in which the file can change in between.
    """

    def __init__(self) -> None:
        self.buffer: mmap.mmap | bytearray = bytearray()

    def begin(self, size: int | None) -> Callable[[bytes], object]:
        if not size:
            self.buffer = bytearray()
            return self.buffer.extend
        self.buffer = mmap.mmap(-1, size)
        return self.buffer.write


class RemoteFile(io.RawIOBase):
    """A source as a file that can seek: how the directory and headers of a model are read that is not fetched whole."""

    def __init__(self, source: Source, arrived: Arrived, patience: Patience = Patience()) -> None:
        self._source, self._arrived, self._patience = source, arrived, patience
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._arrived.size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readall(self) -> bytes:
        return self.read(-1)

    def read(self, count: int = -1) -> bytes:
        stop = self._arrived.size_bytes if count < 0 else min(self._arrived.size_bytes, self._at + count)
        if stop <= self._at:
            return b""
        data = self._range(self._at, stop)
        self._at = stop
        return data

    def _range(self, start: int, stop: int) -> bytes:
        parts: list[bytes] = []
        failures = 0
        while start < stop:
            try:
                for chunk in self._chunks(start, stop):
                    parts.append(chunk)
                    start += len(chunk)
                    failures = 0
                if start < stop:
                    raise Interrupted(f"{stop - start} bytes of a range are missing")
            except Interrupted as error:
                failures += 1
                _wait_or_give_up(self._source, error, failures, self._patience)
        return b"".join(parts)

    def _chunks(self, start: int, stop: int) -> Iterator[bytes]:
        if self._arrived.version is None:
            raise changed(self._source.uri)
        return self._source.open(start, stop, self._arrived.version).chunks
