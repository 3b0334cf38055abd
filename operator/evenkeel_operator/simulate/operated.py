"""The operator's own eyes and memory around the law, for replicas that answer like real ones, and what goes wrong.

`requests.Pod.reading` stands for what a replica answers; adding up, learning how long batches take, believing less of
the model and deciding are the operator's own code, in the order in which it calls them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from evenkeel_operator.decide import capacity, replicas
from evenkeel_operator.decide.capacity import ARRIVALS, Capacity, Roofline
from evenkeel_operator.decide.memory import Memory
from evenkeel_operator.decide.observed import WINDOW_S, Batches, Observed
from evenkeel_operator.decide.readings import BadReading, Flaw
from evenkeel_operator.decide.replicas import Fresh, Scaling, Signals
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal
from evenkeel_operator.decide.speed import LEARN_S, Speed
from evenkeel_operator.simulate.fluid import State
from evenkeel_operator.simulate.law import TICK_S
from evenkeel_operator.simulate.load import Floats
from evenkeel_operator.simulate.requests import Pod, Seen

UNANSWERED = BadReading(Flaw.TOO_SLOW, "the answer was lost")
MOVED = 0.03
"""Batch times that differ by less have the same capacity: as in the operator, where it is remembered."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong between `begin` and `end` seconds: at most one of the others is meant to differ from nothing.

    `lost`: the share of answers that do not come. `silent`: whether every other replica says nothing. `down`: whether
    the operator is not there, and comes back with what it had kept. `step_s`: by what its clock is off. `profile`: by
    what the profile that replicas measured at load is off, all the time.
    """

    begin: int = 0
    end: int = 0
    lost: float = 0.0
    silent: bool = False
    down: bool = False
    step_s: float = 0.0
    profile: float = 1.0

    def is_at(self, second: int) -> bool:
        """Return whether it is now."""
        return self.begin <= second < self.end


NO_FAULTS = Faults()


class Operated:
    """One deployment as the operator watches it; one run. `memory`, handed over, is what it has learnt before."""

    width = 1
    every_s = TICK_S

    def __init__(
        self,
        scaling: Scaling,
        cold_start_s: float,
        faults: Faults = NO_FAULTS,
        seed: int = 0,
        *,
        memory: Memory | None = None,
        model_arrivals: int = ARRIVALS,
    ) -> None:
        self._scaling = scaling
        self._cold_start_s = cold_start_s
        self._faults = faults
        self._source = Random(seed)
        self._model_arrivals = model_arrivals
        self._observed = Observed()
        self._memory = Memory() if memory is None else memory
        self._speed = Speed()
        self._carries: Capacity | NoSignal = NO_SIGNAL
        self._computed_for: Roofline | None = None
        self._learnt_at = 0.0
        self._looked_at = 0.0
        self._was_down = False

    def observe(self, state: State) -> Floats | None:
        assert isinstance(state, Seen), "replicas have to be there to be asked"
        is_fault = self._faults.is_at(state.second)
        if is_fault and self._faults.down:
            self._was_down = True
            return None
        if self._was_down:
            self._restart()
        now = float(state.second + 1)
        self._ask(state.pods, is_fault, now)
        self._learn(now)
        asked, ready = int(state.asked[0, 0]), len(state.pods)
        names = [pod.name for pod in state.pods]
        signals = self._observed.signals(names, self._scaling.target_s, self._scaling.quantile, now)
        self._derate(signals, is_cold=asked > ready, now=now)
        factor, carries = self._speed.derating.factor, self._carries
        believed = carries if isinstance(carries, NoSignal) else carries.derated(factor)
        wall = now + (self._faults.step_s if is_fault else 0.0)
        fleet = replicas.Fleet(asked, ready, None, self._cold_start_s)
        decision, self._memory = replicas.decide(signals, fleet, self._scaling, believed, self._memory, wall)
        wanted = state.asked.copy()
        wanted[0, 0] = decision.size
        return wanted

    def _ask(self, pods: Sequence[Pod], is_fault: bool, now: float) -> None:
        self._observed.keep({pod.name for pod in pods})
        batches: list[Batches] = []
        for index, pod in enumerate(pods):
            is_lost = self._source.random() < self._faults.lost
            if is_fault and (is_lost or (self._faults.silent and index % 2)):
                self._observed.note(pod.name, UNANSWERED, now)
                continue
            reading = pod.reading(now)
            off = self._faults.profile
            reading = replace(reading, profile=tuple((rows, took * off) for rows, took in reading.profile))
            batches += self._observed.note(pod.name, reading, now)
        self._speed.note(batches, TICK_S)

    def _learn(self, now: float) -> None:
        if self._carries is not NO_SIGNAL and not self._speed.is_due(now - self._learnt_at):
            return
        elapsed_s = now - self._learnt_at if self._learnt_at else 0.0
        found = self._speed.learn(*self._observed.profile(), elapsed_s, self._observed.engines())
        self._learnt_at = now
        if isinstance(found, NoSignal):
            return
        if self._computed_for is None or _has_moved(self._computed_for, found):
            self._computed_for = found
            self._carries = capacity.capacity(
                found, self._scaling.target_s, self._scaling.quantile, arrivals=self._model_arrivals
            )

    def _derate(self, signals: Signals, *, is_cold: bool, now: float) -> None:
        if now - self._looked_at < LEARN_S:
            return
        self._looked_at = now
        carries, queued = self._carries, signals.queued
        sample = self._observed.sample(self._scaling.target_s, self._scaling.quantile)
        if isinstance(carries, NoSignal) or isinstance(sample, NoSignal) or not isinstance(signals.latency_s, Fresh):
            return
        is_calm = isinstance(queued, Fresh) and queued.value < 1.0 and not is_cold
        load = sample.requests * self._observed.request_rows().mean / WINDOW_S / max(1, signals.counted)
        self._speed.derating.look(carries, sample, self._scaling.target_s, load, now, is_calm=is_calm)

    def _restart(self) -> None:
        """Begin anew from what outlives the process."""
        self._was_down = False
        self._memory = Memory.from_json(self._memory.to_json())
        self._observed = Observed()
        kept = self._speed.to_json()
        self._speed = Speed() if kept is None else Speed.from_json(kept)


def _has_moved(before: Roofline, after: Roofline) -> bool:
    sizes = (1, max(1, after.max_rows // 2), after.max_rows)
    return (before.max_rows, before.engines) != (after.max_rows, after.engines) or any(
        abs(after.seconds(rows) / before.seconds(rows) - 1.0) > MOVED for rows in sizes
    )
