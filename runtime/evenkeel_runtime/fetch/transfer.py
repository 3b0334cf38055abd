"""How do all bytes of one version arrive, however often the connection breaks, and what is their hash?"""

from __future__ import annotations

import errno
import hashlib
import io
import mmap
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Protocol, TypeVar

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.source import Chunk, Interrupted, Opened, Source, changed, damaged

Answer = TypeVar("Answer")


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
    """What a complete transfer amounted to; `version` is the place's own word for it, to read more of the same.

    `kept_bytes` were there before, from a process that ended; `retries` counts the connections that broke.
    """

    sha256: str
    size_bytes: int
    version: str | None
    kept_bytes: int = 0
    retries: int = 0


class Sink(Protocol):
    """Where the chunks go: told the size first, where it is stated, and closed at the end, good or bad."""

    def begin(self, size: int | None) -> None: ...

    def write(self, chunk: Chunk) -> None: ...

    def close(self) -> None: ...


def transfer(source: Source, sink: Sink, patience: Patience = Patience(), opened: Opened | None = None) -> Arrived:
    """Read one version of the source from its first byte to its last, hash it, and pass every chunk on in order.

    `opened` is a reading from the first byte on that has begun already.
    """
    reading = _Reading(sink)
    failures = retries = 0
    try:
        while True:
            before = reading.received
            try:
                arrived = reading.go_on(source, opened)
                return replace(arrived, retries=retries)
            except Interrupted as error:
                opened = None
                retries += 1
                failures = 1 if reading.received > before else failures + 1
                wait_or_give_up(source.uri, error, failures, patience)
    finally:
        sink.close()


class _Reading:
    """What has arrived so far, and of which version."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._digest = hashlib.sha256()
        self._first: Opened | None = None
        self.received = 0

    def go_on(self, source: Source, opened: Opened | None) -> Arrived:
        """Read on to the end; raises Interrupted."""
        first = self._first
        opened = opened or source.open(self.received, None, first.version if first else None)
        try:
            if first is None:
                self._sink.begin(opened.size_bytes)
                self._first = first = opened
            elif (opened.size_bytes, opened.version) != (first.size_bytes, first.version):
                raise changed(source.uri)
            elif self.received and first.version is None:
                raise changed(source.uri)  # nothing says that the rest belongs to the same version
            for chunk in opened.chunks:
                self._digest.update(chunk)
                self._sink.write(chunk)
                self.received += len(chunk)
        finally:
            opened.close()
        size = first.size_bytes
        if size is not None and self.received > size:
            raise changed(source.uri)
        if size is not None and self.received < size:
            raise Interrupted(f"{size - self.received} of {size} bytes are missing")
        sha256 = self._digest.hexdigest()
        if first.sha256 not in (None, sha256):
            raise damaged(source.uri, f"sha256:{first.sha256}", f"sha256:{sha256}")
        return Arrived(sha256, self.received, first.version)


def patiently(uri: str, ask: Callable[[], Answer], patience: Patience = Patience()) -> Answer:
    """Return the answer, asked for again where it was interrupted."""
    failures = 0
    while True:
        try:
            return ask()
        except Interrupted as error:
            failures += 1
            wait_or_give_up(uri, error, failures, patience)


def wait_or_give_up(uri: str, error: Interrupted, failures: int, patience: Patience) -> None:
    if failures >= patience.attempts:
        raise ModelError(Reason.SOURCE_UNAVAILABLE, f"{uri} does not answer ({failures} attempts): {error}") from error
    time.sleep(patience.delay_s(failures))


class File:
    """A new file, with its room reserved first, so that a full disk fails at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: IO[bytes] | None = None

    def begin(self, size: int | None) -> None:
        self._stream = self._path.open("xb")
        if size:
            reserve(self._stream.fileno(), size, self._path)

    def write(self, chunk: Chunk) -> None:
        assert self._stream is not None
        self._stream.write(chunk)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()


def reserve(descriptor: int, size: int, path: Path) -> None:
    """Make a file `size` bytes long and take the room for them; what is there already stays. Raises for want of room.

    Asking first leaves the last bytes of the volume to its other writers. Not every volume knows how many it has, so
    the reservation itself is what holds.
    """
    room, there = os.fstatvfs(descriptor), os.fstat(descriptor)
    needed, free = size - there.st_blocks * 512, room.f_bavail * room.f_frsize
    try:
        if room.f_blocks and needed > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if there.st_size < size:
            os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ModelError(
            Reason.DISK_FULL,
            f"{path.name} needs {needed} bytes more on the volume of {path.parent}, and {free} are free; "
            "give it more space",
        ) from error


class Room:
    """How many bytes may be stored; shared by the files of a folder."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = threading.Lock()

    def takes(self, size: int) -> bool:
        """Return whether there is room for so many bytes and one more; they are then taken."""
        with self._lock:
            if size >= self._left:
                return False
            self._left -= size
            return True


class FileIfRoom:
    """A file where the size is stated and there is room for it, otherwise nothing: the bytes are only hashed."""

    def __init__(self, path: Path, room: Room) -> None:
        self._path, self._file, self._room = path, File(path), room
        self.is_stored = False

    def begin(self, size: int | None) -> None:
        self.is_stored = size is not None and self._room.takes(size)
        if self.is_stored:
            self._path.parent.mkdir(exist_ok=True)
            self._file.begin(size)

    def write(self, chunk: Chunk) -> None:
        if self.is_stored:
            self._file.write(chunk)

    def close(self) -> None:
        self._file.close()


class Memory:
    """Anonymous memory, page-aligned, so that tensors are views of it and no copy is made.

    Parsing what was hashed, and not the file again, leaves no moment in which the file can change in between.
    """

    def __init__(self) -> None:
        self.buffer: mmap.mmap | bytearray = bytearray()

    def room(self, size: int) -> memoryview:
        """Return the memory for a file of that size, to be read into: what is then written lies there already."""
        self.begin(size)
        return memoryview(self.buffer if size else bytearray())

    def begin(self, size: int | None) -> None:
        if size and len(self.buffer) != size:  # private: a fault of shared memory costs half as much again
            self.buffer = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            with suppress(AttributeError, OSError):  # a system, or a kernel, without them
                self.buffer.madvise(mmap.MADV_HUGEPAGE)  # a page of 2 MiB is faulted once, not 512 times

    def write(self, chunk: Chunk) -> None:
        if isinstance(chunk, memoryview):
            return
        if isinstance(self.buffer, bytearray):
            self.buffer += chunk
        else:
            self.buffer.write(chunk)

    def close(self) -> None:
        """Keep the memory: it is what was wanted."""


class Nowhere:
    """Keeps nothing: the bytes are only hashed."""

    def begin(self, size: int | None) -> None: ...

    def write(self, chunk: Chunk) -> None: ...

    def close(self) -> None: ...


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
        if self._arrived.version is None:
            raise changed(self._source.uri)  # nothing says that what is read now is what was hashed
        parts: list[Chunk] = []
        failures = 0
        while start < stop:
            before = start
            try:
                opened = self._source.open(start, stop, self._arrived.version)
                try:
                    for chunk in opened.chunks:
                        parts.append(chunk)
                        start += len(chunk)
                finally:
                    opened.close()
                if start < stop:
                    raise Interrupted(f"{stop - start} bytes of a range are missing")
            except Interrupted as error:
                failures = 1 if start > before else failures + 1
                wait_or_give_up(self._source.uri, error, failures, self._patience)
        return b"".join(parts)
