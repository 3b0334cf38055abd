"""How do all files of a folder arrive, several at a time, and are they those that were pinned?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.manifest import TOTAL_BYTES, Manifest, Row
from evenkeel_runtime.fetch.source import Chunk, Entry, Folder, Opened, Source
from evenkeel_runtime.fetch.transfer import Arrived

STREAMS = 4
"""Files that are read at the same time: a store gives each connection a share, and small files are all waiting."""


def transfer_all(
    folder: Folder,
    entries: list[Entry],
    receive: Callable[[Entry], Arrived],
) -> dict[str, Arrived]:
    """Let every file be read by `receive` and return what arrived, by path; the first failure ends all others."""
    progress = _Progress(folder.uri)

    def one(entry: Entry) -> Arrived:
        try:
            return receive(Entry(entry.path, _Watched(entry.source, progress)))
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


@dataclass(frozen=True, slots=True)
class _Watched:
    """A source that is read as long as the folder is wanted."""

    source: Source
    progress: _Progress

    @property
    def uri(self) -> str:
        return self.source.uri

    @property
    def file(self) -> str:
        return self.source.file

    def open(self, start: int, stop: int | None, version: str | None) -> Opened:
        opened = self.source.open(start, stop, version)
        try:
            self.progress.add(0)
            if opened.size_bytes is not None and opened.size_bytes > TOTAL_BYTES:
                self.progress.add(opened.size_bytes)
        except BaseException:
            opened.close()
            raise
        return replace(opened, chunks=self._counted(opened.chunks))

    def _counted(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            self.progress.add(len(chunk))
            yield chunk
