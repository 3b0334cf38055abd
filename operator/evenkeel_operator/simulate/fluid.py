"""What happens to a flow of requests, a second at a time, under many autoscalers at once?

Arrays have a row for every run and a column for every configuration, so that a grid of hundreds costs little more than
one. Queues are exact for the flow; the scatter of single requests comes from the profile's tables. Replicas become
ready a fixed time after they were asked for, and the newest go first: those ready now are as many as have been asked
for at every moment since. A request counts as late when queue and service together exceed the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from evenkeel_operator.simulate.load import Floats
from evenkeel_operator.simulate.profile import BUDGETS, LOADS, Profile

DRAIN_S = 10.0
"""A replica that is removed from service keeps its GPU for so long."""

LOAD_MEMORY_S = 10.0
HISTORY_S = 180
WORST_S = 300


class Trailing:
    """Sums of everything so far, kept for HISTORY_S seconds, so that any mean is one subtraction."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._ring = np.zeros((HISTORY_S + 1, *shape), np.float64)
        self._count = 0

    def add(self, values: Floats) -> None:
        """Take in the values of one more second."""
        before = self._ring[(self._count - 1) % len(self._ring)]
        np.add(before, values, out=self._ring[self._count % len(self._ring)])
        self._count += 1

    def mean(self, columns: slice, over_s: int, until_s: int = 0) -> Floats:
        """Return the mean of `over_s` seconds, which ended `until_s` seconds ago; of fewer where fewer are known."""
        end = max(1, self._count - until_s)
        begin = min(max(0, end - over_s), end - 1)
        high = self._ring[(end - 1) % len(self._ring), :, columns]
        if not begin:
            return (high / end).astype(np.float32)
        low = self._ring[(begin - 1) % len(self._ring), :, columns]
        return ((high - low) / (end - begin)).astype(np.float32)


@dataclass
class State:
    """The present second, [run, configuration] each. Autoscalers read it; they may not write.

    `busy` is the load of one replica between 0 and 1.
    """

    second: int
    queued: Floats
    outstanding: Floats
    load: Floats
    wait_s: Floats
    asked: Floats
    ready: Floats
    columns: slice
    arrivals: Trailing
    in_flight: Trailing
    busy: Trailing


class Autoscaler(Protocol):
    """Decides for `width` configurations, asked every `every_s` seconds with its columns of the state."""

    width: int
    every_s: int

    def observe(self, state: State) -> Floats | None:
        """Return the sizes wanted from the next second on, [run, configuration], or None for no change."""
        ...


@dataclass(frozen=True)
class World:
    """What all runs share. `first` is the size of each run at the start, already ready."""

    profile: Profile
    first: Floats
    least: int = 1
    most: int = 24


@dataclass(frozen=True)
class Fleet:
    """An autoscaler whose replicas need `cold_start_s` until they are ready."""

    autoscaler: Autoscaler
    cold_start_s: int


@dataclass(frozen=True)
class Kept:
    """What plots need: at the beginning of every `every_s` seconds, and `requests` and `late` of those seconds.

    [time, run, configuration]; there are as many requests in every configuration, or in one column for all.
    """

    every_s: int
    asked: Floats
    ready: Floats
    latency_s: Floats
    requests: Floats
    late: Floats


@dataclass(frozen=True)
class Outcome:
    """Sums by [run, configuration].

    `worst` is the highest share of late requests in five minutes, None where not so many have passed.
    """

    requests: Floats
    late: Floats
    gpu_s: Floats
    changes: Floats
    worst: Floats | None
    kept: Kept | None

    @property
    def violation(self) -> Floats:
        """Share of requests that were late."""
        return (self.late / np.maximum(self.requests, 1.0)).astype(np.float32)


class Clients(Protocol):
    """Where arrivals come from."""

    def arrive(self, second: int, outstanding: Floats) -> Floats:
        """Return the requests of this second, [run, configuration] or [run, 1]."""
        ...


class _Starting:
    """Of what was asked for in the last `cold_start_s` seconds, the least: what is ready. Two stacks of minima."""

    def __init__(self, first: Floats, cold_start_s: int) -> None:
        self._size = cold_start_s + 1
        self._ring = np.repeat(first[None].astype(np.uint8), self._size, axis=0)
        self._suffix = self._ring.copy()
        self._prefix = first.astype(np.uint8)
        self._at = 0

    def ready(self, asked: Floats) -> npt.NDArray[np.uint8]:
        if self._at == self._size:
            self._suffix = np.minimum.accumulate(self._ring[::-1], axis=0)[::-1]
            self._at = 0
            self._prefix = asked.astype(np.uint8)
        self._ring[self._at] = asked
        np.minimum(self._prefix, self._ring[self._at], out=self._prefix)
        self._at += 1
        if self._at == self._size:
            return self._prefix
        found: npt.NDArray[np.uint8] = np.minimum(self._prefix, self._suffix[self._at])
        return found


