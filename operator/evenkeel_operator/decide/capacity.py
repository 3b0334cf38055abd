"""How much can one replica carry with its latency within the target?

How long a batch of b rows takes, S(b), is a roofline, max(s0, a + β b): flat while the device is not full, a line from
there. It is fitted to batch times measured in service. The largest arrival rate at which the wanted quantile still
meets the target follows from a discrete-event model of one replica with the batching policy of the runtime. The
highest throughput says little: with a tight target the variant with the higher maximum can be the infeasible one.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

from evenkeel_operator.decide.batches import Arrivals, batches, is_met
from evenkeel_operator.decide.requests import SINGLE, RequestRows
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal

SURVIVORS = 0.9
"""After a removal the remaining replicas have to meet this part of the target."""

UNATTAINABLE_LOAD = 0.7
"""Where no rate meets the target, more replicas cannot help; they are planned for this part of the throughput."""

LEAST_LOAD = 0.05
ARRIVALS = 20_000
CHANGE_PER_10_MIN = 0.2

FRACTIONS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
"""Of the rate of a replica: at each the latency is foreseen; 0 is next to no load."""

_FIRST = 500
_PARTS = 256
"""A rate is found to this part of the throughput."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """Seconds that a batch of b rows takes: max(`floor_s`, `fixed_s` + `row_s` × b), for b up to `max_rows`. A replica
    runs as many batches at the same time as it has `engines`, each of which takes so long."""

    floor_s: float
    fixed_s: float
    row_s: float
    max_rows: int
    engines: int = 1

    def seconds(self, rows: float) -> float:
        """Return how long a batch of `rows` takes, or batches of so many rows on average."""
        return max(self.floor_s, self.fixed_s + self.row_s * rows)

    @property
    def max_rate(self) -> float:
        """Rows per second of a replica at full batches."""
        return self.engines * self.max_rows / self.seconds(self.max_rows)

    def scaled(self, factor: float) -> Roofline:
        """Return the same device, `factor` times as slow."""
        return replace(self, floor_s=self.floor_s * factor, fixed_s=self.fixed_s * factor, row_s=self.row_s * factor)


class BatchTimes(dict[int, float]):
    """How long a batch takes by its rows, in units of `unit_s`: of those sizes that were asked for.

    Counter-example to all sizes up to the largest: one request of a million rows among small ones, and each look at a
    rate takes seconds, in which the operator does nothing else.
    """

    def __init__(self, roofline: Roofline, unit_s: float = 1.0) -> None:
        super().__init__()
        self._roofline, self._unit_s = roofline, unit_s

    def __missing__(self, rows: int) -> float:
        found = self[rows] = self._roofline.seconds(rows) / self._unit_s
        return found


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one replica carries, in rows per second: requests per second where each has one row.

    `rate` with the quantile within the target; `shrink_rate` with it within SURVIVORS × target; `max_rate` when a
    queue is always there, of whole requests. Where a replica misses the target even next to idle, `is_attainable` is
    false and the rates are UNATTAINABLE_LOAD of the throughput. `foreseen_s` is the quantile at FRACTIONS of `rate`,
    empty where that is not known.
    """

    rate: float
    shrink_rate: float
    max_rate: float
    is_attainable: bool = True
    foreseen_s: tuple[float, ...] = ()

    def derated(self, factor: float) -> Capacity:
        """Return what is left when one replica carries `factor` of what the model says.

        Nothing is taken off a throughput: that latencies are long says nothing of it.
        """
        if factor == 1.0 or not self.is_attainable:
            return self
        return replace(self, rate=self.rate * factor, shrink_rate=self.shrink_rate * factor, foreseen_s=())

    def scaled(self, factor: float) -> Capacity:
        """Return that of a replica `factor` times as slow, held to a target `factor` times as long."""
        return Capacity(
            self.rate / factor,
            self.shrink_rate / factor,
            self.max_rate / factor,
            self.is_attainable,
            tuple(latency_s * factor for latency_s in self.foreseen_s),
        )

    def latency_at(self, load: float) -> float | NoSignal:
        """Return the quantile of the latency that is foreseen at `load` rows per second, up to `rate` of them."""
        if not self.foreseen_s:
            return NO_SIGNAL
        share = min(load / self.rate, 1.0)
        index = min(bisect_right(FRACTIONS, share), len(FRACTIONS) - 1)
        low, high = FRACTIONS[index - 1], FRACTIONS[index]
        below, above = self.foreseen_s[index - 1], self.foreseen_s[index]
        return below + (share - low) / (high - low) * (above - below)


def fit(
    times: Mapping[int, tuple[float, float]] | Mapping[float, tuple[float, float]], max_rows: int
) -> Roofline | NoSignal:
    """Return the roofline through measured batches: mean rows → (batches, their seconds all together).

    Weighted least squares for every place of the knee; the best is taken. Without a usable size there is NO_SIGNAL.
    """
    points = [
        (rows, total / count, count)
        for rows, (count, total) in sorted(times.items())
        if rows > 0 and count > 0 and math.isfinite(total) and total > 0
    ]
    if not points:
        return NO_SIGNAL
    best: tuple[float, Roofline] | None = None
    for knee in range(len(points)):
        found = _with_knee(points, knee, max_rows)
        error = sum(w * (found.seconds(rows) / seconds - 1.0) ** 2 for rows, seconds, w in points)
        if best is None or error < best[0]:
            best = error, found
    assert best is not None
    return best[1]


