"""What does the law do while something is broken? Whole hours of single requests, with and without each fault.

Every run has the same arrivals and the same choices of replicas. A fault may cost replicas, never the target: the size
must not fall below that of the run without it, and has to be back beside it ten minutes after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evenkeel_operator.decide.replicas import Scaling
from evenkeel_operator.simulate.load import Floats, arrivals
from evenkeel_operator.simulate.operated import NO_FAULTS, Faults, Operated
from evenkeel_operator.simulate.profile import REFERENCE
from evenkeel_operator.simulate.requests import Outcome, Service
from tests.bench.control.demand import PEAK_REPLICAS, Demand

COLD_START_S = 60
SECONDS = 3600
BEGIN_S, LONG_S, SHORT_S = 1500, 600, 300
AFTER_S = 600
SETTLE_S = 60
"""The size of five seconds is compared with the highest of the minute before it without the fault: a decision that
comes a poll later is none that is lower."""

LONG = Faults(BEGIN_S, BEGIN_S + LONG_S)
SHORT = Faults(BEGIN_S, BEGIN_S + SHORT_S)
FAULTS: dict[str, Faults] = {
    "none": NO_FAULTS,
    "10 % of answers lost": replace(LONG, lost=0.1),
    "half the replicas silent": replace(LONG, silent=True),
    "operator away for 5 min": replace(SHORT, down=True),
    "clock 60 s ahead": replace(LONG, step_s=60.0),
    "clock 60 s behind": replace(LONG, step_s=-60.0),
    "profile 30 % too slow": replace(LONG, profile=1.3),
    "profile 30 % too fast": replace(LONG, profile=0.7),
    "one device 1.5 x as slow": LONG,
}
SLOW = "one device 1.5 x as slow"


@dataclass(frozen=True)
class Row:
    """One fault: what came of it, seconds below the run without it, and how far off the size is ten minutes after."""

    fault: str
    outcome: Outcome
    below_s: int
    off_after: int


def hour(demands: Sequence[Demand]) -> Floats:
    """Return the expected arrivals of the busiest whole hour that ends in a burst after BEGIN_S, of all demands."""
    best: tuple[float, Floats] | None = None
    for each in demands:
        for begin in range(0, max(1, len(each.expected) - SECONDS + 1), SECONDS):
            part = each.expected[begin : begin + SECONDS]
            if len(part) < BEGIN_S + LONG_S + AFTER_S:
                continue
            before, during = part[BEGIN_S - 600 : BEGIN_S].mean(), part[BEGIN_S : BEGIN_S + LONG_S].mean()
            rise = float(during - before)
            if best is None or rise > best[0]:
                best = rise, part
    assert best is not None, "there is an hour"
    return best[1]


def rows(expected: Floats, seed: int) -> list[Row]:
    """Return what every fault does to one hour."""
    counts = arrivals(expected, seed)
    found = {name: _run(name, faults, counts, seed) for name, faults in FAULTS.items()}
    plain = found["none"].asked
    return [Row(name, outcome, *_beside(FAULTS[name], outcome, plain)) for name, outcome in found.items()]


def _run(name: str, faults: Faults, counts: Floats, seed: int) -> Outcome:
    scaling = Scaling(1, 2 * PEAK_REPLICAS, REFERENCE.target_s, REFERENCE.quantile)
    first = int(np.clip(np.ceil(counts[:60].mean() / REFERENCE.capacity.rate), 1, scaling.most))
    slower = {0: 1.5} if name == SLOW else {}
    service = Service(REFERENCE, COLD_START_S, first, scaling.least, scaling.most, slower)
    return service.run(counts, Operated(scaling, COLD_START_S, faults, seed), seed)


def _beside(faults: Faults, outcome: Outcome, plain: Sequence[int] | np.typing.NDArray[np.int64]) -> tuple[int, int]:
    sizes = outcome.asked
    below = sum(
        int(sizes[second]) < int(min(plain[max(0, second - SETTLE_S) : second + 1]))
        for second in range(faults.begin, faults.end)
    )
    after = min(faults.end + AFTER_S, len(sizes) - 1)
    return below, abs(int(sizes[after]) - int(plain[after])) if faults.end else 0
