"""How much can one replica carry with its latency within the target?

How long a batch of b rows takes, S(b), is a roofline, max(s0, a + β b): flat while the device is not full, a line from
there. It is fitted to batch times measured in service. The largest arrival rate at which the wanted quantile still
meets the target follows from a discrete-event model of one replica that runs the batching policy of the runtime
itself, so that a change of the policy changes the capacity. The highest throughput says little: with a tight target
the variant with the higher maximum can be the infeasible one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from evenkeel_operator.decide.requests import SINGLE, RequestRows
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal
from evenkeel_runtime.engine.batching import Policy, Queue, Work

SURVIVORS = 0.9
"""After a removal the remaining replicas have to meet this part of the target."""

UNATTAINABLE_LOAD = 0.7
"""Where no rate meets the target, more replicas cannot help; they are planned for this part of the throughput."""

LEAST_LOAD = 0.05
ARRIVALS = 20_000
CHANGE_PER_10_MIN = 0.2
DERATE_LEAST, DERATE_DOWN, DERATE_UP = 0.5, 0.9, 1.02

_FIRST = 500
_TOLERANCE = 0.005


@dataclass(frozen=True, slots=True)
class Roofline:
    """Seconds that a batch of b rows takes: max(`floor_s`, `fixed_s` + `row_s` × b), for b up to `max_rows`."""

    floor_s: float
    fixed_s: float
    row_s: float
    max_rows: int

    def seconds(self, rows: float) -> float:
        """Return how long a batch of `rows` takes, or batches of so many rows on average."""
        return max(self.floor_s, self.fixed_s + self.row_s * rows)

    @property
    def max_rate(self) -> float:
        """Rows per second at full batches."""
        return self.max_rows / self.seconds(self.max_rows)

    def scaled(self, factor: float) -> Roofline:
        """Return the same device, `factor` times as slow."""
        return replace(self, floor_s=self.floor_s * factor, fixed_s=self.fixed_s * factor, row_s=self.row_s * factor)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one replica carries, in rows per second: requests per second where each has one row.

    `rate` with the quantile within the target; `shrink_rate` with it within SURVIVORS × target; `max_rate` when a
    queue is always there, of whole requests. Where a replica misses the target even next to idle, `is_attainable` is
    false and the rates are UNATTAINABLE_LOAD of the throughput.
    """

    rate: float
    shrink_rate: float
    max_rate: float
    is_attainable: bool = True

    def derated(self, factor: float) -> Capacity:
        """Return what is left when one replica carries `factor` of what the model says."""
        return replace(self, rate=self.rate * factor, shrink_rate=self.shrink_rate * factor)


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
    max_rate = _max_rate(roofline, requests)
    beyond_reach = Capacity(UNATTAINABLE_LOAD * max_rate, UNATTAINABLE_LOAD * max_rate, max_rate, is_attainable=False)
    if idle_latency_s(roofline, quantile, requests=requests) > target_s:
        return beyond_reach
    gaps, rows = unit_gaps(arrivals, dispersion), requests.drawn(arrivals)
    rate = _largest_rate(roofline, max_rate, target_s, quantile, gaps, rows)
    if rate < LEAST_LOAD * max_rate:
        # Met at next to no load only, where a request seldom meets another: no plan can rest on that.
        return beyond_reach
    shrink = _largest_rate(roofline, max_rate, SURVIVORS * target_s, quantile, gaps, rows)
    return Capacity(rate, min(rate, max(shrink, rate / 2.0)), max_rate)


def idle_latency_s(roofline: Roofline, quantile: float, load: float = 0.05, *, requests: RequestRows = SINGLE) -> float:
    """Return the quantile of the latency at next to no load: that of one replica that is nearly always free."""
    rate = load * requests.mean / roofline.seconds(max(1, round(requests.mean)))
    return latency_s(roofline, rate, quantile, unit_gaps(2000, 1.0), requests.drawn(2000))


def _max_rate(roofline: Roofline, requests: RequestRows) -> float:
    """Return the rows per second while a queue is always there, in batches of whole requests."""
    if requests == SINGLE:
        return roofline.max_rate
    queue = Queue(Policy(max_rows=roofline.max_rows, max_queued_rows=math.inf))
    for rows in requests.drawn(2000):
        queue.admit(Work(rows, None), 0.0)
    total, seconds = queue.rows, 0.0
    while (batch := queue.next_batch(0.0)) is not None:
        seconds += roofline.seconds(batch.rows)
    return total / seconds


def _largest_rate(
    roofline: Roofline, max_rate: float, target_s: float, quantile: float, gaps: Sequence[float], rows: Sequence[int]
) -> float:
    low, high = 0.0, max_rate
    while high - low > _TOLERANCE * max_rate:
        middle = (low + high) / 2.0
        if latency_s(roofline, middle, quantile, gaps, rows) <= target_s:
            low = middle
        else:
            high = middle
    return low


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
    """Return what every request waits and runs, in the order in which they are answered, at `rate` rows per second.

    Each request has one row, or as many as `rows` says: as many entries as `gaps`.
    """
    rows = [1] * len(gaps) if rows is None else rows
    pace = sum(rows) / len(rows) / rate
    most = max(roofline.max_rows, *rows)
    queue = Queue(Policy(max_rows=roofline.max_rows, max_queued_rows=math.inf))
    seconds = [0.0, *(roofline.seconds(size) for size in range(1, most + 1))]
    found: list[float] = []
    free = arrival = 0.0
    for gap, size in zip(gaps, rows, strict=True):
        arrival += gap * pace
        while free <= arrival and (batch := queue.next_batch(free)) is not None:
            free = _run(batch.works, max(free, batch.works[-1].admitted), seconds[batch.rows], found)
        queue.admit(Work(size, None), arrival)
        free = max(free, arrival) if queue.requests == 1 else free
    while (batch := queue.next_batch(free)) is not None:
        free = _run(batch.works, free, seconds[batch.rows], found)
    return found


def _run(works: Sequence[Work], start: float, seconds: float, found: list[float]) -> float:
    end = start + seconds
    found.extend([end - work.admitted for work in works])
    return end


def latency_s(
    roofline: Roofline, rate: float, quantile: float, gaps: Sequence[float], rows: Sequence[int] | None = None
) -> float:
    """Return the quantile of the latencies of requests at `rate` rows per second, the first ones left out."""
    found = sorted(latencies_s(roofline, rate, gaps, rows)[min(_FIRST, len(gaps) // 4) :])
    return found[min(len(found) - 1, math.ceil(quantile * len(found)) - 1)]


def derate(
    factor: float, capacity: Capacity, observed_s: float, target_s: float, load: float, *, is_calm: bool
) -> float:
    """Return how much of the model's capacity to believe, looked at once a minute.

    `observed_s` is the quantile of the last minute and `load` the rows per second of one replica. `is_calm`: no
    queue, and no replica that has just started; only then does a missed target speak about the capacity.
    """
    usable = capacity.rate * factor
    if is_calm and observed_s > target_s and load < usable:
        return max(DERATE_LEAST, factor * DERATE_DOWN)
    if observed_s < 0.7 * target_s and load > 0.9 * usable:
        return min(1.0, factor * DERATE_UP)
    return factor