class _Sums:
    """Totals that stay exact over months: short sums in single precision, long ones in double."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.requests, self.late, self.gpu_s = (np.zeros(shape, np.float32) for _ in range(3))
        self._long = [np.zeros(shape, np.float64) for _ in range(3)]
        self.worst: Floats | None = None

    def fold(self) -> None:
        """End a window of WORST_S seconds."""
        share: Floats = (self.late / np.maximum(self.requests, 1.0)).astype(np.float32)
        self.worst = share if self.worst is None else np.maximum(self.worst, share)
        for total, part in zip(self._long, (self.requests, self.late, self.gpu_s), strict=True):
            total += part
            part[:] = 0.0

    def outcome(self, changes: Floats, kept: Kept | None) -> Outcome:
        requests, late, gpu_s = (
            (total + part).astype(np.float32)
            for total, part in zip(self._long, (self.requests, self.late, self.gpu_s), strict=True)
        )
        return Outcome(requests, late, gpu_s, changes, self.worst, kept)


class _Keeping:
    """Fills a `Kept`."""

    def __init__(self, every_s: int) -> None:
        self._every_s = every_s
        self._moments: tuple[list[Floats], ...] = ([], [], [])
        self._sums: tuple[list[Floats], ...] = ([], [])

    def keep(self, second: int, moment: tuple[Floats, ...], counts: tuple[Floats, ...]) -> None:
        """Take in one second: values that are as they are at this moment, and counts to be added up."""
        if second % self._every_s == 0:
            for rows, values in zip(self._moments, moment, strict=True):
                rows.append(values.copy())
            for sums, values in zip(self._sums, counts, strict=True):
                sums.append(values.copy())
            return
        for sums, values in zip(self._sums, counts, strict=True):
            sums[-1] += values

    def kept(self) -> Kept:
        return Kept(self._every_s, *(np.array(rows) for rows in (*self._moments, *self._sums)))


def columns_of(fleets: Sequence[Fleet]) -> list[slice]:
    """Return which columns belong to each fleet."""
    ends = np.cumsum([fleet.autoscaler.width for fleet in fleets])
    return [slice(int(end - fleet.autoscaler.width), int(end)) for end, fleet in zip(ends, fleets, strict=True)]


def run(world: World, fleets: Sequence[Fleet], clients: Clients, seconds: int, *, keep_every_s: int = 0) -> Outcome:
    """Let `seconds` pass and return what came of it; columns are in the order of `fleets`."""
    profile = world.profile
    columns = columns_of(fleets)
    shape = (len(world.first), columns[-1].stop)
    by_start: dict[int, list[slice]] = {}
    for own, fleet in zip(columns, fleets, strict=True):
        by_start.setdefault(fleet.cold_start_s, []).append(own)
    asked = np.repeat(world.first[:, None], shape[1], axis=1).astype(np.float32)
    # Fleets with the same time of a start lie side by side where the caller put them so, and are looked up at once.
    spans = [(slice(parts[0].start, parts[-1].stop), start) for start, parts in by_start.items()]
    if sum(span.stop - span.start for span, _ in spans) != shape[1]:
        spans = [(own, fleet.cold_start_s) for own, fleet in zip(columns, fleets, strict=True)]
    starting = [(span, _Starting(asked[:, span], start)) for span, start in spans]
    ready, queue, recent, outstanding = asked.copy(), *(np.zeros(shape, np.float32) for _ in range(3))
    changes = np.zeros(shape, np.float32)
    sums = _Sums(shape)
    trailing = Trailing(shape), Trailing(shape), Trailing(shape)
    kept = _Keeping(keep_every_s)
    rate = np.float32(profile.capacity.max_rate)
    table, mean_s, target_s = profile.late, profile.mean_s, np.float32(profile.target_s)
    per_budget = np.float32((BUDGETS - 1) / profile.target_s)
    blend = np.float32(1.0 - np.exp(-1.0 / LOAD_MEMORY_S))
    for second in range(seconds):
        for span, pods in starting:
            ready[:, span] = pods.ready(asked[:, span])
        arrived = clients.arrive(second, outstanding)
        limit = ready * rate
        recent += blend * (arrived - recent)
        before = queue
        queue = before + arrived
        served = np.minimum(queue, limit)
        queue = queue - served
        wait = (before + queue) / (limit + limit)
        load = np.minimum(recent / limit, np.float32(0.999))
        column = (load * np.float32(LOADS)).astype(np.int32)
        # What is left of the target, rounded down: a budget that is nearly none is none.
        budget = np.maximum(np.float32(0.0), target_s - wait) * per_budget
        missed = table.take(column * np.int32(BUDGETS) + budget.astype(np.int32)) * arrived
        outstanding = queue + served * mean_s.take(column)
        sums.late += missed
        sums.requests += arrived
        sums.gpu_s += asked
        for total, values in zip(trailing, (arrived, outstanding, load), strict=True):
            total.add(values)
        if keep_every_s:
            kept.keep(second, (asked, ready, wait + profile.quantile_s[column]), (arrived, missed))
        for own, fleet in zip(columns, fleets, strict=True):
            if second % fleet.autoscaler.every_s:
                continue
            state = State(
                second,
                *(queue[:, own], outstanding[:, own], load[:, own], wait[:, own], asked[:, own], ready[:, own]),
                columns=own,
                arrivals=trailing[0],
                in_flight=trailing[1],
                busy=trailing[2],
            )
            wanted = fleet.autoscaler.observe(state)
            if wanted is None:
                continue
            wanted = np.clip(wanted, world.least, world.most)
            moved = wanted != asked[:, own]
            if moved.any():
                changes[:, own] += moved
                # Only those in service have anything to finish.
                sums.gpu_s[:, own] += np.float32(DRAIN_S) * np.maximum(0.0, ready[:, own] - wanted)
                asked[:, own] = wanted
        if second % WORST_S == WORST_S - 1:
            sums.fold()
    return sums.outcome(changes, kept.kept() if keep_every_s else None)
