"""When is each ModelDeployment's latency looked at, and what follows for its size?

One task for each that names a latency: every five seconds, a little more or less, it asks the replicas, decides by
`decide/replicas.py`, and queues the ModelDeployment where that makes a difference to what is applied or said. The plan
takes the decision from here; it decides no size itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from evenkeel_operator.api.core import seconds
from evenkeel_operator.api.modeldeployment import LatencyObjective, Object
from evenkeel_operator.control.cache import Key
from evenkeel_operator.control.capacities import Capacities, Latest
from evenkeel_operator.control.memories import Memories
from evenkeel_operator.control.promises import Promises
from evenkeel_operator.control.tasks import Tasks
from evenkeel_operator.decide import placement, replicas, sizing
from evenkeel_operator.decide.capacity import Capacity
from evenkeel_operator.decide.memory import Memory
from evenkeel_operator.decide.minutes import Minutes
from evenkeel_operator.decide.observed import WINDOW_S, Batches, Observed
from evenkeel_operator.decide.replicas import TICK_S, Decision, Fresh, NoMetrics, Signals
from evenkeel_operator.decide.requests import SINGLE, RequestRows
from evenkeel_operator.decide.sizing import KEPT_DECISIONS, Refused, Sizing
from evenkeel_operator.decide.snapshot import NO_SIGNAL, Fleet, NoSignal, Snapshot
from evenkeel_operator.decide.speed import Speed
from evenkeel_operator.decide.starts import Starts
from evenkeel_operator.world import metrics
from evenkeel_operator.world.lease import LeaseLost
from evenkeel_operator.world.metrics import Measured
from evenkeel_operator.world.signals import Answers, Directive, Replicas, Target

log = logging.getLogger(__name__)

JITTER = 0.1
TELL_S = 60.0
"""What differs in numbers only is written to the status once in so many seconds at most."""
MOVED = 0.1
"""A latency that has moved by less is not worth a write."""
COLD_START_S = 60.0
"""Taken for the time that a replica takes to start while none has been seen to."""


@dataclass(slots=True)
class Watched:
    """One ModelDeployment that names a latency: what the last plan saw of it, and what has been measured since."""

    deployment: Object
    snapshot: Snapshot
    objective: LatencyObjective
    latest: Latest
    observed: Observed = field(default_factory=Observed)
    memory: Memory = field(default_factory=Memory)
    speed: Speed = field(default_factory=Speed)
    carries: Capacity | NoSignal = NO_SIGNAL
    request_rows: RequestRows = SINGLE
    size: int | None = None
    signals: Signals | None = None
    decision: Decision | None = None
    refused: Refused | None = None
    published: Sizing | None = None
    published_at: float = -TELL_S
    decisions: tuple[Object, ...] = ()
    minutes: Minutes = field(default_factory=Minutes)
    minute_at: float = 0.0
    learnt_at: float = 0.0
    asked_at: float | None = None
    starts: Starts = field(default_factory=Starts)

    @property
    def target_s(self) -> float:
        """The target in seconds."""
        return seconds(self.objective.target)

    @property
    def ready(self) -> list[Target]:
        """The replicas that take users' requests: not those of a canary that is sent copies."""
        rows = [r for r in self.snapshot.replicas if r.revision != self.snapshot.mirrored]
        return [
            Target(r.name, r.address, self.observed.was_silent(r.name))
            for r in rows
            if r.ready and not r.terminating and r.address is not None
        ]


