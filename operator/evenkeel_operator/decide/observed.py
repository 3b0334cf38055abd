"""What do the replicas of one ModelDeployment say all together, and how old is that?

Counters become rates by subtraction, replica by replica: a replica that restarted counts from zero again, one that is
new counts from its start, one that has gone counts no more, and one whose answers stay away keeps its last rate for
`STALE_S` and is silent then. Silence is no zero: the four states of a measurement come out of here.

`now` is a clock that only runs forward, in seconds.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from evenkeel_operator.decide.derating import Sample
from evenkeel_operator.decide.readings import BadReading, Flaw, Reading, quantile, require_onward
from evenkeel_operator.decide.replicas import (
    STALE_S,
    Fresh,
    Measurement,
    NoMetrics,
    NoTraffic,
    Signals,
    Stale,
)
from evenkeel_operator.decide.requests import SINGLE, Arrived, RequestRows
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal

WINDOW_S = 60.0
"""Over how long latencies are looked at together."""

YOUNG_S = 30.0
"""A replica heard for the first time at this age or below is known from its start on.

One that was silent for longer tells a mean that says little of the present.
"""

_LEAST_SPAN_S = 0.2


@dataclass(frozen=True, slots=True)
class Batches:
    """What one replica's batches of up to `most` rows took since it was last heard."""

    most: int
    count: int
    rows: int
    seconds: float


@dataclass(slots=True)
class _Replica:
    last: Reading | None = None
    heard_at: float | None = None
    rate: float = 0.0
    span_s: float = 0.0
    flaw: BadReading | None = None


_Buckets = tuple[float, tuple[float, ...]]
"""Target and edges."""


@dataclass(frozen=True, slots=True)
class _Counted:
    at: float
    buckets: _Buckets
    counts: tuple[int, ...]


