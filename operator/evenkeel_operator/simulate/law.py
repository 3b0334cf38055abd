"""The operator's own law as an autoscaler of the simulator: `decide.replicas.decide`, as the operator calls it."""

from __future__ import annotations

from dataclasses import dataclass

from evenkeel_operator.decide.capacity import Capacity
from evenkeel_operator.decide.experts import TUNING, Experts, Tuning
from evenkeel_operator.decide.memory import Memory
from evenkeel_operator.decide.replicas import (
    Decision,
    Fleet,
    Fresh,
    Measurement,
    NoMetrics,
    NoTraffic,
    Scaling,
    Signals,
    decide,
)
from evenkeel_operator.simulate.fluid import State
from evenkeel_operator.simulate.load import Floats

TICK_S = 5


@dataclass(frozen=True)
class Setting:
    """What the law is told: the spec, what it believes of a replica, and how old its signals are."""

    scaling: Scaling
    capacity: Capacity
    cold_start_s: float
    lag_s: int = 0
    tuning: Tuning = TUNING


class Law:
    """One configuration, every run with a memory of its own. `last` is what was decided last in the first run."""

    width = 1
    every_s = TICK_S

    def __init__(self, setting: Setting, runs: int) -> None:
        self._setting = setting
        self._memories = [Memory(experts=Experts(0, setting.tuning)) for _ in range(runs)]
        self._delayed: list[tuple[Floats, Floats]] = []
        self.last: Decision | None = None

    def memory(self, run: int) -> Memory:
        """Return what the law remembers in `run`."""
        return self._memories[run]

    def observe(self, state: State) -> Floats | None:
        setting = self._setting
        self._delayed.append((state.arrivals.mean(state.columns, TICK_S), state.queued.copy()))
        if len(self._delayed) <= setting.lag_s // TICK_S:
            return None
        rates, queued = self._delayed.pop(0)
        wanted = state.asked.copy()
        for run, memory in enumerate(self._memories):
            size = int(state.asked[run, 0])
            ready = int(state.ready[run, 0])
            decision, self._memories[run] = decide(
                signals_of(float(rates[run, 0]), float(queued[run, 0]), ready, ready, setting.lag_s),
                Fleet(size, ready, None, setting.cold_start_s),
                setting.scaling,
                setting.capacity,
                memory,
                float(state.second),
            )
            wanted[run, 0] = decision.size
            if run == 0:
                self.last = decision
        return wanted


def signals_of(rate: float, queued: float, ready: int, heard: int, age_s: float) -> Signals:
    """Return what a fleet says that is as busy as that."""
    demand: Measurement = Fresh(rate, age_s) if rate > 0 else NoTraffic(age_s)
    return Signals(demand, Fresh(queued, age_s), NoMetrics(), ready, heard, float(TICK_S))
