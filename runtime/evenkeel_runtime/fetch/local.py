"""How is a file read that is already mounted: a PersistentVolumeClaim's, or one on a laptop?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.source import CHUNK_BYTES, Interrupted, Opened, access_denied, changed, not_found


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file below `root`; symbolic links may not lead out of it (another claim's, or the container's own files)."""

    uri: str
    root: Path
    relative: str

    @property
    def file(self) -> str:
        return Path(self.relative).name

    @property
    def path(self) -> Path:
        return self.root / self.relative

    def open(self, start: int, stop: int | None, version: str | None) -> Opened:
        try:
            found = self.path.resolve(strict=True)
            if not found.is_relative_to(self.root.resolve()):
                raise ModelError(Reason.INVALID, f"{self.uri} leads out of its volume, to {found}")
            if found.is_dir():
                raise ModelError(
                    Reason.INVALID,
                    f"{self.uri} is a directory; name the model's file, for example {self.uri}/model.pt2",
                )
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
        return Opened(status.st_size, stamp, _read(stream, start, stop), stream.close)


def _read(stream: FileIO, start: int, stop: int | None) -> Iterator[bytes]:
    left = (1 << 62) if stop is None else stop - start
    try:
        stream.seek(start)
        while left > 0 and (chunk := stream.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk
    except OSError as error:  # a network volume that went away
        raise Interrupted(str(error)) from error


def _siblings(path: Path) -> str:
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return f"there is no directory {path.parent.name!r} on the volume"
    return f"the directory holds {', '.join(names[:5]) or 'nothing'}{', …' if len(names) > 5 else ''}"
