"""How is one large file read in parts, several at once, hashed in order, and continued by another process?

A store gives each connection a share of its bandwidth, and each request waits for its first byte. So a large file is
cut into parts, which are asked for in their order, `CONNECTIONS` at a time, and written where they belong; the hash
follows the complete prefix, out of the page cache, and has the last parts left at most when the last byte comes.

A file is cut only where the first answer ties all parts to one object: it has ranges, a size and a strong version (an
ETag, a commit, a digest), which each part's answer is held against. Otherwise that answer is read on to its end, as one
stream. A place that has ranges and then answers for a part with the whole is read as one stream too, from the start;
so is one that still has the very object and says of a part that it is of another, or not of which: servers behind one
address that made their ETags each for itself, or that state none with a range.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.journal import Identity, Journal, Journals, forget
from evenkeel_runtime.fetch.source import CHUNK_BYTES, Chunk, Interrupted, Opened, Source, changed, damaged
from evenkeel_runtime.fetch.transfer import Arrived, File, Patience, patiently, reserve, transfer, wait_or_give_up

CONNECTIONS = 8
LEAST_BYTES, MOST_BYTES = 8 << 20, 64 << 20
"""Of one part. A small one waits as long for its first byte as a large one, large ones are too few for all connections.

`make bench-fetch`, of 128 MiB with 0.1 s to the first byte and 20 MiB/s a connection: one stream takes 6.5 s, parts of
2, 8, 16 and 64 MiB take 1.9, 1.4, 1.3 and 3.7 s.
"""
_PARTS = 64
"""Parts that a file is cut into, as far as the two bounds let it: the last few are read by ever fewer connections."""


def read(
    source: Source,
    path: Path,
    journals: Journals,
    slots: threading.Semaphore | None = None,
) -> Arrived:
    """Write the source to the file `path`, hash it, and return what arrived.

    Parts of the very same object that an ended process left there are not read again. `slots` bounds the parts that are
    read at the same time, of this file and of those that share them; each file may have one stream beside.
    """
    first = patiently(source.uri, lambda: source.open(0, None, None))
    size = first.size_bytes
    if size is not None and size > LEAST_BYTES and first.has_ranges and first.version is not None:
        identity = Identity(source.uri, first.version, size, first.sha256, part_bytes(size))
        reading = _Reading(source, first, path, journals.of(path, identity), identity)
        try:
            return reading.run(slots or threading.Semaphore(CONNECTIONS))
        except _NoRanges:
            first = patiently(source.uri, lambda: source.open(0, None, None))
        except ModelError as error:
            if error.reason != Reason.MODEL_CHANGED:
                raise
            first = patiently(source.uri, lambda: source.open(0, None, None))
            if (first.size_bytes, first.version) != (size, identity.version):
                first.close()
                raise
    forget(path)
    path.unlink(missing_ok=True)
    return transfer(source, File(path), opened=first)


def part_bytes(size: int) -> int:
    """Return how long the parts of a file are, the last one aside."""
    return max(LEAST_BYTES, min(MOST_BYTES, -(-size // _PARTS)))


class _NoRanges(Exception):
    """The place answered with the whole where it was asked for a part."""


class _Over(Exception):
    """Another part could not be read, so this one is not wanted any more."""


@dataclass(slots=True)
class _Part:
    """The bytes up to `stop` from where the part before ends; those before `at` are written."""

    number: int
    at: int
    stop: int


class _Reading:
    """One object on its way into the file `path`, beginning with the answer `first`."""

    def __init__(self, source: Source, first: Opened, path: Path, journal: Journal, identity: Identity) -> None:
        self._source, self._path, self._journal, self._identity = source, path, journal, identity
        self._patience = Patience()
        self._data = -1
        self._grown = threading.Condition()  # guards what follows, the parts' `at` too
        self._first: Opened | None = first
        self._missing: list[_Part] = []
        self._readers = 0
        self._retries = 0
        self._failure: BaseException | None = None

    def run(self, slots: threading.Semaphore) -> Arrived:
        """Read what is missing, hash all, and return what arrived; the first failure ends all parts and is raised."""
        kept = self._journal.kept()
        if not kept:
            forget(self._path)
            self._path.unlink(missing_ok=True)
        self._data = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            reserve(self._data, self._identity.size_bytes, self._path)
            self._journal.begin(self._data)
            parts = self._parts(kept)
            self._missing = [part for part in reversed(parts) if part.number not in kept]
            kept_bytes = self._identity.size_bytes - sum(part.stop - part.at for part in self._missing)
            if 0 in kept:
                self._close_first()  # it has told all that it is for
            sha256 = self._read(parts, slots)
        finally:
            self._journal.finish()
            os.close(self._data)
            self._close_first()
        if self._identity.sha256 not in (None, sha256):
            raise damaged(self._source.uri, f"sha256:{self._identity.sha256}", f"sha256:{sha256}")
        return Arrived(sha256, self._identity.size_bytes, self._identity.version, kept_bytes, self._retries)

    def _close_first(self) -> None:
        if self._first is not None:
            self._first.close()
            self._first = None

    def _parts(self, kept: frozenset[int]) -> list[_Part]:
        size, length = self._identity.size_bytes, self._identity.part_bytes
        stops = (min((number + 1) * length, size) for number in range(self._identity.count))
        return [_Part(number, stop if number in kept else number * length, stop) for number, stop in enumerate(stops)]

    def _read(self, parts: list[_Part], slots: threading.Semaphore) -> str:
        """Return the sha256 of all parts, of which the missing are read meanwhile."""
        self._readers = min(CONNECTIONS, len(self._missing))
        threads = [threading.Thread(target=self._work, args=(slots,), name="part") for _ in range(self._readers)]
        for thread in threads:
            thread.start()
        try:
            return self._hash(parts)
        except BaseException as error:
            self._end(error)
            raise
        finally:
            for thread in threads:
                thread.join()

    def _hash(self, parts: list[_Part]) -> str:
        digest, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK_BYTES))
        at = 0
        for part in parts:
            while at < part.stop:
                with self._grown:
                    while part.at <= at and self._failure is None:
                        self._grown.wait()
                    if self._failure is not None:
                        raise self._failure
                    written = part.at
                count = os.preadv(self._data, [buffer[: written - at]], at)
                if not count:
                    raise OSError(errno.EIO, "a file became shorter while it was written", str(self._path))
                digest.update(buffer[:count])
                at += count
        return digest.hexdigest()

    def _work(self, slots: threading.Semaphore) -> None:
        """Read one missing part after another."""
        try:
            while (part := self._next()) is not None:
                with slots:
                    if not self._has_read(part):
                        return
                self._journal.add(part.number)
        except BaseException as error:  # noqa: BLE001 - the thread's edge: whatever it was, who waits for the parts raises it
            self._end(error)

    def _next(self) -> _Part | None:
        with self._grown:
            if self._missing and self._failure is None:
                return self._missing.pop()
            self._readers -= 1
            return None

    def _end(self, error: BaseException) -> None:
        with self._grown:
            self._failure = self._failure or error
            self._grown.notify_all()

    def _has_read(self, part: _Part) -> bool:
        """Read a part to its end, however often the connection breaks; return False where this is left to the others.

        A place that refuses so many connections is read by fewer; where the last one is refused, it does not answer.
        """
        failures = 0
        while part.at < part.stop:
            before = part.at
            try:
                self._go_on(part)
            except Interrupted as error:
                failures = 1 if part.at > before else failures + 1
                with self._grown:
                    self._retries += 1
                    if failures >= self._patience.attempts and self._readers > 1:
                        self._readers -= 1
                        self._missing.append(part)
                        return False
                wait_or_give_up(self._source.uri, error, failures, self._patience)
        return True

    def _go_on(self, part: _Part) -> None:
        """Read on to the end of a part; raises Interrupted."""
        opened = self._answer(part)
        try:
            if not opened.has_ranges:
                raise _NoRanges
            if (opened.size_bytes, opened.version) != (self._identity.size_bytes, self._identity.version):
                raise changed(self._source.uri)
            for chunk in opened.chunks:
                self._write(part, chunk)
                if part.at == part.stop:
                    return
        finally:
            opened.close()
        raise Interrupted(f"{part.stop - part.at} bytes of a part are missing")

    def _answer(self, part: _Part) -> Opened:
        """Return the rest of a part: the first answer, which goes on behind it, or one to a request of its own."""
        with self._grown:
            if self._failure is not None:
                raise _Over
            if part.at == 0 and self._first is not None:
                first, self._first = self._first, None
                return first
        return self._source.open(part.at, part.stop, self._identity.version)

    def _write(self, part: _Part, chunk: Chunk) -> None:
        rest = memoryview(chunk)[: part.stop - part.at]
        while rest:
            count = os.pwrite(self._data, rest, part.at)
            rest = rest[count:]
            with self._grown:
                if self._failure is not None:
                    raise _Over
                part.at += count
                self._grown.notify_all()