class Scaler:
    """Looks at every ModelDeployment that names a latency. `changed` is called with one whose plan may be another."""

    def __init__(
        self,
        *,
        replicas: Replicas,
        memories: Memories,
        fleet: Callable[[], Fleet | NoSignal],
        changed: Callable[[Key], None],
        interval_s: float = TICK_S,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._replicas = replicas
        self._memories = memories
        self._capacities = Capacities()
        self._fleet = fleet
        self._changed = changed
        self._interval_s = interval_s
        self._wall = wall
        self._clock = clock
        self._watched: dict[Key, Watched] = {}
        self._promises = Promises()
        self._tasks = Tasks("signals")

    def measured(self) -> Iterator[Measured]:
        """Yield what Prometheus is told."""
        for key, found in self._watched.items():
            signals, carries = found.signals, self._believed(found)
            latency = signals.latency_s if signals is not None else NoMetrics()
            bounds, (missed, minutes) = found.snapshot.spec.scaling, found.minutes.counted(self._clock())
            yield Measured(
                namespace=key.namespace,
                name=key.name,
                state=type(latency).__name__,
                ready=len(found.ready),
                heard=signals.heard if signals is not None else None,
                quantile=found.objective.quantile,
                target_s=found.target_s,
                latency_s=latency.value if isinstance(latency, Fresh) else None,
                missed=missed / minutes if minutes else None,
                budget=found.objective.violation_budget,
                demand=replicas.arriving(signals) if signals is not None else None,
                capacity=None if isinstance(carries, NoSignal) else carries.rate,
                is_attainable=None if isinstance(found.carries, NoSignal) else found.carries.is_attainable,
                desired=found.size,
                least=None if bounds is None else bounds.min_replicas,
                most=None if bounds is None else bounds.max_replicas,
                limit=None if found.decision is None else str(found.decision.limit),
                is_scalable=None
                if found.decision is None
                else sizing.follows_demand(found.decision, self._is_attainable(found)),
            )

    def look(self, key: Key, deployment: Object, snapshot: Snapshot) -> Snapshot:
        """Take note of what a plan is about to be made from; return it with what was measured and decided."""
        wanted = sizing.objective(snapshot.spec)
        if wanted is None:
            self.forget(key)
            self._promises.note(key, snapshot, None)
            return snapshot
        found = self._watched.get(key)
        if found is not None and found.snapshot.uid != snapshot.uid:
            # Deleted and created anew between two turns: what was measured and decided is not its own.
            self.forget(key)
            found = None
        ignored = None
        if found is None:
            found = self._watched[key] = Watched(
                deployment, snapshot, wanted, Latest(self._capacities), minute_at=self._clock()
            )
            found.decisions = tuple(
                d.model_dump(mode="json", by_alias=True, exclude_none=True)
                for d in snapshot.status.last_decisions or ()
            )
            self._tasks.begin(key, self._follow(key, found))
        else:
            spec, before = snapshot.spec, found.snapshot.spec
            if spec.scaling is not None and before.scaling is not None and spec.replicas != before.replicas:
                ignored = spec.replicas
            if wanted.target != found.objective.target:
                found.minutes.clear()
            found.deployment, found.snapshot, found.objective = deployment, snapshot, wanted
        found.starts.note(snapshot.replicas)
        if snapshot.spec.scaling is None:
            found.size, found.decision = None, None
        elif found.size is None:
            found.size = snapshot.desired
        elif not snapshot.spec.scaling.min_replicas <= found.size <= snapshot.spec.scaling.max_replicas:
            bounds = snapshot.spec.scaling
            size = min(max(found.size, bounds.min_replicas), bounds.max_replicas)
            self._resize(found, sizing.rebounded(size, found.size, found.decision))
        self._promises.note(key, snapshot, found.size)
        if found.published is None or found.published.size != found.size:
            self._publish(found)
        assert found.published is not None, "published"
        told = replace(found.published, ignored=ignored, in_flight=found.observed.in_flight())
        return replace(snapshot, sizing=told)

    def forget(self, key: Key) -> None:
        """Look no more at `key`."""
        if (found := self._watched.pop(key, None)) is not None:
            found.latest.end()
        self._promises.forget(key)
        self._memories.forget(key)
        self._tasks.end(key)

    async def stop(self) -> None:
        """End every task."""
        self._watched.clear()
        await self._tasks.end_all()
        await self._replicas.close()

    async def _follow(self, key: Key, found: Watched) -> None:
        due = self._clock() + random.uniform(0.0, min(1.0, self._interval_s))
        while True:
            await asyncio.sleep(due - self._clock())
            try:
                await self._restore(key, found)
                await self._round(key, found, due)
                await self._save(key, found)
            except LeaseLost:
                return
            except Exception:
                # Ours to mend; the size stays as it is meanwhile, and the other deployments are looked at.
                metrics.ERRORS.labels(kind="bug").inc()
                log.exception("not looked at deployment=%s", key)
            # What a round takes is no reason to look less often; a round that was missed is not made up for.
            due = max(due + self._interval_s * random.uniform(1 - JITTER, 1 + JITTER), self._clock())

    async def _round(self, key: Key, found: Watched, due: float) -> None:
        """Ask the replicas, as was `due`, and decide."""
        directive = Directive(found.snapshot.generation, found.target_s)
        targets = found.ready
        answers = await self._replicas.ask(targets, directive) if targets else {}
        heard_at = self._clock()
        found.observed.keep({r.name for r in found.snapshot.replicas})
        self._note_answers(found, answers, heard_at)
        await self._learn(found, heard_at)
        if self._watched.get(key) is not found:
            return
        self._decide(key, found, heard_at)
        metrics.DECISION_LAG.observe(self._clock() - due)

    def _note_answers(self, found: Watched, answers: Answers, now: float) -> None:
        batches: list[Batches] = []
        for name, answer in answers.items():
            batches += found.observed.note(name, answer, now)
            flaw = found.observed.flaw(name)
            metrics.POLLS.labels(result="ok" if flaw is None else str(flaw.flaw)).inc()
        found.speed.note(batches, 0.0 if found.asked_at is None else now - found.asked_at)
        found.asked_at = now

    async def _learn(self, found: Watched, now: float) -> None:
        """Bring the capacity up to date: at once while none is measured, or where requests have other sizes; once a
        minute later."""
        speed, latest, rows = found.speed, found.latest, found.observed.request_rows()
        if not rows.is_like(found.request_rows):
            found.request_rows = rows
        if speed.roofline is None or speed.is_due(now - found.learnt_at):
            elapsed_s = now - found.learnt_at if found.learnt_at else 0.0
            speed.learn(*found.observed.profile(), elapsed_s, found.observed.engines())
            found.learnt_at = now
        if speed.roofline is not None:
            await latest.follow(speed.roofline, found.target_s, found.objective.quantile, found.request_rows)
        if latest.found is not None:
            found.carries = latest.found.capacity

    def _decide(self, key: Key, found: Watched, now: float) -> None:
        ready = [target.replica for target in found.ready]
        age_s = None if isinstance(found.carries, NoSignal) else now - found.learnt_at
        signals = found.observed.signals(ready, found.target_s, found.objective.quantile, now)
        found.signals = replace(signals, capacity_age_s=age_s)
        flaws = found.observed.flaws(ready, now)
        found.refused = None
        if flaws:
            name, flaw = next(iter(flaws.items()))
            found.refused = Refused(name, flaw.flaw, flaw.message, len(flaws))
        self._note_minute(found, now)
        bounds, before = sizing.scaling(found.snapshot.spec), found.decision
        if bounds is not None and found.size is not None:
            started = time.perf_counter()
            decision, found.memory = replicas.decide(
                found.signals,
                self._standing(key, found, len(ready)),
                bounds,
                self._believed(found),
                found.memory,
                self._wall(),
            )
            metrics.DECISION_DURATION.observe(time.perf_counter() - started)
            found.decision = sizing.unless_rolling(found.snapshot, found.size, decision)
            if found.decision.size != found.size:
                log.info(
                    "decided deployment=%s from=%d to=%d limit=%s message=%r",
                    key, found.size, found.decision.size, found.decision.limit, found.decision.message,
                )  # fmt: skip
                self._resize(found, found.decision)
                self._promises.note(key, found.snapshot, found.size)
                self._publish(found)
                self._changed(key)
                return
        if self._is_worth_telling(found, before, now):
            self._publish(found)
            self._changed(key)

    def _standing(self, key: Key, found: Watched, ready: int) -> replicas.Fleet:
        others, seen_s = self._promises.beside(key), found.starts.seconds()
        start_s = COLD_START_S if seen_s is None else seen_s
        return placement.fleet(found.snapshot, found.size or 0, ready, self._fleet(), others, start_s)

    def _believed(self, found: Watched) -> Capacity | NoSignal:
        return (
            found.carries if isinstance(found.carries, NoSignal) else found.carries.derated(found.speed.derating.factor)
        )

    @staticmethod
    def _is_attainable(found: Watched) -> bool:
        return isinstance(found.carries, NoSignal) or found.carries.is_attainable

    def _resize(self, found: Watched, decision: Decision) -> None:
        assert found.size is not None, "there is one before another"
        row = sizing.decided(decision, found.size, datetime.fromtimestamp(self._wall(), UTC))
        found.decisions = (row, *found.decisions)[:KEPT_DECISIONS]
        found.size = decision.size

    def _publish(self, found: Watched) -> None:
        found.published_at = self._clock()
        missed, minutes = found.minutes.counted(found.published_at)
        can_spare, needs_all = self._spare(found)
        found.published = Sizing(
            size=found.size,
            latency=found.signals.latency_s if found.signals is not None else NoMetrics(),
            measured_at=datetime.fromtimestamp(self._wall(), UTC),
            decision=found.decision,
            is_attainable=self._is_attainable(found),
            missed=missed,
            minutes=minutes,
            refused=found.refused,
            decisions=found.decisions,
            can_spare=can_spare,
            needs_all=needs_all,
        )

    def _spare(self, found: Watched) -> tuple[bool, bool]:
        believed = self._believed(found) if self._is_attainable(found) else NO_SIGNAL
        return sizing.spare(found.signals, found.size, believed)

    def _is_worth_telling(self, found: Watched, before: Decision | None, now: float) -> bool:
        told, signals = found.published, found.signals
        assert told is not None, "a plan was made before the first round"
        assert signals is not None, "measured"
        if type(told.latency) is not type(signals.latency_s):
            return True
        if (told.refused is None) != (found.refused is None) or (told.decision is None) != (found.decision is None):
            return True
        beside = found.snapshot.status.canary_revision
        if beside is not None and self._spare(found) != (told.can_spare, told.needs_all):
            return True
        if now - found.published_at < TELL_S:
            return False
        if told.decision is not None and found.decision is not None and told.decision.limit != found.decision.limit:
            return True
        if isinstance(told.latency, Fresh) and isinstance(signals.latency_s, Fresh):
            moved = abs(signals.latency_s.value / told.latency.value - 1.0) > MOVED
            return moved or told.missed != found.minutes.counted(now).missed
        return False

    def _note_minute(self, found: Watched, now: float) -> None:
        """Judge the minute that is over, and how much of the model's capacity to believe."""
        if now - found.minute_at < 60.0:
            return
        signals, found.minute_at = found.signals, now
        if signals is None or not isinstance(signals.latency_s, Fresh):
            return
        found.minutes.note(is_missed=signals.latency_s.value > found.target_s, now=now)
        sample = found.observed.sample(found.target_s, found.objective.quantile)
        if isinstance(found.carries, NoSignal) or isinstance(sample, NoSignal) or not signals.heard:
            return
        is_calm = isinstance(signals.queued, Fresh) and signals.queued.value < 1.0 and not self._is_cold(found)
        load = sample.requests * found.observed.request_rows().mean / WINDOW_S / signals.counted
        found.speed.derating.look(found.carries, sample, found.target_s, load, now, is_calm=is_calm)

    def _is_cold(self, found: Watched) -> bool:
        now = self._wall()
        live = [r for r in found.snapshot.replicas if not r.terminating]
        return any(not r.ready or (r.ready_at is not None and now - r.ready_at.timestamp() < 60.0) for r in live)

    async def _restore(self, key: Key, found: Watched) -> None:
        kept = await self._memories.restored(key, found.deployment)
        if kept is None:
            return
        found.memory, found.speed, carried = kept
        if carried is not None and carried.is_for(found.target_s, found.objective.quantile):
            found.latest.found = carried

    async def _save(self, key: Key, found: Watched) -> None:
        if found.snapshot.spec.scaling is not None:
            await self._memories.keep(key, found.deployment, found.memory, found.speed, found.latest.found)
