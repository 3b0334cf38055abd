"""What is a place that models come from? One version of one file, readable from any byte on, or a folder of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError

CHUNK_BYTES = 1 << 20
STALLED_S = 30.0
"""A connection without a byte for so long is given up, and the rest asked for again."""

Chunk = bytes | memoryview


class Interrupted(Exception):
    """A reading broke off in a way that may pass: a reset connection, a 5xx, a 429. The transfer asks again."""


class NoFile(Exception):
    """What the address names holds several files: it is to be read as a folder."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A reading that has begun: the whole file's size, version and sha256 where the place states them. To be closed.

    `has_ranges` says that parts of just this version can be asked for, and, of an answer to such a request, that it is
    the part and not the whole: the version is then strong, other bytes have another one.
    """

    size_bytes: int | None
    version: str | None
    chunks: Iterator[Chunk]
    close: Callable[[], object]
    sha256: str | None = None
    has_ranges: bool = False


class Source(Protocol):
    @property
    def uri(self) -> str: ...

    @property
    def file(self) -> str:
        """The file's base name."""

    def open(self, start: int, stop: int | None, version: str | None) -> Opened:
        """Read bytes from `start` up to `stop` (None: the end) of `version` (None: whichever is there).

        Raises Interrupted where asking again may help, `changed` where another version has taken the file's place,
        NoFile where there is a folder.
        """


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a folder: its path within, parts separated by /, and where it is read."""

    path: str
    source: Source


class Folder(Protocol):
    """Files that are a model together."""

    @property
    def uri(self) -> str: ...

    @property
    def file(self) -> str:
        """The folder's base name."""

    def entries(self) -> list[Entry]:
        """Return the files below the folder, at all depths, as they are now; none where there is no folder.

        Their paths are as the place has them: who writes them checks them. Raises Interrupted as reading does.
        """


def changed(uri: str) -> ModelError:
    return ModelError(
        Reason.MODEL_CHANGED, f"{uri} changed while it was read; write new versions to a new name, not over the old"
    )


def not_found(uri: str, detail: str) -> ModelError:
    return ModelError(Reason.MODEL_NOT_FOUND, f"there is no model at {uri}: {detail}; correct spec.model.uri")


def access_denied(
    uri: str, detail: str, way_out: str = "check the Secret named by spec.model.secretName"
) -> ModelError:
    return ModelError(Reason.ACCESS_DENIED, f"reading {uri} is not allowed: {detail}; {way_out}")


def damaged(uri: str, promised: str, found: str) -> ModelError:
    return ModelError(
        Reason.CHECKSUM_MISMATCH,
        f"{uri} is stored as {promised}, but what arrived is {found}: damaged there, or on the way; upload it again",
    )
