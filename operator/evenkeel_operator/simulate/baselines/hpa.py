"""Kubernetes' HorizontalPodAutoscaler.

Source: kubernetes/kubernetes pkg/controller/podautoscaler/{replica_calculator,horizontal}.go and the defaults of
autoscaling/v2: sync every 15 s, tolerance 10 %, up by the larger of 4 pods and 100 % in 15 s, down by 100 % in 15 s
after a stabilisation of 300 s (the highest proposal of that time counts), up without one.
"""

from __future__ import annotations

from enum import Enum

import numpy as np
import numpy.typing as npt

from evenkeel_operator.simulate.baselines.highest import Highest
from evenkeel_operator.simulate.fluid import State
from evenkeel_operator.simulate.load import Floats
from evenkeel_operator.simulate.profile import BUDGETS, LOADS, Profile

SYNC_S = 15
TOLERANCE = 0.1
STABILISATION_S = 300
METRICS_S = 60
"""What a metric is averaged over: the usual rate(…[1m]) of an adapter. Pods' CPU comes over 15 s."""

SCRAPE_S = 15
SAMPLE_S = 5
"""The histogram is fed every fifth second."""

EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0, 4.0)
"""Of the latency's histogram, in targets."""


class Metric(Enum):
    """What the HPA looks at."""

    RPS = "rps"
    LATENCY = "latency"
    CPU = "cpu"


def average_value(total: Floats, target: Floats, replicas: Floats) -> Floats:
    """Return the replicas for an Object or External metric with an AverageValue."""
    ratio = total / (target * replicas)
    return np.where(np.abs(1.0 - ratio) <= TOLERANCE, replicas, np.ceil(total / target - 1e-6)).astype(np.float32)


def value(usage: Floats, target: Floats, replicas: Floats, ready: Floats) -> Floats:
    """Return the replicas for an Object or External metric with a Value: a ratio times the pods that are ready."""
    ratio = usage / target
    wanted = np.ceil(ratio * ready - 1e-6)
    return np.where(np.abs(1.0 - ratio) <= TOLERANCE, replicas, wanted).astype(np.float32)


def pods(usage: Floats, target: Floats, replicas: Floats, ready: Floats) -> Floats:
    """Return the replicas for a Resource metric, `usage` being the mean of the `ready` pods.

    Pods that are not ready count as using nothing where the others ask for more; where that turns the direction,
    nothing changes.
    """
    ratio = usage / target
    unready = replicas - ready
    diluted = usage * ready / np.maximum(replicas, 1.0) / target
    is_up = (ratio > 1.0) & (unready > 0)
    new = np.where(is_up, diluted, ratio)
    still = (np.abs(1.0 - new) <= TOLERANCE) | (is_up & (new < 1.0))
    counted = np.where(is_up, replicas, ready)
    plain = np.where(np.abs(1.0 - ratio) <= TOLERANCE, replicas, np.ceil(ratio * ready - 1e-6))
    wanted = np.where(is_up, np.where(still, replicas, np.ceil(new * counted - 1e-6)), plain)
    # A size that would go against the direction is not taken.
    against = is_up & (wanted < replicas)
    return np.where(against, replicas, wanted).astype(np.float32)