def _with_knee(points: Sequence[tuple[float, float, float]], knee: int, max_rows: int) -> Roofline:
    """Return the fit whose flat part is `points[:knee]`; errors are relative, so weights are count / seconds²."""
    flat, line = points[:knee], points[knee:]
    floor = sum(w for *_, w in flat) and sum(s * w for _, s, w in flat) / sum(w for *_, w in flat)
    weights = [w / s**2 for _, s, w in line]
    total = sum(weights)
    mean_b = sum(w * b for w, (b, _, _) in zip(weights, line, strict=True)) / total
    mean_s = sum(w * s for w, (_, s, _) in zip(weights, line, strict=True)) / total
    spread = sum(w * (b - mean_b) ** 2 for w, (b, _, _) in zip(weights, line, strict=True))
    joint = sum(w * (b - mean_b) * (s - mean_s) for w, (b, s, _) in zip(weights, line, strict=True))
    # One size alone says nothing about the slope; a falling line is noise. Both: every batch takes as long as these.
    slope = max(0.0, joint / spread) if spread > 0 else 0.0
    if mean_s - slope * mean_b < 0.0:
        products = sum(w * b * s for w, (b, s, _) in zip(weights, line, strict=True))
        slope = products / sum(w * b * b for w, (b, _, _) in zip(weights, line, strict=True))
        return Roofline(floor or slope * line[0][0], 0.0, slope, max_rows)
    fixed = mean_s - slope * mean_b
    return Roofline(floor or fixed + slope * line[0][0], fixed, slope, max_rows)


def faded(
    times: Mapping[int, tuple[float, float]], elapsed_s: float, half_life_s: float = 1800.0
) -> dict[int, tuple[float, float]]:
    """Return `times` as they count after `elapsed_s` more seconds."""
    factor = 0.5 ** (elapsed_s / half_life_s)
    return {rows: (count * factor, total * factor) for rows, (count, total) in times.items() if count * factor > 0.01}


