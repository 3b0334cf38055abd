"""Which users' own ids wait to be told to the feedback service, and which were given up?

A receipt is as long as its request has rows, 44 kB and more, so they are bounded by their bytes too, and told in
pieces that the service takes.
"""

from __future__ import annotations

from collections import deque

KEPT = 20_000
KEPT_BYTES = 32 << 20
"""Ids that wait, with their receipts; beyond either the oldest are dropped and counted."""

Id = tuple[str, str]
"""A user's own id, and the receipt that it stands for."""


class Ids:
    """The ids that are not told yet."""

    def __init__(self) -> None:
        self._kept: deque[Id] = deque()
        self._bytes = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, name: str, receipt: str) -> None:
        self._kept.append((name, receipt))
        self._bytes += len(name) + len(receipt)
        while len(self._kept) > KEPT or self._bytes > KEPT_BYTES:
            self._forget()
            self.dropped += 1

    def first(self, count: int, size: int) -> list[Id]:
        """Return the oldest: up to `count`, of up to `size` bytes in all, but one at least where there is one."""
        found: list[Id] = []
        for one in self._kept:
            size -= len(one[0]) + len(one[1])
            if found and (size < 0 or len(found) >= count):
                break
            found.append(one)
        return found

    def told(self, ids: list[Id]) -> None:
        """Forget ids that `first` has returned, if they were not dropped meanwhile."""
        known = set(ids)
        while self._kept and self._kept[0] in known:
            self._forget()

    def refused(self, ids: list[Id]) -> None:
        """Give up ids that `first` has returned."""
        before = len(self._kept)
        self.told(ids)
        self.dropped += before - len(self._kept)

    def _forget(self) -> None:
        name, receipt = self._kept.popleft()
        self._bytes -= len(name) + len(receipt)
