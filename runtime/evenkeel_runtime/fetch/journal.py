"""Which parts of a file are on the disk for good, so that another process may go on from there?

A text file beside the data: a line that says of which object the parts are, then a line for each. The order is what
matters: a part is written down after its bytes were synced, and the journal is gone from the disk before other bytes
come into the data. Whatever moment a process or its machine ends at, what is written down is there.

Syncing is a thread's own work, for all parts that came meanwhile at once: a disk that is slower than the network holds
up what is kept, not what is read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType

log = logging.getLogger("evenkeel")


@dataclass(frozen=True, slots=True)
class Identity:
    """Of which object the parts are, and how it is cut. Parts of equal identities are of the same bytes."""

    uri: str
    version: str
    size_bytes: int
    sha256: str | None
    part_bytes: int

    @property
    def count(self) -> int:
        """How many parts there are."""
        return -(-self.size_bytes // self.part_bytes)

    @property
    def line(self) -> bytes:
        """The journal's first line. A digest: the query of a presigned address is nobody else's business."""
        return f"{hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()}\n".encode()


class Journal:
    """The journal of the parts of the file `data`. At most one process may have it, or write to the file."""

    def __init__(self, data: Path, identity: Identity) -> None:
        self._data, self._identity = data, identity
        self._path = _path(data)
        self._added: SimpleQueue[int | None] = SimpleQueue()
        self._writer: threading.Thread | None = None
        self._is_over = False

    def kept(self) -> frozenset[int]:
        """Return the numbers of the parts that are on the disk: none where there is any doubt about one of them."""
        try:
            written, size = self._path.read_bytes(), self._data.stat().st_size
        except FileNotFoundError:
            return frozenset()
        head, lines = written[: len(self._identity.line)], written[len(self._identity.line) :]
        numbers = [int(number) for number in re.findall(rb"\d{8}", lines)]
        is_sound = (
            (head, size) == (self._identity.line, self._identity.size_bytes)
            and _lines(numbers) == lines
            and len(set(numbers)) == len(numbers)
            and all(number < self._identity.count for number in numbers)
        )
        return frozenset(numbers) if is_sound else frozenset()

    def begin(self, data: int) -> None:
        """Write down, behind what is kept, the parts of the file, which is open as `data`."""
        with self._path.open("ab") as stream:
            if stream.tell() == 0:
                stream.write(self._identity.line)
                stream.flush()
                os.fsync(stream.fileno())
        _sync_folder(self._path.parent)
        self._writer = threading.Thread(target=self._write, args=(os.dup(data),), name="journal")
        self._writer.start()

    def add(self, number: int) -> None:
        """Write down a part, all of whose bytes are written, once they are synced."""
        self._added.put(number)

    def finish(self) -> None:
        """Expect no more parts."""
        self._added.put(None)

    def close(self) -> None:
        """Wait until all parts that were added are written down."""
        self.finish()
        if self._writer is not None:
            self._writer.join()

    def end(self) -> None:
        """Let nothing be kept: the file is where it belongs. A sync that has begun is waited for, none begins."""
        self._is_over = True
        self.close()
        self._path.unlink(missing_ok=True)

    def _write(self, data: int) -> None:
        try:
            with self._path.open("ab", buffering=0) as stream:
                while (numbers := self._next()) and not self._is_over:
                    os.fdatasync(data)
                    stream.write(_lines(numbers))
                    os.fdatasync(stream.fileno())
        except OSError as error:  # the file is read all the same, and held against its sha256
            log.warning("no journal path=%s error=%s", self._path, error.strerror)
            self._path.unlink(missing_ok=True)
        finally:
            os.close(data)

    def _next(self) -> list[int]:
        """Return the parts that were added meanwhile, at least one; none at the end."""
        numbers: list[int] = []
        number = self._added.get()
        while number is not None:
            numbers.append(number)
            try:
                number = self._added.get_nowait()
            except Empty:
                return numbers
        if numbers:
            self._added.put(None)  # the end is to be found once more, behind these
        return numbers


class Journals:
    """The journals of a model's files: parts are kept until all files are where they belong."""

    def __init__(self) -> None:
        self._journals: list[Journal] = []

    def of(self, data: Path, identity: Identity) -> Journal:
        """Return the journal of a file."""
        journal = Journal(data, identity)
        self._journals.append(journal)
        return journal

    def __enter__(self) -> Journals:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for journal in self._journals:
            if error is None:
                journal.end()
            else:
                journal.close()


def forget(data: Path) -> None:
    """Let no part of a file be kept, for good: other bytes are about to be written."""
    if (journal := _path(data)).exists():
        journal.unlink()
        _sync_folder(journal.parent)


def _path(data: Path) -> Path:
    return data.with_name(f"{data.name}.journal")


def _lines(numbers: list[int]) -> bytes:
    return b"".join(b"%08d\n" % number for number in numbers)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