def approached(present: Roofline, measured: Roofline, elapsed_s: float) -> Roofline:
    """Return `present` moved towards `measured`, by CHANGE_PER_10_MIN in ten minutes at most.

    A fit that jumps would move the size with it; a device does not change its speed by half within a minute.
    """
    bound = (1.0 + CHANGE_PER_10_MIN) ** (elapsed_s / 600.0)
    sizes = (1, max(1, present.max_rows // 2), present.max_rows)

    def at(share: float) -> Roofline:
        def between(old: float, new: float) -> float:
            return old + share * (new - old)

        return Roofline(
            between(present.floor_s, measured.floor_s),
            between(present.fixed_s, measured.fixed_s),
            between(present.row_s, measured.row_s),
            measured.max_rows,
            measured.engines,
        )

    def is_within(found: Roofline) -> bool:
        return all(1.0 / bound <= found.seconds(rows) / present.seconds(rows) <= bound for rows in sizes)

    if is_within(measured):
        return measured
    low, high = 0.0, 1.0
    for _ in range(20):
        share = (low + high) / 2.0
        low, high = (share, high) if is_within(at(share)) else (low, share)
    return at(low)


def capacity(
    roofline: Roofline,
    target_s: float,
    quantile: float,
    *,
    requests: RequestRows = SINGLE,
    dispersion: float = 1.0,
    arrivals: int = ARRIVALS,
) -> Capacity:
    """Return what one replica carries with `quantile` of its latencies within `target_s`.

    `requests` are as large as these; `dispersion` is the variance of the number of requests of a second over its
    mean: 1 where they are independent.
    """
    work = computing(roofline, target_s, quantile, requests=requests, dispersion=dispersion, arrivals=arrivals)
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: Capacity = done.value
            return found


def computing(
    roofline: Roofline,
    target_s: float,
    quantile: float,
    *,
    requests: RequestRows = SINGLE,
    dispersion: float = 1.0,
    arrivals: int = ARRIVALS,
) -> Generator[None, None, Capacity]:
    """Return `capacity` after a good dozen steps of milliseconds, so that others can go on between them."""
    max_rate = _max_rate(roofline, requests)
    beyond_reach = Capacity(UNATTAINABLE_LOAD * max_rate, UNATTAINABLE_LOAD * max_rate, max_rate, is_attainable=False)
    idle_s = idle_latency_s(roofline, quantile, requests=requests)
    if idle_s > target_s:
        return beyond_reach
    load = _arrivals(arrivals, dispersion, requests)
    part = max_rate / _PARTS
    most = yield from _most_parts(roofline, part, target_s, quantile, load, below=_PARTS, step=_PARTS // 8)
    if most < LEAST_LOAD * _PARTS:
        # Met at next to no load only, where a request seldom meets another: no plan can rest on that.
        return beyond_reach
    survivors_s = SURVIVORS * target_s
    shrink = yield from _most_parts(roofline, part, survivors_s, quantile, load, below=most + 1, step=_PARTS // 64)
    rate, fewer, foreseen = most * part, _arrivals(arrivals // 8, dispersion, requests), [idle_s]
    for share in FRACTIONS[1:]:
        yield
        foreseen.append(min(target_s, _quantile_s(roofline, share * rate, quantile, fewer)))
    return Capacity(rate, max(shrink, most / 2.0) * part, max_rate, foreseen_s=tuple(foreseen))


def idle_latency_s(roofline: Roofline, quantile: float, load: float = 0.05, *, requests: RequestRows = SINGLE) -> float:
    """Return the quantile of the latency at next to no load: that of one replica that is nearly always free."""
    rate = load * requests.mean / roofline.seconds(max(1, round(requests.mean)))
    return latency_s(roofline, rate, quantile, unit_gaps(2000, 1.0), requests.drawn(2000))


def _max_rate(roofline: Roofline, requests: RequestRows) -> float:
    """Return the rows per second while a queue is always there, in batches of whole requests."""
    if requests == SINGLE:
        return roofline.max_rate
    waiting = Arrivals.of([-1.0] * 2000, requests.drawn(2000))
    *_, (_, _, end) = batches(waiting, BatchTimes(roofline), roofline.max_rows)
    return roofline.engines * waiting.rows_before[-1] / end


def _most_parts(
    roofline: Roofline, part: float, target_s: float, quantile: float, arrivals: Arrivals, *, below: int, step: int
) -> Generator[None, None, int]:
    """Return the most times `part`, a rate, that meet the target, less than `below`.

    From above, as what is too much is told soon and little load has the most batches.
    """
    left_out = _left_out(len(arrivals.at))

    def is_carried(parts: int) -> bool:
        gap_s = arrivals.mean_rows / (parts * part)
        runs = batches(arrivals, BatchTimes(roofline, gap_s), roofline.max_rows, roofline.engines)
        return is_met(runs, arrivals.at, target_s / gap_s, quantile, left_out)

    low, high = below - step, below
    while low > 0 and not is_carried(low):
        yield
        step *= 2
        low, high = low - step, low
    low = max(0, low)
    while high - low > 1:
        yield
        middle = (low + high) // 2
        low, high = (middle, high) if is_carried(middle) else (low, middle)
    return low


@lru_cache(maxsize=4)
def _arrivals(count: int, dispersion: float, requests: RequestRows) -> Arrivals:
    return Arrivals.of(unit_gaps(count, dispersion), None if requests == SINGLE else requests.drawn(count))


def _left_out(count: int) -> int:
    return min(_FIRST, count // 4)


def unit_gaps(count: int, dispersion: float, seed: int = 7) -> list[float]:
    """Return `count` gaps between arrivals with a mean of 1.

    A Poisson process whose rate is drawn anew from a gamma distribution for every ten arrivals; with `dispersion` 1
    it is a plain one.
    """
    source = Random(seed)
    if dispersion <= 1.0:
        return [source.expovariate(1.0) for _ in range(count)]
    shape = 10.0 / (dispersion - 1.0)
    gaps: list[float] = []
    while len(gaps) < count:
        rate = max(0.05, source.gammavariate(shape, 1.0 / shape))
        gaps += [source.expovariate(1.0) / rate for _ in range(10)]
    mean = sum(gaps) / len(gaps)
    return [gap / mean for gap in gaps[:count]]


def latencies_s(
    roofline: Roofline, rate: float, gaps: Sequence[float], rows: Sequence[int] | None = None
) -> list[float]:
    """Return what every request waits and runs, in the order in which their batches begin, at `rate` rows per second.

    Each request has one row, or as many as `rows` says: as many entries as `gaps`.
    """
    return _latencies_s(roofline, rate, Arrivals.of(gaps, rows))


def latency_s(
    roofline: Roofline, rate: float, quantile: float, gaps: Sequence[float], rows: Sequence[int] | None = None
) -> float:
    """Return the quantile of the latencies of requests at `rate` rows per second, the first ones left out."""
    return _quantile_s(roofline, rate, quantile, Arrivals.of(gaps, rows))


def _latencies_s(roofline: Roofline, rate: float, arrivals: Arrivals) -> list[float]:
    gap_s = arrivals.mean_rows / rate
    return [
        (end - came) * gap_s
        for first, stop, end in batches(arrivals, BatchTimes(roofline, gap_s), roofline.max_rows, roofline.engines)
        for came in arrivals.at[first:stop]
    ]


def _quantile_s(roofline: Roofline, rate: float, quantile: float, arrivals: Arrivals) -> float:
    found = sorted(_latencies_s(roofline, rate, arrivals)[_left_out(len(arrivals.at)) :])
    return found[min(len(found) - 1, math.ceil(quantile * len(found)) - 1)]
