"""How do all files of a folder arrive, several at a time, and are they those that were pinned?"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.manifest import TOTAL_BYTES, Manifest, Row
from evenkeel_runtime.fetch.source import Chunk, Entry, Folder
from evenkeel_runtime.fetch.transfer import Arrived, Sink, transfer

STREAMS = 4
"""Files that are read at the same time: a store gives each connection a share, and small files are all waiting."""


def transfer_all(
    folder: Folder,
    entries: list[Entry],
    sink: Callable[[Entry], Sink],
) -> dict[str, Arrived]:
    """Read every file into a sink of its own and return what arrived, by path; the first failure ends all others."""
    progress = _Progress(folder.uri)

    def one(entry: Entry) -> Arrived:
        try:
            return transfer(entry.source, _Watched(sink(entry), progress))
        except BaseException:
            progress.is_over = True
            raise

    with ThreadPoolExecutor(STREAMS, thread_name_prefix="fetch") as pool:
        futures = [pool.submit(one, entry) for entry in entries]
        outcomes = [future.exception() for future in futures]
    for error in outcomes:
        if error is not None and not isinstance(error, _Over):
            raise error
    return {entry.path: future.result() for entry, future in zip(entries, futures, strict=True)}


def manifest_of(arrived: dict[str, Arrived]) -> Manifest:
    """Return the manifest of files that arrived, by path."""
    return Manifest.of(Row(path, one.size_bytes, one.sha256) for path, one in arrived.items())


def require_pinned(uri: str, found: Manifest, sha256: str, marks: str) -> None:
    """Raise where the files are not those that this revision was made for."""
    if sha256 and found.sha256 != sha256:
        raise ModelError(
            Reason.MODEL_CHANGED,
            f"{uri} is not the folder this revision was made for: {found.against(marks)} (the sha256 of its manifest "
            f"is {found.sha256}, pinned is {sha256}); "
            "write new versions to a new folder, or change spec.model to start a new revision",
        )


class _Over(Exception):
    """Another file could not be read, so this one is not wanted any more."""


class _Progress:
    """What all files of a folder amount to so far, and whether they are still wanted."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lock = threading.Lock()
        self._bytes = 0
        self.is_over = False

    def add(self, size: int) -> None:
        if self.is_over:
            raise _Over
        with self._lock:
            self._bytes += size
        if self._bytes > TOTAL_BYTES:
            raise ModelError(Reason.INVALID, f"the folder {self._uri} has more than {TOTAL_BYTES >> 40} TiB")


class _Watched:
    """A sink that takes what comes as long as the folder is wanted."""

    def __init__(self, sink: Sink, progress: _Progress) -> None:
        self._sink, self._progress = sink, progress

    def begin(self, size: int | None) -> None:
        if size is not None and size > TOTAL_BYTES:
            self._progress.add(size)
        self._sink.begin(size)

    def write(self, chunk: Chunk) -> None:
        self._progress.add(len(chunk))
        self._sink.write(chunk)

    def close(self) -> None:
        self._sink.close()
