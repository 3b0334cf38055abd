"""When may a model's bytes stay where `fetch` wrote them, in the page cache, and not be copied into memory?

Where nobody writes the file any more: what was hashed has to be what is parsed, and what every forward reads later.
That is so in the volume that `fetch` alone wrote to, for this pod. A claim's file is written over by other pods, one on
a laptop by the next training: those are copied (`transfer.Memory`).

And where the container may have so much memory beside all else. The kernel drops pages of a file and reads them again,
but no others: with a limit just below what a model needs, every forward would read from the disk, and nothing would
say so. A copy ends there with OOMKilled.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from evenkeel_runtime.fetch.source import Chunk

_CGROUP = Path("/sys/fs/cgroup")
_BESIDE_BYTES = 1 << 30
"""What a replica has beside its weights, at most: torch, a batch's activations, and the bodies of requests."""


class Mapped:
    """A file as memory. Who writes to it writes to a page of its own."""

    def __init__(self) -> None:
        self.buffer: mmap.mmap | bytearray = bytearray()

    def of(self, file: int, size: int) -> memoryview:
        """Return the open file of that size as memory, and let what of it is not in the page cache be read ahead."""
        if size and len(self.buffer) != size:
            os.posix_fadvise(file, 0, size, os.POSIX_FADV_WILLNEED)
            self.buffer = mmap.mmap(file, size, access=mmap.ACCESS_COPY)
        return memoryview(self.buffer)

    def begin(self, size: int | None) -> None: ...

    def write(self, chunk: Chunk) -> None: ...

    def close(self) -> None: ...


def has_room(size: int, cgroup: Path = _CGROUP) -> bool:
    """Return whether this container may have so many bytes beside all else, by the limit of cgroup v2 or v1."""
    limits = [_limit(cgroup / name) for name in ("memory.max", "memory/memory.limit_in_bytes")]
    return all(size + _BESIDE_BYTES <= limit for limit in limits if limit is not None)


def _limit(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
