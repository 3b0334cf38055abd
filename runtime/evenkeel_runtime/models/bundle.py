"""What do the files of a folder say, read by name and never by way of a path?

What is parsed is what was hashed: the files are open streams, or memory where a model is loaded. No library is given a
folder to look around in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from evenkeel_runtime.failure import ModelError, refused

JSON_BYTES = 64 << 20
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Held:
    """One file: its length, a stream that can seek, and the whole of it where it is in memory."""

    size: int
    stream: IO[bytes]
    view: memoryview | None = None

    def read(self, start: int, count: int) -> bytes:
        self.stream.seek(start)
        return self.stream.read(count)


@dataclass(frozen=True, slots=True)
class Bundle:
    """`files` by their paths in the folder. A file that stands alone is a bundle of one."""

    files: Mapping[str, Held]

    def json(self, name: str) -> Json:
        """Return the object in a file, or refuse the file by name."""
        text = self.text(name)
        try:
            found = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise refused(f"{name} is no JSON ({str(error)[:120]}); save the model again") from error
        if not isinstance(found, dict):
            raise refused(f"{name} is no JSON object; save the model again")
        return found

    def json_if_there(self, name: str) -> Json:
        """Return the object in a file, an empty one where there is no such file."""
        return self.json(name) if name in self.files else {}

    def text(self, name: str) -> bytes:
        """Return a small file's bytes."""
        held = self.files.get(name)
        if held is None:
            raise refused(f"the folder has no {name}; it holds {self.named()}")
        if held.size > JSON_BYTES:
            raise refused(f"{name} has {held.size} bytes, more than the {JSON_BYTES} that such a file may have")
        return held.read(0, held.size)

    def named(self) -> str:
        """Return the first few names."""
        names = sorted(self.files)
        return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no number")


def malformed(name: str, error: Exception) -> ModelError:
    """Return the refusal of a file that has not the shape which its name promises."""
    return refused(
        f"{name} is not what its name says ({type(error).__name__}: {str(error)[:160]}); save the model again"
    )
