"""Which requests does one replica run together, and when are they answered? The discrete-event model of a replica.

The batches are those of the runtime's own policy (evenkeel_runtime/engine/batching.py), found from running sums instead
of one queue operation per request, since a capacity asks for some twenty runs of 20,000 requests. A test holds them to
the runtime's queue, batch by batch, so that a change of the policy has to be made here too.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapreplace
from itertools import accumulate

Run = tuple[int, int, float]
"""Requests `first` to `stop` − 1 share a batch, whose answers are there at `end`."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Requests in the order in which they come: `at`, in mean gaps between two, and how many rows came before each.

    `rows_before` has one entry more than `at`: all rows.
    """

    at: Sequence[float]
    rows_before: Sequence[int]

    @classmethod
    def of(cls, gaps: Sequence[float], rows: Sequence[int] | None = None) -> Arrivals:
        """Return the arrivals with these gaps; each has one row, or as many as `rows` says."""
        before = range(len(gaps) + 1) if rows is None else list(accumulate(rows, initial=0))
        assert len(before) == len(gaps) + 1, "as many requests as gaps"
        return cls(list(accumulate(gaps)), before)

    @property
    def mean_rows(self) -> float:
        """Rows of a request."""
        return self.rows_before[-1] / len(self.at)


def batches(
    arrivals: Arrivals, seconds: Mapping[int, float] | Sequence[float], max_rows: int, engines: int = 1
) -> Iterator[Run]:
    """Yield the batches of one replica that is free at first; `seconds[b]` is how long one of b rows takes.

    Times are in the unit of `arrivals.at`. An engine that is free takes what has come before that moment, oldest
    first, in whole requests up to `max_rows`; a larger request runs alone, and whoever finds it idle starts at once.
    The engine that is free first has the next batch.
    """
    at, before = arrivals.at, arrivals.rows_before
    first, count, free = 0, len(at), [0.0] * engines  # a heap
    while first < count:
        start = free[0] if free[0] > at[first] else at[first]
        most = first + max_rows
        stop = bisect_left(at, start, first + 1, most if most < count else count)
        rows = before[stop] - before[first]
        if rows > max_rows:
            stop = max(first + 1, bisect_right(before, before[first] + max_rows, first, stop) - 1)
            rows = before[stop] - before[first]
        end = start + seconds[rows]
        heapreplace(free, end)
        yield first, stop, end
        first = stop


def is_met(runs: Iterator[Run], at: Sequence[float], target: float, quantile: float, left_out: int) -> bool:
    """Return whether `quantile` of the requests, but the first `left_out`, are answered within `target`.

    It looks no further than to the first request that is late for good.
    """
    counted = len(at) - left_out
    spare = counted - min(counted, math.ceil(quantile * counted))
    for first, stop, end in runs:
        if end - at[first] > target:
            late_until = bisect_left(at, end - target, first, stop)
            spare -= max(0, late_until - max(first, left_out))
            if spare < 0:
                return False
    return True