class Behaviour:
    """The stabilisation and the pace that apply to every proposal."""

    def __init__(self, stabilisation_s: npt.NDArray[np.int64], sync_s: int = SYNC_S) -> None:
        self._highest = Highest(np.maximum(1, stabilisation_s // sync_s + 1))

    def apply(self, proposal: Floats, replicas: Floats) -> Floats:
        """Return what is asked for: no lower than any proposal of the window, no faster than the pace."""
        highest = self._highest.add(proposal)
        stable = np.where(proposal < replicas, np.minimum(replicas, highest), proposal)
        fastest = np.maximum(replicas + 4.0, replicas * 2.0)
        found: Floats = np.minimum(stable, fastest).astype(np.float32)
        return found


class Hpa:
    """A grid of HPAs on one metric: a `targets` entry and a `stabilisations_s` entry for each configuration.

    Targets: requests per second of a replica; seconds of latency; share of the CPU; requests of a replica.
    """

    def __init__(
        self,
        metric: Metric,
        targets: npt.ArrayLike,
        stabilisations_s: npt.ArrayLike,
        profile: Profile,
    ) -> None:
        self._metric = metric
        self._targets = np.asarray(targets, np.float32)[None, :]
        self._behaviour = Behaviour(np.asarray(stabilisations_s, np.int64))
        self.width = self._targets.shape[1]
        self._profile = profile
        self.every_s = SAMPLE_S if metric is Metric.LATENCY else SYNC_S
        self._histogram: list[npt.NDArray[np.float64]] = []
        self._counts: npt.NDArray[np.float64] | None = None

    def observe(self, state: State) -> Floats | None:
        if self._metric is Metric.LATENCY:
            self._count(state)
        if state.second % SYNC_S:
            return None
        return self._behaviour.apply(self._proposal(state), state.asked)

    def _proposal(self, state: State) -> Floats:
        match self._metric:
            case Metric.RPS:
                total = state.arrivals.mean(state.columns, METRICS_S, SCRAPE_S // 2)
                return average_value(total, self._targets, state.asked)
            case Metric.CPU:
                usage = state.busy.mean(state.columns, SCRAPE_S, SCRAPE_S // 2)
                return pods(usage, self._targets, state.asked, state.ready)
            case Metric.LATENCY:
                seen = self._quantile()
                wanted = value(np.nan_to_num(seen), self._targets, state.asked, state.ready)
                # histogram_quantile of no requests is NaN: an invalid metric, on which nothing is done.
                return np.where(np.isnan(seen), state.asked, wanted)

    def _count(self, state: State) -> None:
        profile = self._profile
        column = np.minimum(LOADS - 1, (state.load * LOADS).astype(np.int32))
        if self._counts is None:
            self._counts = np.zeros((len(EDGES) + 1, *state.asked.shape), np.float64)
        edges = np.array(EDGES, np.float32)[:, None, None]
        budget = np.clip((edges - state.wait_s / profile.target_s) * (BUDGETS - 1), 0, BUDGETS - 1).astype(np.int32)
        arrived = state.arrivals.mean(state.columns, SAMPLE_S)
        within = arrived * (1.0 - profile.late[column[None] * BUDGETS + budget])
        # Beyond the target the table ends; what is late by less than the edge allows counts as within it.
        beyond = (edges > 1.0) & (state.wait_s[None] / profile.target_s + 1.0 <= edges)
        self._counts[:-1] += np.where(beyond, arrived, within)
        self._counts[-1] += arrived
        if state.second % SCRAPE_S == 0:
            self._histogram.append(self._counts.copy())
            del self._histogram[: -(METRICS_S // SCRAPE_S + 1)]

    def _quantile(self) -> Floats:
        """Return histogram_quantile over the scrapes of the last minute: linear within a bucket."""
        assert self._counts is not None
        counts = self._histogram[-1] - self._histogram[0] if len(self._histogram) > 1 else self._counts
        total = counts[-1]
        rank = self._profile.quantile * total
        bounds = np.array([0.0, *EDGES]) * self._profile.target_s
        cumulative = np.concatenate([np.zeros_like(total)[None], np.maximum.accumulate(counts[:-1], axis=0)])
        index = np.sum(cumulative[1:] < rank[None], axis=0)
        capped = np.minimum(index, len(EDGES) - 1)
        low = np.take_along_axis(cumulative, capped[None], axis=0)[0]
        high = np.take_along_axis(cumulative, capped[None] + 1, axis=0)[0]
        share = np.clip((rank - low) / np.maximum(high - low, 1e-9), 0.0, 1.0)
        found = bounds[capped] + share * (bounds[capped + 1] - bounds[capped])
        found = np.where(index >= len(EDGES), bounds[-1], found)
        return np.where(total > 1e-6, found, np.nan).astype(np.float32)
