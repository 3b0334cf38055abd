"""Which files, of which bytes, is a model that is a folder? One digest says it all, and the files are held against it.

The manifest of a folder is a line of canonical JSON: `{"files":[{"path":"config.json","sha256":"…","size":612},…]}`,
in the order of the paths' bytes, without spaces, in UTF-8. Its sha256 is the model's digest: the same files under the
same names have the same one, wherever they lie. It is pinned; the manifest is made anew whenever the folder is read,
because a termination message has no room for one.

A digest cannot say which file is another one. Therefore 24 bits of each file's own hash are kept beside it, for folders
of up to `NAMED` files: enough to name what changed, and no more is concluded from them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError

FILES = 1000
TOTAL_BYTES = 1 << 44
"""16 TiB: what says it is larger is a mistake or a trap."""
NAMED = 128
_PATH_BYTES = 1024
_MARK = 4
"""Characters of a file's mark: base64 of 24 bits."""


@dataclass(frozen=True, slots=True)
class Row:
    """One file: where it is in the folder, and its bytes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """`rows` in the order of their paths' bytes."""

    rows: tuple[Row, ...]

    @staticmethod
    def of(rows: Iterable[Row]) -> Manifest:
        return Manifest(tuple(sorted(rows, key=lambda row: row.path.encode())))

    @cached_property
    def text(self) -> bytes:
        """The canonical JSON."""
        files = [{"path": row.path, "sha256": row.sha256, "size": row.size} for row in self.rows]
        return json.dumps({"files": files}, separators=(",", ":"), ensure_ascii=False).encode()

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.text).hexdigest()

    @property
    def size_bytes(self) -> int:
        return sum(row.size for row in self.rows)

    @property
    def marks(self) -> str:
        """A few bits of each file, one after another; nothing where there are more than `NAMED` files."""
        return "".join(map(_mark, self.rows)) if len(self.rows) <= NAMED else ""

    def against(self, marks: str) -> str:
        """Return in words how the files differ from those that the marks were made of."""
        if not marks:
            return "some of its files are other ones"
        known = {marks[at : at + _MARK] for at in range(0, len(marks), _MARK)}
        other = [row.path for row in self.rows if _mark(row) not in known]
        if other:
            more = f" and {len(other) - 3} more" if len(other) > 3 else ""
            return f"{', '.join(other[:3])}{more} changed or came to it"
        return f"{len(marks) // _MARK - len(self.rows)} of its files are gone"


def require_sound(uri: str, paths: Iterable[str]) -> None:
    """Raise where paths lead out of the folder, cannot be files beside each other, or are too many."""
    seen: set[str] = set()
    for count, path in enumerate(paths, 1):
        if count > FILES:
            raise _invalid(uri, f"has more than {FILES} files; put the model into a folder of its own")
        parts = path.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\\" in path or not path.isprintable():
            raise _invalid(uri, f"has a file whose path leads elsewhere or cannot be written: {path[:200]!r}")
        if len(path.encode()) > _PATH_BYTES or any(len(part.encode()) > 255 for part in parts):
            raise _invalid(uri, f"has a file with a path that is too long: {path[:100]!r}…")
        if path in seen:
            raise _invalid(uri, f"has two files called {path!r}")
        seen.add(path)
    for path in seen:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            if (folder := "/".join(parts[:depth])) in seen:
                raise _invalid(uri, f"has {folder!r} both as a file and as a folder")


def _mark(row: Row) -> str:
    digest = hashlib.sha256(f"{row.path}\0{row.sha256}".encode()).digest()
    return base64.urlsafe_b64encode(digest[:3]).decode()


def _invalid(uri: str, why: str) -> ModelError:
    return ModelError(Reason.INVALID, f"the folder {uri} {why}")
