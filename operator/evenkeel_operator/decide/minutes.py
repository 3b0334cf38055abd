"""How many minutes of the last hour were above the target?

The hour is one of time. Counter-example to the last sixty minutes with requests: after a night without any, the misses
of the evening before would count as those of the last hour.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

HOUR_S = 3600.0


class Counted(NamedTuple):
    """So many of the last hour's `minutes` with requests `missed` the target."""

    missed: int
    minutes: int


@dataclass(slots=True)
class Minutes:
    """The minutes of the last hour in which requests were answered. `now` is a clock that only runs forward."""

    _ended: deque[tuple[float, bool]] = field(default_factory=deque)

    def note(self, *, is_missed: bool, now: float) -> None:
        """Take in the minute that ends now."""
        self._ended.append((now, is_missed))

    def counted(self, now: float) -> Counted:
        """Return what is to be said of the last hour."""
        while self._ended and self._ended[0][0] <= now - HOUR_S:
            self._ended.popleft()
        return Counted(sum(is_missed for _, is_missed in self._ended), len(self._ended))

    def clear(self) -> None:
        """Forget all of them: they were judged by another target."""
        self._ended.clear()
