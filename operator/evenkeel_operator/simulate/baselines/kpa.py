"""Knative's autoscaler (KPA).

Source: knative/serving @98e5ef90aa70 pkg/autoscaler/scaling/autoscaler.go, aggregation/max and config/config.go: a
decision every 2 s from the means of a stable window (60 s) and a panic window (a tenth of it); panic when the short
one asks for twice the pods that are ready, until it has not for a stable window; no removal while in panic; then the
highest of the scale-down delay. Limits: 1000 times up, a half down.

On concurrency it is a loop: requests in flight grow with the load of a pod, so fewer pods have more of them. With E the
elasticity of what is in flight in a pod to its load, the pods wanted change by 1 - E parts for each part by which those
present are off: a target where E is above 2 has no size at which it stays, even without any delay. Batching servers
get there at about three quarters of their capacity, and the queue of a start adds to it: the size swings between too
few and the most. The mean of both windows over all pods, queues included, is what Knative's collector sums up too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evenkeel_operator.simulate.baselines.highest import Highest
from evenkeel_operator.simulate.fluid import State
from evenkeel_operator.simulate.load import Floats

TICK_S = 2
PANIC_SHARE = 0.1


@dataclass(frozen=True)
class Limits:
    """Of the config map config-autoscaler."""

    panic_threshold: float = 2.0
    max_up: float = 1000.0
    max_down: float = 2.0


class Decider:
    """The decision alone, with its state: [run, configuration]. `targets` is wanted of one pod."""

    def __init__(
        self,
        targets: npt.ArrayLike,
        stable_s: npt.ArrayLike,
        delay_s: npt.ArrayLike,
        limits: Limits | None = None,
        first_ready: int = 0,
    ) -> None:
        self._targets = np.asarray(targets, np.float32)[None, :]
        self._stable = np.asarray(stable_s, np.float32)[None, :]
        self._limits = limits or Limits()
        self._delay = Highest(np.maximum(1, np.ceil(np.asarray(delay_s, np.float64) / TICK_S)).astype(np.int64))
        # Panic begins with more than one pod, so that a restart, which knows no history, removes none.
        self._panic_at: Floats | None = None
        self._first_ready = first_ready
        self._most: Floats

    def decide(self, stable: Floats, panic: Floats, ready: Floats, now: float) -> Floats:
        """Return the pods wanted, for the means of both windows summed over all pods."""
        limits = self._limits
        if self._panic_at is None:
            in_panic = self._first_ready > 1
            self._panic_at = np.full(ready.shape, now if in_panic else -np.inf, np.float32)
            self._most = np.full(ready.shape, float(self._first_ready), np.float32)
        pods = np.maximum(1.0, ready)
        highest = np.ceil(limits.max_up * pods)
        lowest = np.floor(pods / limits.max_down)
        by_stable = np.ceil(stable / self._targets)
        by_panic = np.ceil(panic / self._targets)
        wanted = np.minimum(np.maximum(by_stable, lowest), highest)
        urgent = np.minimum(np.maximum(by_panic, lowest), highest)
        is_over = by_panic / pods >= limits.panic_threshold
        is_past = ~is_over & (self._panic_at + self._stable < now)
        self._most = np.where(is_past & np.isfinite(self._panic_at), 0.0, self._most)
        self._panic_at = np.where(is_over, now, np.where(is_past, -np.inf, self._panic_at)).astype(np.float32)
        in_panic_now = np.isfinite(self._panic_at)
        self._most = np.where(in_panic_now, np.maximum(self._most, np.maximum(wanted, urgent)), self._most)
        wanted = np.where(in_panic_now, self._most, wanted).astype(np.float32)
        return self._delay.add(wanted)


class Kpa:
    """A grid of KPAs: `targets` for each pod, in requests in flight or, if `on_rps`, in requests per second."""

    every_s = TICK_S

    def __init__(
        self, targets: npt.ArrayLike, stable_s: npt.ArrayLike, delay_s: npt.ArrayLike, *, on_rps: bool = False
    ) -> None:
        self._windows = np.asarray(stable_s, np.int64)
        self._decider = Decider(targets, stable_s, delay_s)
        self._on_rps = on_rps
        self.width = len(self._windows)

    def observe(self, state: State) -> Floats | None:
        seen = state.arrivals if self._on_rps else state.in_flight
        stable, panic = np.empty_like(state.asked), np.empty_like(state.asked)
        for window in np.unique(self._windows):
            columns = self._windows == window
            stable[:, columns] = seen.mean(state.columns, int(window))[:, columns]
            panic[:, columns] = seen.mean(state.columns, int(window * PANIC_SHARE))[:, columns]
        return self._decider.decide(stable, panic, state.ready, float(state.second))
