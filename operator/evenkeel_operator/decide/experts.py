"""Which signal and which holding time should each replica level follow?

Level k is the k-th replica beyond the first, or the k-th group of them (`sizes`). It is wanted while some signal of
demand exceeds what the levels below carry, and for a holding time after that. Which signal and which time is best
differs tenfold between workloads and between the levels of one workload: the base load needs no margin, the peaks need
a fast one. As arrivals do not depend on the size, every pair (an expert) can be replayed beside what really happened:
what it would have cost in replica seconds, and how many requests would have found the level not ready. Each level
follows the expert that would have been best for it over the last hours; its neighbours' losses count as well, as
evidence is thin at the top.

Events only: an expert costs work when its signal crosses a level, not while it stays on one side. Losses fade with a
half-life; contributions grow by a weight instead, so that nothing has to be multiplied down at every step.
"""

from __future__ import annotations

import functools
import math
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

HOLDS_S = (0.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 2400.0, 4800.0, 9600.0, 86400.0)
DEFAULT_HOLD_S = 600.0
HEADROOMS = (1.05, 1.15, 1.3, 1.5, 2.0, 3.0)
MARGIN = 1.05
"""Headroom of the signals that foresee."""

PERIODS_S = (240.0, 300.0, 600.0, 3600.0, 86400.0)
SIGNALS = (*(f"rate × {h}" for h in HEADROOMS), "slope", *(f"period {p:.0f} s" for p in PERIODS_S))
SLOPE = len(HEADROOMS)

MAX_LEVELS = 48
"""Beyond that many replicas a level may be a group of them (`sizes`): memory and work stay bounded."""

LOOKS = 12
"""Levels that requests have missed look for another expert at once, so many of them at a time."""

_HOLDS = len(HOLDS_S)
COUNT = len(SIGNALS) * _HOLDS
_DEFAULT = SLOPE * _HOLDS + HOLDS_S.index(DEFAULT_HOLD_S)
_NEVER = -math.inf


@dataclass(frozen=True, slots=True)
class Tuning:
    """`price` is what one second of one level's requests that find it missing costs, in seconds of the level.

    `neighbours` and `others` are the weights of the adjacent and of all other levels' losses; a level changes its
    expert where another's score is below `switch` times that of the present one.
    """

    price: float = 60.0
    half_life_s: float = 21600.0
    neighbours: float = 2.0
    others: float = 0.02
    switch: float = 0.93


TUNING = Tuning()


@functools.lru_cache(maxsize=1024)
def sizes(most: int) -> tuple[int, ...]:
    """Return how many replicas there are without any level, with the first of them, and so on up to `most` with all.

    A level is one replica where MAX_LEVELS are enough. Otherwise the upper ones grow with the size below them: nobody
    gets more than 13 % beyond what is needed, up to the 1000 that the API takes. Counter-example to groups that
    are all alike: who needs 1.1 replicas and may have 300 would get 8.
    """
    found = [1]
    for left in range(min(most - 1, MAX_LEVELS), 0, -1):
        size = found[-1]
        found.append(max(size + 1, round(size * (most / size) ** (1.0 / left))))
    return tuple(found)


class Kept(NamedTuple):
    """What is worth keeping of a level: when its expert's signal last wanted it, -1 if never; its expert; all losses.

    `ago` is in seconds, and so are the losses, one for each of COUNT experts.
    """

    ago: float
    chosen: int
    losses: list[float]


class Level:
    """The experts of one level. Lists are indexed by signal, arrays by signal × hold.

    `settled` is the loss without the present spell of each: that is added when it is looked at. They are arrays, as
    there are 48 levels of a thousand ModelDeployments: as lists of floats they take three times as much memory.
    """

    __slots__ = ("chosen", "ended", "onset", "row", "settled", "since")

    def __init__(self) -> None:
        self.chosen = _DEFAULT
        self.since = [_NEVER] * len(SIGNALS)
        self.ended = [_NEVER] * len(SIGNALS)
        self.onset = array("d", [_NEVER]) * COUNT
        self.settled = array("d", [0.0]) * COUNT
        self.row = array("d", [0.0]) * COUNT

    def is_on(self, now: float) -> bool:
        """Return whether the chosen expert wants this level."""
        signal, hold = divmod(self.chosen, _HOLDS)
        return self.since[signal] != _NEVER or now - self.ended[signal] <= HOLDS_S[hold]

    def first_ready(self, signal: int, now: float, cold_start_s: float) -> int:
        """Return the shortest hold with which `signal` would have the level ready now; _HOLDS where none would.

        Longer holds are on earlier, so those that are ready are the last ones.
        """
        hold = 0 if self.since[signal] != _NEVER else bisect_left(HOLDS_S, now - self.ended[signal])
        onset, begin, latest = self.onset, signal * _HOLDS, now - cold_start_s
        while hold < _HOLDS and onset[begin + hold] > latest:
            hold += 1
        return hold


