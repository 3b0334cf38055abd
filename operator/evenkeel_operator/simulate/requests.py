"""What happens to every single request under one autoscaler, in queues that the runtime's own batching empties?

A thousand times the work of the fluid, for hours instead of days: it holds the fluid to account, and its replicas can
differ (a slow device, one that is not heard), which a flow cannot. Requests of a second come at independent times and
go to any replica in service, as a Service sends them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapreplace
from random import Random

import numpy as np
import numpy.typing as npt

from evenkeel_operator.decide.readings import Latencies, Reading
from evenkeel_operator.simulate.fluid import DRAIN_S, LOAD_MEMORY_S, Autoscaler, State, Trailing
from evenkeel_operator.simulate.load import Floats
from evenkeel_operator.simulate.profile import Profile
from evenkeel_runtime.engine.batching import Policy, Queue, Work

_STEPS = range(-16, 9)
_RATIO = 1.09


@dataclass(frozen=True)
class Slow:
    """A device whose batches take `factor` times as long, those that begin from `begin` until `end` seconds."""

    factor: float
    begin: float = 0.0
    end: float = math.inf

    def at(self, second: float) -> float:
        """Return by what a batch takes longer that begins now."""
        return self.factor if self.begin <= second < self.end else 1.0


AS_MEANT = Slow(1.0)


class Pod:
    """One replica: its queue, what it runs, and what it has counted since it was created."""

    def __init__(self, name: str, profile: Profile, created: float, ready: float, slow: Slow = AS_MEANT) -> None:
        roofline = profile.roofline
        self.name = name
        self.created = created
        self.ready = ready
        self.arrivals = 0
        self.late = 0
        self.answered = 0
        self._target_s = profile.target_s
        self._seconds = [0.0, *(roofline.seconds(rows) for rows in range(1, roofline.max_rows + 1))]
        self._slow = slow
        self._profile = tuple((rows, self._seconds[rows] * slow.at(created)) for rows in (1, roofline.max_rows))
        self._queue = Queue(Policy(roofline.max_rows, max_queued_rows=2**62))
        self._running = [(created, 0)] * roofline.engines
        """When each engine is free, and the rows of its batch; a heap."""
        self._edges = tuple(profile.target_s * _RATIO**step for step in _STEPS)
        self._counts = [0] * (len(self._edges) + 1)
        self._batches: dict[int, tuple[int, int, float]] = {}

    def arrive(self, at: float) -> None:
        """Take in a request; times do not run backwards."""
        self.advance(at)
        self._queue.admit(Work(1, None), at)
        self.arrivals += 1

    def advance(self, until: float) -> None:
        """Begin every batch that begins before or at `until`."""
        while (free := self._running[0][0]) <= until and (batch := self._queue.next_batch(free)) is not None:
            start = max(free, batch.works[-1].admitted)
            took = self._seconds[batch.rows] * self._slow.at(start)
            end = start + took
            heapreplace(self._running, (end, batch.rows))
            most = 1 << (batch.rows - 1).bit_length()
            count, rows, seconds = self._batches.get(most, (0, 0, 0.0))
            self._batches[most] = count + 1, rows + batch.rows, seconds + took
            for work in batch.works:
                latency = end - work.admitted
                self.late += latency > self._target_s
                self._counts[bisect_left(self._edges, latency)] += 1
            self.answered += batch.rows

    def queued(self) -> int:
        """Return how many requests wait."""
        return self._queue.rows

    def in_flight(self, now: float) -> int:
        """Return how many wait or run."""
        return self._queue.rows + sum(rows for end, rows in self._running if end > now)

    def empty_at(self) -> float:
        """Return when the last request is answered if none comes any more."""
        self.advance(float("inf"))
        return max(end for end, _ in self._running)

    def reading(self, now: float) -> Reading:
        """Return what it answers to GET /v2/signals."""
        waiting = self._queue.rows
        return Reading(
            boot=self.name,
            uptime_s=now - self.created,
            is_ready=True,
            generation=1,
            arrivals=self.arrivals,
            arrived_rows=self.arrivals,
            failed=0,
            rejected=0,
            queued=waiting,
            queued_rows=waiting,
            in_flight=self.in_flight(now),
            latencies=Latencies(self._target_s, self._edges, tuple(self._counts)),
            batches=tuple((most, *row) for most, row in sorted(self._batches.items())),
            profile=self._profile,
            max_rows=len(self._seconds) - 1,
            engines=len(self._running),
        )


@dataclass
class Seen(State):
    """The present second of one run, and the replicas in service for those who ask them."""

    pods: Sequence[Pod] = field(default_factory=tuple)


@dataclass(frozen=True)
class Outcome:
    """What came of one run; `asked` is the size of every second."""

    requests: int
    late: int
    gpu_s: float
    changes: int
    asked: npt.NDArray[np.int64]

    @property
    def violation(self) -> float:
        """Share of requests that were late."""
        return self.late / max(1, self.requests)


@dataclass(frozen=True)
class Service:
    """One deployment of replicas with `profile`, `first` of them at the start; `slow` says how the n-th of them is."""

    profile: Profile
    cold_start_s: int
    first: int
    least: int = 1
    most: int = 24
    slow: Mapping[int, Slow] = field(default_factory=dict)

    def run(self, counts: Floats, autoscaler: Autoscaler, seed: int) -> Outcome:
        """Let `counts` requests a second arrive and return what came of them, the last ones answered."""
        source = Random(seed)
        pods = [self._pod(i, 0, 0) for i in range(self.first)]
        gone: list[Pod] = []
        made, gpu_s, changes = self.first, 0.0, 0
        seen = _Sensors(self.profile)
        sizes = np.zeros(len(counts), np.int64)
        for second, count in enumerate(counts.astype(int).tolist()):
            serving = [pod for pod in pods if pod.ready <= second]
            for at in sorted(source.random() for _ in range(count)):
                source.choice(serving).arrive(second + at)
            for pod in serving:
                pod.advance(second + 1.0)
            gpu_s += len(pods)
            sizes[second] = len(pods)
            state = seen.look(second, count, len(pods), serving)
            if second % autoscaler.every_s:
                continue
            wanted = autoscaler.observe(state)
            size = len(pods) if wanted is None else int(np.clip(wanted[0, 0], self.least, self.most))
            changes += size != len(pods)
            while len(pods) > size:
                pod = pods.pop()
                gone.append(pod)
                if pod.ready <= second:
                    gpu_s += max(DRAIN_S, pod.empty_at() - second - 1.0)
            while len(pods) < size:
                pods.append(self._pod(made, second + 1, second + 1 + self.cold_start_s))
                made += 1
        for pod in pods:
            pod.empty_at()
        every = [*pods, *gone]
        requests, late = (sum(getattr(pod, name) for pod in every) for name in ("answered", "late"))
        return Outcome(requests, late, gpu_s, changes, sizes)

    def _pod(self, index: int, created: int, ready: int) -> Pod:
        return Pod(f"r{index}", self.profile, float(created), float(ready), self.slow.get(index, AS_MEANT))


class _Sensors:
    """What autoscalers look at, in the fluid's terms."""

    def __init__(self, profile: Profile) -> None:
        self._max_rate = profile.capacity.max_rate
        self._blend = 1.0 - np.exp(-1.0 / LOAD_MEMORY_S)
        self._recent = 0.0
        self._trailing = Trailing((1, 1)), Trailing((1, 1)), Trailing((1, 1))

    def look(self, second: int, arrived: int, asked: int, pods: Sequence[Pod]) -> Seen:
        self._recent += self._blend * (arrived - self._recent)
        limit = len(pods) * self._max_rate
        queued = float(sum(pod.queued() for pod in pods))
        outstanding = float(sum(pod.in_flight(second + 1.0) for pod in pods))
        load = min(0.999, self._recent / limit)
        for trailing, value in zip(self._trailing, (arrived, outstanding, load), strict=True):
            trailing.add(_one(value))
        arrivals, in_flight, busy = self._trailing
        # A batch's worth that waits for the running one is in the profile's tables already.
        wait_s = max(0.0, queued - outstanding / 2.0) / limit
        return Seen(
            second,
            queued=_one(queued),
            outstanding=_one(outstanding),
            load=_one(load),
            wait_s=_one(wait_s),
            asked=_one(asked),
            ready=_one(len(pods)),
            columns=slice(0, 1),
            arrivals=arrivals,
            in_flight=in_flight,
            busy=busy,
            pods=pods,
        )


def _one(value: float) -> Floats:
    return np.array([[value]], np.float32)