@dataclass(slots=True)
class Observed:
    """The replicas of one ModelDeployment, by name."""

    _replicas: dict[str, _Replica] = field(default_factory=dict)
    _latencies: deque[_Counted] = field(default_factory=deque)
    _sums: dict[_Buckets, tuple[int, ...]] = field(default_factory=dict)
    """Of what is in `_latencies`: looked at every round, it is not added up anew."""
    _arrived: Arrived = field(default_factory=Arrived)
    _last_demand: tuple[float, float] | None = None
    _last_latency: tuple[float, float] | None = None

    def keep(self, replicas: Collection[str]) -> None:
        """Forget all replicas but these."""
        for name in self._replicas.keys() - set(replicas):
            del self._replicas[name]

    def note(self, replica: str, answer: Reading | BadReading, now: float) -> tuple[Batches, ...]:
        """Take in what `replica` answered; return what its batches took since the last time."""
        found = self._replicas.setdefault(replica, _Replica())
        if isinstance(answer, BadReading):
            found.flaw = answer
            return ()
        before, found.last, found.flaw = found.last, answer, None
        if before is not None:
            try:
                require_onward(before, answer)
            except BadReading as e:
                # What it said before is no better: of the two, nobody knows which is true.
                found.flaw, found.heard_at = e, None
                return ()
        since = before if before is not None and before.boot == answer.boot else None
        if since is None and before is None and answer.uptime_s > YOUNG_S:
            return ()  # counted over hours, by somebody else perhaps: no rate of the present
        span_s = answer.uptime_s - (since.uptime_s if since is not None else 0.0)
        if span_s < _LEAST_SPAN_S and since is not None:
            found.last = since
            return ()
        found.span_s = max(span_s, _LEAST_SPAN_S)
        found.rate = (_demanded(answer) - (_demanded(since) if since is not None else 0)) / found.span_s
        found.heard_at = now
        self._note_rows(since, answer, now)
        self._note_latencies(since, answer, now)
        return _batches(since, answer)

    def flaw(self, replica: str) -> BadReading | None:
        """Return why the last answer of `replica` is not believed, None where it is."""
        return self._replicas[replica].flaw

    def was_silent(self, replica: str) -> bool:
        """Return whether `replica` gave no answer in time when it was last asked."""
        found = self._replicas.get(replica)
        return found is not None and found.flaw is not None and found.flaw.flaw is Flaw.TOO_SLOW

    def signals(self, ready: Collection[str], target_s: float, share: float, now: float) -> Signals:
        """Return what those of the `ready` replicas that were heard say: their `share`-quantile and all the rest."""
        known = [r for name in ready if (r := self._replicas.get(name)) is not None]
        heard = [(r, r.heard_at) for r in known if r.heard_at is not None and now - r.heard_at <= STALE_S]
        latency = self.latency(target_s, share, bool(heard), now)
        # Counter-example to adding them all: half the replicas come back from ten silent minutes in the midst of a
        # burst, and what they had on average takes its place.
        heard = [(r, at) for r, at in heard if r.span_s <= YOUNG_S] or heard
        # One whose last answer was lost has as much as the others, as if it were silent. Counter-example: in a burst,
        # what it had five seconds before, and then the mean of ten, hide half of the rise.
        answered = [(r, at) for r, at in heard if r.flaw is None]
        missed, heard = len(heard) - len(answered), answered or heard
        if not heard:
            demand = _last(self._last_demand, now)
            return Signals(demand, NoMetrics(), latency, len(ready), 0)
        age_s = sum(now - at for _, at in heard) / len(heard)
        rate = sum(r.rate for r, _ in heard)
        queued = float(sum(_queued(r.last) for r, _ in heard if r.last is not None))
        self._last_demand = rate, now - age_s
        demand = Fresh(rate, age_s) if rate > 0.0 else NoTraffic(age_s)
        span_s = max(r.span_s for r, _ in heard)
        # One that answers for the first time has just come into service: nothing of what the others tell went to it.
        # Counter-example: demand of four replicas, taken for half of it in the moment in which four more are ready.
        new = sum(r.last is not None and r.heard_at is None and r.flaw is None for r in known)
        dispersion = self.request_rows().dispersion
        waiting = Fresh(queued, age_s)
        return Signals(demand, waiting, latency, len(ready) - new, len(heard), span_s, dispersion, missed=missed)

    def latency(self, target_s: float, share: float, is_heard: bool, now: float) -> Measurement:
        """Return the `share`-quantile of the last minute, of the replicas that count by `target_s`."""
        while self._latencies and self._latencies[0].at <= now - WINDOW_S:
            self._sum(self._latencies.popleft(), operator.sub)
        if not is_heard:
            return _last(self._last_latency, now)
        found = quantile(self._counted(target_s), share)
        if found is None:
            counting = any(
                r.last is not None and r.last.latencies.target_s == target_s for r in self._replicas.values()
            )
            return NoTraffic() if counting else NoMetrics()
        at = next(row.at for row in reversed(self._latencies) if row.buckets[0] == target_s)
        self._last_latency = found, at
        return Fresh(found, now - at)

    def sample(self, target_s: float, share: float) -> Sample | NoSignal:
        """Return the latencies that `latency` has last looked at, NO_SIGNAL where there were none."""
        merged = self._counted(target_s)
        found = quantile(merged, share)
        if found is None:
            return NO_SIGNAL
        slow = sum(sum(counts[bisect_right(edges, target_s) :]) for edges, counts in merged)
        return Sample(share, found, sum(sum(counts) for _, counts in merged), slow)

    def request_rows(self) -> RequestRows:
        """Return how many rows requests had of late, counted as demand is; one each until some have come."""
        found = self._arrived.rows()
        return SINGLE if isinstance(found, NoSignal) else found

    def in_flight(self) -> Mapping[str, int]:
        """Return how many requests each replica had when it last answered."""
        return {name: r.last.in_flight for name, r in self._replicas.items() if r.last is not None}

    def flaws(self, ready: Collection[str], now: float) -> dict[str, BadReading]:
        """Return, of the `ready` replicas that are not heard, why their last answer was none."""
        return {
            name: r.flaw
            for name in ready
            if (r := self._replicas.get(name)) is not None and r.flaw is not None and not _is_heard(r, now)
        }

    def profile(self) -> tuple[tuple[tuple[int, float], ...], int]:
        """Return the slowest profile that a replica measured at load, and the most rows per call."""
        found = [r.last for r in self._replicas.values() if r.last is not None and r.last.profile]
        slowest = max(found, key=lambda reading: reading.profile[0][1], default=None)
        sizes = [r.last.max_rows for r in self._replicas.values() if r.last is not None]
        return (slowest.profile if slowest is not None else ()), max(1, min(sizes, default=1))

    def engines(self) -> int:
        """Return how many batches a replica runs at the same time: the fewest of any."""
        return min((r.last.engines for r in self._replicas.values() if r.last is not None), default=1)

    def _note_rows(self, since: Reading | None, answer: Reading, now: float) -> None:
        requests = answer.arrivals - (since.arrivals if since is not None else 0)
        if not answer.max_rows:
            self._arrived.note(requests, requests, requests, now)
            return
        rows = answer.arrived_rows - (since.arrived_rows if since is not None else 0)
        total, before = answer.arrived_square_rows, since.arrived_square_rows if since is not None else 0
        self._arrived.note(requests, rows, None if total is None or before is None else total - before, now)

    def _note_latencies(self, since: Reading | None, answer: Reading, now: float) -> None:
        latencies = answer.latencies
        counts = latencies.counts
        if since is not None and since.latencies.edges == latencies.edges:
            counts = tuple(map(operator.sub, counts, since.latencies.counts))
        # A request that was sent away was not answered within the target, and never will be.
        refused = answer.rejected - (since.rejected if since is not None else 0)
        if refused:
            counts = (*counts[:-1], counts[-1] + refused)
        if any(counts):
            buckets = latencies.target_s, latencies.edges
            if self._latencies and self._latencies[-1].buckets == buckets:
                buckets = self._latencies[-1].buckets  # one of them for a minute of every replica, not for each answer
            row = _Counted(now, buckets, counts)
            self._latencies.append(row)
            self._sum(row, operator.add)

    def _sum(self, row: _Counted, by: Callable[[int, int], int]) -> None:
        before = self._sums.get(row.buckets)
        after = row.counts if before is None else tuple(map(by, before, row.counts))
        if any(after):
            self._sums[row.buckets] = after
        else:
            del self._sums[row.buckets]

    def _counted(self, target_s: float) -> list[tuple[tuple[float, ...], tuple[int, ...]]]:
        return [(edges, counts) for (target, edges), counts in self._sums.items() if target == target_s]


def _is_heard(replica: _Replica, now: float) -> bool:
    return replica.heard_at is not None and now - replica.heard_at <= STALE_S


def _last(known: tuple[float, float] | None, now: float) -> Measurement:
    return NoMetrics() if known is None else Stale(known[0], now - known[1])


def _demanded(reading: Reading) -> int:
    # Rows are what batches are made of; where requests never share a call, each is one call whatever its rows.
    return reading.arrived_rows if reading.max_rows else reading.arrivals


def _queued(reading: Reading) -> int:
    return reading.queued_rows if reading.max_rows else reading.queued


def _batches(since: Reading | None, answer: Reading) -> tuple[Batches, ...]:
    before = {row[0]: row for row in since.batches} if since is not None else {}
    found = []
    for most, count, rows, seconds in answer.batches:
        _, had_count, had_rows, had_seconds = before.get(most, (most, 0, 0, 0.0))
        if count > had_count:
            shared = answer.max_rows > 0
            done = count - had_count
            found.append(Batches(most, done, rows - had_rows if shared else done, max(0.0, seconds - had_seconds)))
    return tuple(found)
