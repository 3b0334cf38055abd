"""By which names is an engine of ours known on the machine?

Every cache has an engine of its own, and everything it leaves outside the cache carries the cache's mark: two
of them never meet, and what a killed one left is recognised without asking it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Footprint:
    cache: Path

    @property
    def _digest(self) -> bytes:
        return hashlib.sha256(str(self.cache).encode()).digest()

    @property
    def mark(self) -> str:
        return self._digest.hex()[:8]

    @property
    def run_folder(self) -> Path:
        """Short, whatever the cache is called: a socket's path may have 107 characters."""
        return Path("/run", f"evenkeel-{self.mark}")

    @property
    def cgroup(self) -> str:
        return f"evenkeel-{self.mark}"

    @property
    def bridge(self) -> str:
        """At most 15 characters."""
        return f"ek-{self.mark}"

    @property
    def subnet(self) -> str:
        """Of the nodes. From the range for benchmarks, which no site network uses; the pods have the rest of it."""
        return f"198.18.{16 + self._digest[-1] % 48}.0/24"
