"""Do single requests and their flow tell the same story? The same hours under the same autoscalers, in both engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evenkeel_operator.decide.replicas import Scaling
from evenkeel_operator.simulate import fluid
from evenkeel_operator.simulate.baselines.hpa import STABILISATION_S, Hpa, Metric
from evenkeel_operator.simulate.baselines.static import Static
from evenkeel_operator.simulate.clients import OpenClients
from evenkeel_operator.simulate.fluid import Autoscaler
from evenkeel_operator.simulate.law import Law, Setting
from evenkeel_operator.simulate.load import arrivals
from evenkeel_operator.simulate.profile import REFERENCE
from evenkeel_operator.simulate.requests import Service
from tests.bench.control.demand import PEAK_REPLICAS, Demand

COLD_START_S = 60
HOUR_S = 3600
MOST = 2 * PEAK_REPLICAS
LEAST_LATE = 0.01
"""Shares below this are of so few requests that a tenth of them is chance."""

_SCALING = Scaling(1, MOST, REFERENCE.target_s, REFERENCE.quantile)
AUTOSCALERS: dict[str, Callable[[], Autoscaler]] = {
    "Evenkeel": lambda: Law(Setting(_SCALING, REFERENCE.capacity, float(COLD_START_S)), 1),
    "HPA rps": lambda: Hpa(Metric.RPS, [0.7 * REFERENCE.capacity.rate], [STABILISATION_S], REFERENCE),
    "static": lambda: Static([PEAK_REPLICAS // 2]),
}


@dataclass(frozen=True)
class Row:
    """One hour under one autoscaler: shares of late requests and GPU seconds, of single requests and of the flow."""

    trace: str
    autoscaler: str
    late: tuple[float, float]
    gpu_s: tuple[float, float]

    @property
    def differ(self) -> float:
        """By which part the shares of late requests differ; those below LEAST_LATE count as that."""
        single, flow = (max(LEAST_LATE, late) for late in self.late)
        return abs(flow / single - 1.0)


def rows(demands: Sequence[Demand], seed: int) -> list[Row]:
    """Return the busiest hour of each demand under each autoscaler."""
    return [_row(each, name, seed) for each in demands for name in AUTOSCALERS]


def _row(demand: Demand, name: str, seed: int) -> Row:
    begins = range(0, max(1, len(demand.expected) - HOUR_S + 1), HOUR_S)
    begin = max(begins, key=lambda at: float(demand.expected[at : at + HOUR_S].sum()))
    counts = arrivals(demand.expected[begin : begin + HOUR_S], seed)
    first = int(np.clip(np.ceil(counts[:60].mean() / REFERENCE.capacity.rate), 1, MOST))
    single = Service(REFERENCE, COLD_START_S, first, most=MOST).run(counts, AUTOSCALERS[name](), seed)
    world = fluid.World(REFERENCE, np.array([first], np.float32), most=MOST)
    flow = fluid.run(world, [fluid.Fleet(AUTOSCALERS[name](), COLD_START_S)], OpenClients(counts[:, None]), len(counts))
    late, gpu_s = (float(values[0, 0]) for values in (flow.violation, flow.gpu_s))
    return Row(demand.trace, name, (single.violation, late), (single.gpu_s, gpu_s))