class Experts:
    """The levels above the first, each with its experts. `now` is a clock that only runs forward."""

    __slots__ = (
        "_area_per_weight",
        "_counts",
        "_factors",
        "_missed",
        "_total",
        "_turn",
        "_weight_at",
        "levels",
        "tuning",
    )

    def __init__(self, levels: int, tuning: Tuning = TUNING) -> None:
        self.tuning = tuning
        self.levels = [Level() for _ in range(levels)]
        self._counts = [0] * len(SIGNALS)
        self._total = [0.0] * COUNT
        self._missed: set[int] = set()
        self._turn = 0
        self._weight_at = 0.0
        self._area_per_weight = tuning.half_life_s / math.log(2)
        self._factors = [2.0 ** (seconds / tuning.half_life_s) for seconds in HOLDS_S]

    def resize(self, levels: int) -> None:
        """Have `levels` levels: new ones start with the experts of the highest before."""
        while len(self.levels) < levels:
            level = Level()
            if self.levels:
                level.chosen = self.levels[-1].chosen
            self.levels.append(level)
        if len(self.levels) > levels:
            for level in self.levels[levels:]:
                self._total = [t - x for t, x in zip(self._total, level.row, strict=True)]
            del self.levels[levels:]
            self._missed = {index for index in self._missed if index < levels}
            self._counts = [min(c, levels) for c in self._counts]

    def kept(self, now: float) -> list[Kept]:
        """Return what is worth keeping of each level."""
        found: list[Kept] = []
        self._bound_weights(now)
        weight = self._weight(now)
        for level in self.levels:
            self._refresh(level, now)
            signal = level.chosen // _HOLDS
            last = now if level.since[signal] != _NEVER else level.ended[signal]
            ago = round(now - last) if last != _NEVER else -1
            found.append(Kept(ago, level.chosen, [loss / weight for loss in level.row]))
        return found

    @classmethod
    def of(cls, kept: Sequence[Kept], now: float, tuning: Tuning = TUNING) -> Experts:
        """Return experts with what was `kept`, as if it had been kept now."""
        experts = cls(len(kept), tuning)
        experts._weight_at = now
        for level, (ago, chosen, losses) in zip(experts.levels, kept, strict=True):
            if not 0 <= chosen < COUNT:
                raise ValueError(f"there is no expert {chosen}")
            level.chosen = int(chosen)
            level.settled = array("d", losses)
            if ago >= 0:
                ended = now - float(ago)
                level.ended = [ended] * len(SIGNALS)
                level.onset = array("d", [ended - HOLDS_S[-1]]) * COUNT
                # The losses include the holding time since then, which `_refresh` adds again.
                held = experts._held(ended, now) * len(SIGNALS)
                level.settled = array("d", [x - y for x, y in zip(losses, held, strict=True)])
            # All at once: whoever chooses looks at the neighbours' losses, too.
            experts._refresh(level, now)
        return experts

    def observe(
        self,
        signals: Sequence[float],
        arrived: float,
        rate: float,
        thresholds: Sequence[float],
        bands: Sequence[float],
        cold_start_s: float,
        now: float,
        seen_s: float = math.inf,
    ) -> None:
        """Take in the `signals` of demand at `now`, which have been seen for `seen_s` without a gap.

        Level i is wanted by a signal above `thresholds[i]`, and until it is its band below that; it carries what is
        between that threshold and the next, so there is one more of them than of levels. `arrived` requests came since
        the last time, at `rate`. What is missing within the time of a start after a gap is no expert's fault: nobody
        saw which of them would have wanted it in time.
        """
        self._bound_weights(now)
        for signal, value in enumerate(signals):
            count = self._counts[signal]
            wanted = bisect_left(thresholds, value, 0, len(self.levels))
            if wanted > count:
                for index in range(count, wanted):
                    self._rise(self.levels[index], signal, now)
                self._counts[signal] = wanted
            elif wanted < count:
                kept = max(wanted, min(count, bisect_left(thresholds, value + bands[signal], 0, len(self.levels))))
                for index in range(kept, count):
                    self._fall(self.levels[index], signal, now)
                self._counts[signal] = kept
        if seen_s < cold_start_s:
            return
        price = self.tuning.price * arrived * self._weight(now)
        ready_since = now - cold_start_s
        for index in range(bisect_left(thresholds, rate, 0, len(self.levels))):
            level, miss = self.levels[index], price / (thresholds[index + 1] - thresholds[index])
            for signal, since in enumerate(level.since):
                # `since` alone decides in the common case: above for longer than a start takes.
                if not _NEVER < since <= ready_since:
                    late = level.first_ready(signal, now, cold_start_s)
                    if late:
                        for expert in range(signal * _HOLDS, signal * _HOLDS + late):
                            level.settled[expert] += miss
                        self._missed.add(index)

    def excuse(self, began: float, now: float) -> None:
        """Charge nobody for the time from `began` until `now`, in which no signal was seen.

        Counter-example: experts without a hold would be off all that time and look cheap.
        """
        self._bound_weights(now)
        for level in self.levels:
            free = [x - y for x, y in zip(self._losses(level, now), self._losses(level, began), strict=True)]
            level.settled = array("d", [loss - x for loss, x in zip(level.settled, free, strict=True)])

    def wanted(self, now: float) -> int:
        """Return how many levels are wanted: the highest that is on, with all below it."""
        for index in range(len(self.levels) - 1, -1, -1):
            if self.levels[index].is_on(now):
                return index + 1
        return 0

    def choose(self, now: float, parts: int = 24) -> None:
        """Let levels look for their best experts: every `parts`-th by turns, and LOOKS of those that were missed.

        What a replica costs adds up slowly, and in `parts` calls each level has looked; a missing one costs at once.
        """
        turn = range(self._turn, len(self.levels), parts)
        missed = sorted(self._missed.difference(turn))[:LOOKS]
        for index in (*turn, *missed):
            self._refresh(self.levels[index], now)
            self._choose(index)
        self._missed.difference_update(turn, missed)
        self._turn = (self._turn + 1) % parts

    def _choose(self, index: int) -> None:
        level, tuning = self.levels[index], self.tuning
        below = self.levels[index - 1].row if index else None
        above = self.levels[index + 1].row if index + 1 < len(self.levels) else None
        others, near = tuning.others, tuning.neighbours
        share = 1.0 - others
        beside = [row for row in (below, above) if row is not None]
        if len(beside) == 2:
            scores = [
                share * own + others * total + near * (x + y)
                for own, total, x, y in zip(level.row, self._total, *beside, strict=True)
            ]
        else:
            scores = [share * own + others * total for own, total in zip(level.row, self._total, strict=True)]
            for row in beside:
                scores = [score + near * x for score, x in zip(scores, row, strict=True)]
        best = min(scores)
        if best < tuning.switch * scores[level.chosen]:
            level.chosen = scores.index(best)

    def _refresh(self, level: Level, now: float) -> None:
        row = self._losses(level, now)
        self._total = [t + new - old for t, new, old in zip(self._total, row, level.row, strict=True)]
        level.row = array("d", row)

    def _losses(self, level: Level, now: float) -> list[float]:
        row: list[float] = []
        until_now = self._area(now)
        for signal, (since, ended) in enumerate(zip(level.since, level.ended, strict=True)):
            settled = level.settled[signal * _HOLDS : (signal + 1) * _HOLDS]
            if since != _NEVER:
                spell = until_now - self._area(since)
                row += [loss + spell for loss in settled]
            elif ended != _NEVER:
                row += [loss + held for loss, held in zip(settled, self._held(ended, now), strict=True)]
            else:
                row += settled
        return row

    def _rise(self, level: Level, signal: int, now: float) -> None:
        ended, begin = level.ended[signal], signal * _HOLDS
        level.since[signal] = now
        over = _HOLDS
        if ended != _NEVER:
            self._settle(level, signal, self._held(ended, now))
            over = bisect_left(HOLDS_S, now - ended)
        level.onset[begin : begin + over] = array("d", [now]) * over

    def _fall(self, level: Level, signal: int, now: float) -> None:
        self._settle(level, signal, [self._area(now) - self._area(level.since[signal])] * _HOLDS)
        level.since[signal] = _NEVER
        level.ended[signal] = now

    @staticmethod
    def _settle(level: Level, signal: int, losses: Sequence[float]) -> None:
        """Add what each hold of a signal has lost."""
        own = slice(signal * _HOLDS, (signal + 1) * _HOLDS)
        level.settled[own] = array("d", [x + y for x, y in zip(level.settled[own], losses, strict=True)])

    def _held(self, ended: float, now: float) -> list[float]:
        """Return for each hold what it has cost from `ended` until now."""
        at_end = self._area(ended)
        over = bisect_left(HOLDS_S, now - ended)
        until_now = self._area(now) - at_end
        return [at_end * factor - at_end for factor in self._factors[:over]] + [until_now] * (_HOLDS - over)

    def _weight(self, now: float) -> float:
        return float(2.0 ** ((now - self._weight_at) / self.tuning.half_life_s))

    def _area(self, now: float) -> float:
        """Return the integral of the weight until `now`, less a constant."""
        return self._weight(now) * self._area_per_weight

    def _bound_weights(self, now: float) -> None:
        """Keep weights in the range of a float, however long ago they were last looked at."""
        if now - self._weight_at > 20 * self.tuning.half_life_s:
            self._fade(now)

    def _fade(self, now: float) -> None:
        factor = 2.0 ** ((self._weight_at - now) / self.tuning.half_life_s)
        self._weight_at = now
        for level in self.levels:
            level.settled = array("d", [x * factor for x in level.settled])
            level.row = array("d", [x * factor for x in level.row])
        self._total = [x * factor for x in self._total]
