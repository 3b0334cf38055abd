"""How is a file or a folder read that is already mounted: a PersistentVolumeClaim's, or one on a laptop?"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.source import (
    CHUNK_BYTES,
    Chunk,
    Entry,
    Interrupted,
    NoFile,
    Opened,
    access_denied,
    changed,
    not_found,
)

_DEPTH = 16
INTO_BYTES = 8 << 20
"""Read into memory at once: between two chunks the GIL is waited for, which the import of torch has meanwhile."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file below `root`; symbolic links may not lead out of it (another claim's, or the container's own files).

    `room` returns, for the file's size, the memory that it is to be read into; `mapping`, for its descriptor and its
    size, the file as memory. Chunks are then views of that.
    """

    uri: str
    root: Path
    relative: str
    room: Callable[[int], memoryview] | None = None
    mapping: Callable[[int, int], memoryview] | None = None

    @property
    def file(self) -> str:
        return Path(self.relative).name

    @property
    def path(self) -> Path:
        return self.root / self.relative

    def open(self, start: int, stop: int | None, version: str | None) -> Opened:
        try:
            found = _within(self.uri, self.root, self.path)
            if found.is_dir():
                raise NoFile(self.uri)
            stream = found.open("rb", buffering=0)
        except PermissionError as error:
            raise access_denied(self.uri, f"{error.strerror} (the runtime runs as user {os.getuid()})") from error
        except (FileNotFoundError, NotADirectoryError) as error:
            raise not_found(self.uri, _siblings(self.path)) from error
        except OSError as error:
            raise Interrupted(str(error)) from error
        status = os.fstat(stream.fileno())
        stamp = f"{status.st_ino}:{status.st_mtime_ns}:{status.st_size}"
        if version is not None and stamp != version:
            stream.close()
            raise changed(self.uri)
        chunks: Iterator[Chunk]
        if stop is None and self.mapping is not None:
            chunks = iter((self.mapping(stream.fileno(), status.st_size)[start:],))
        elif stop is None and self.room is not None:
            chunks = _read_into(self.room(status.st_size), stream, start)
        else:
            chunks = _read(stream, start, stop)
        return Opened(status.st_size, stamp, chunks, stream.close)


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """A folder below `root`. A symbolic link may lead to it, none may lie in it: what it means can change alone."""

    uri: str
    root: Path
    relative: str
    most: int

    @property
    def file(self) -> str:
        return Path(self.relative).name

    def entries(self) -> list[Entry]:
        """Return the files; once there are more than `most`, the rest is not looked for."""
        start = self.root / self.relative
        try:
            if not _within(self.uri, self.root, start).is_dir():
                return []
            return [
                Entry(path, LocalFile(f"{self.uri.rstrip('/')}/{path}", self.root, f"{self.relative}/{path}"))
                for path in itertools.islice(self._below(start, ""), self.most + 1)
            ]
        except PermissionError as error:
            raise access_denied(
                self.uri, f"{error.filename}: {error.strerror} (the runtime runs as user {os.getuid()})"
            ) from error
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise Interrupted(str(error)) from error

    def _below(self, folder: Path, prefix: str, depth: int = 0) -> Iterator[str]:
        if depth > _DEPTH:
            raise ModelError(Reason.INVALID, f"{self.uri} has folders within each other, more than {_DEPTH} deep")
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path, mode = f"{prefix}{entry.name}", entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                yield from self._below(folder / entry.name, f"{path}/", depth + 1)
            elif stat.S_ISREG(mode):
                yield path
            else:
                raise ModelError(
                    Reason.INVALID,
                    f"{self.uri.rstrip('/')}/{path} is a symbolic link or a special file; put the files themselves "
                    "there (cp -rL follows links)",
                )


def _within(uri: str, root: Path, path: Path) -> Path:
    """Return where a path leads, which has to be below `root`."""
    found = path.resolve(strict=True)
    if not found.is_relative_to(root.resolve()):
        raise ModelError(Reason.INVALID, f"{uri} leads out of its volume, to {found}")
    return found


def _read(stream: FileIO, start: int, stop: int | None) -> Iterator[bytes]:
    left = (1 << 62) if stop is None else stop - start
    try:
        stream.seek(start)
        while left > 0 and (chunk := stream.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk
    except OSError as error:  # a network volume that went away
        raise Interrupted(str(error)) from error


def _read_into(room: memoryview, stream: FileIO, start: int) -> Iterator[Chunk]:
    try:
        stream.seek(start)
        while count := stream.readinto(room[start : start + INTO_BYTES]):
            yield room[start : start + count]
            start += count
        if start == len(room) and (more := stream.read(1)):
            yield more  # it has grown, and who counts will see it
    except OSError as error:  # as above
        raise Interrupted(str(error)) from error


def _siblings(path: Path) -> str:
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return f"there is no directory {path.parent.name!r} on the volume"
    return f"the directory holds {', '.join(names[:5]) or 'nothing'}{', …' if len(names) > 5 else ''}"
