"""Which names of classes are at hand, so that a label need not ask the store for them?

The store has the names of every revision; here are those that were used last, as many as fit. Bounded twice: by how
many revisions there are, and by what their names weigh, for one model may have ten classes and the next 65535.
"""

from __future__ import annotations

import sys
from collections import OrderedDict

MOST_REVISIONS = 10_000
MOST_BYTES = 64 << 20

Of = tuple[bytes, str]
"""Whose names: subject and revision."""


class Names:
    """What is forgotten is what was not used for longest. Used by one thread."""

    def __init__(self, most_revisions: int = MOST_REVISIONS, most_bytes: int = MOST_BYTES) -> None:
        self._most_revisions = most_revisions
        self._most_bytes = most_bytes
        self._kept: OrderedDict[Of, tuple[str, ...]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        """How many revisions' names are at hand."""
        return len(self._kept)

    def get(self, of: Of) -> tuple[str, ...]:
        """Return a revision's names, empty where they are not at hand."""
        if of not in self._kept:
            return ()
        self._kept.move_to_end(of)
        return self._kept[of]

    def put(self, of: Of, names: tuple[str, ...]) -> None:
        """Keep a revision's names: for as long as they fit, which need not be at all."""
        self._bytes += _weight(names) - _weight(self._kept.pop(of, ()))
        self._kept[of] = names
        while len(self._kept) > self._most_revisions or self._bytes > self._most_bytes:
            self._bytes -= _weight(self._kept.popitem(last=False)[1])


def _weight(names: tuple[str, ...]) -> int:
    return sum(map(sys.getsizeof, names))
