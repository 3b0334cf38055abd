"""How fast did requests come lately, and how fast at this time in an earlier period?

`Rates` keeps what was measured for a minute as it came, and for a day as the highest 15 s mean of every 15 s, which
is enough to look up "five minutes ago" and "yesterday at this time".
"""

from __future__ import annotations

import base64
import math
from array import array
from collections import deque

SLOT_S = 15.0
SLOTS = 5792
"""A day, and the margin that a look-up may reach beyond it."""

RECENT_S = 65.0

_COARSE = 20
_KEPT = 288
"""What outlives the process: the highest value of every five minutes of a day, to 4 % either way."""

_STEP = math.log(1.07)
_FLOOR = 0.05
"""With 254 steps of 7 % above it, a byte reaches 1.4 million requests, or tokens, per second."""

_SIGMAS = 4.0


class Rates:
    """Arrival rates by time; `clock` is a time that only runs forward, in seconds.

    `first_at` is when something was measured for the first time, by that clock; None where nothing ever was.
    `unseen_since` is when the present gap in what was measured began, None where there is none.
    """

    __slots__ = ("_peaks", "_recent", "_seen_since", "_slot", "clock", "first_at", "unseen_since")

    def __init__(self, first_at: float | None = None) -> None:
        self.clock = 0.0
        self._recent: deque[tuple[float, float, float]] = deque()
        self._peaks = array("d", [0.0]) * SLOTS  # a list of as many floats takes four times as much
        self._slot = 0
        self._seen_since = -math.inf
        self.first_at = first_at
        self.unseen_since: float | None = None

    @property
    def seen_s(self) -> float:
        """For how many seconds nothing has gone by unmeasured; without end where nothing ever has."""
        return 0.0 if self.unseen_since is not None else self.clock - self._seen_since

    @property
    def known_s(self) -> float:
        """How many seconds ago something was measured for the first time, gaps included; 0 where nothing ever was."""
        return 0.0 if self.first_at is None else self.clock - self.first_at

    def observe(self, rate: float, span_s: float, elapsed_s: float) -> None:
        """Take in the mean `rate` of the last `span_s` seconds; `elapsed_s` have passed since the last call."""
        self._advance(elapsed_s)
        if self.first_at is None:
            self.first_at = self.clock
        if self.unseen_since is not None:
            self.unseen_since, self._seen_since = None, self.clock
        if not self._recent and span_s < RECENT_S:
            # Nothing older is known: the first measurement stands for the time before it.
            self._recent.append((self.clock - RECENT_S, self.clock - span_s, rate))
        self._recent.append((self.clock - span_s, self.clock, rate))
        while len(self._recent) > 1 and self._recent[0][1] <= self.clock - RECENT_S:
            self._recent.popleft()
        slot = self._slot % SLOTS
        self._peaks[slot] = max(self._peaks[slot], self.mean(SLOT_S))

    def pass_over(self, elapsed_s: float) -> None:
        """Let time pass in which nothing was measured."""
        if self.unseen_since is None:
            self.unseen_since = self.clock
        self._advance(elapsed_s)

    def _advance(self, elapsed_s: float) -> None:
        self.clock += elapsed_s
        last = int(self.clock // SLOT_S)
        for slot in range(max(self._slot + 1, last - SLOTS + 1), last + 1):
            self._peaks[slot % SLOTS] = 0.0
        self._slot = last

    def mean(self, over_s: float) -> float:
        """Return the mean rate of what was measured in the last `over_s` seconds; 0 where nothing was."""
        requests, seconds = self._seen(over_s, 0.0)
        return requests / seconds if seconds > 0.0 else 0.0

    def rise(self, over_s: float, dispersion: float = 1.0) -> float:
        """Return by how much the rate of the last `over_s` seconds exceeds that of as many seconds before.

        0 where the difference is within _SIGMAS standard deviations of the noise of arrivals with this `dispersion`
        (variance of a second over its mean), or where one of them is not
        known. Counter-example: after a minute without measurements, the same rate as ever is no rise from zero.
        """
        requests, seconds = self._seen(over_s, 0.0)
        earlier, earlier_s = self._seen(over_s, over_s)
        if seconds <= 0.0 or earlier_s <= 0.0:
            return 0.0
        recent, before = requests / seconds, earlier / earlier_s
        rise = recent - before
        return rise if rise > _SIGMAS * math.sqrt(dispersion * (recent / seconds + before / earlier_s)) else 0.0

    def _seen(self, over_s: float, until_s: float) -> tuple[float, float]:
        """Return the requests, and the seconds measured, of the `over_s` seconds that ended `until_s` seconds ago."""
        end = self.clock - until_s
        begin = end - over_s
        total = covered = 0.0
        for start, stop, rate in reversed(self._recent):
            if stop <= begin:
                break
            part = min(stop, end) - max(start, begin)
            if part > 0.0:
                total += part * rate
                covered += part
        return total, covered

    def peak(self, from_ago_s: float, to_ago_s: float) -> float:
        """Return the highest 15 s mean between `from_ago_s` and the later `to_ago_s` seconds ago; 0 where none is
        known."""
        first = max(0, int((self.clock - from_ago_s) // SLOT_S), self._slot - SLOTS + 1)
        last = min(self._slot, int((self.clock - to_ago_s) // SLOT_S))
        if last < first:
            return 0.0
        begin, end = first % SLOTS, last % SLOTS + 1
        if begin < end:
            return max(self._peaks[begin:end])
        return max(max(self._peaks[begin:]), max(self._peaks[:end]))

    def to_text(self) -> str:
        """Return the day in 384 characters: a byte for every five minutes, logarithmic in steps of 7 %."""
        first = self._slot - _KEPT * _COARSE + 1
        kept = bytearray()
        for index in range(_KEPT):
            slots = range(max(0, first + index * _COARSE), first + (index + 1) * _COARSE)
            kept.append(_byte(max((self._peaks[s % SLOTS] for s in slots), default=0.0)))
        return base64.b64encode(kept).decode()

    @classmethod
    def from_text(cls, text: str, known_s: float = math.inf) -> Rates:
        """Return what `to_text` wrote, as if it had been written now, `known_s` after the first measurement.

        Raises ValueError for anything else.
        """
        kept = base64.b64decode(text, validate=True)
        if len(kept) != _KEPT:
            raise ValueError(f"a day of rates has {_KEPT} values, not {len(kept)}")
        until = _KEPT * _COARSE * SLOT_S
        rates = cls(until - known_s if known_s > 0.0 else None)
        rates._advance(until)
        rates.unseen_since = rates.clock
        first = rates._slot - _KEPT * _COARSE + 1
        for index, value in enumerate(kept):
            for slot in range(first + index * _COARSE, first + (index + 1) * _COARSE):
                rates._peaks[slot % SLOTS] = _rate(value)
        return rates


def _byte(rate: float) -> int:
    return 0 if rate <= _FLOOR else min(255, 1 + round(math.log(rate / _FLOOR) / _STEP))


def _rate(byte: int) -> float:
    return 0.0 if byte == 0 else _FLOOR * math.exp((byte - 1) * _STEP)
