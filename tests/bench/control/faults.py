"""What does the law do while something is broken? Whole hours of single requests, with and without each fault.

Every run has the same arrivals and the same choices of replicas, and the law has watched the hours before. A fault may
cost replicas, never the target: in no second of it may the size be below that of the run without it, and ten minutes
after it has to be back beside it. Where the operator is away nothing is decided, and a size that stands still falls
below one that grows; so there it is also told how long that lasts once it decides again, from its second decision on:
the first asks replicas for the counts that the next subtracts.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np

from evenkeel_operator.decide.memory import Memory
from evenkeel_operator.decide.replicas import Scaling
from evenkeel_operator.simulate import fluid
from evenkeel_operator.simulate.clients import OpenClients
from evenkeel_operator.simulate.law import TICK_S, Law, Setting
from evenkeel_operator.simulate.load import Floats, arrivals
from evenkeel_operator.simulate.operated import NO_FAULTS, Faults, Operated
from evenkeel_operator.simulate.profile import REFERENCE
from evenkeel_operator.simulate.requests import Outcome, Service, Slow
from tests.bench.control.demand import PEAK_REPLICAS, Demand

COLD_START_S = 60
SECONDS = 3600
BEGIN_S, LONG_S, SHORT_S = 1500, 600, 300
AFTER_S = 600
BEFORE_S = 6 * 3600
"""What the law has watched before: losses of that age count by half."""
HOURS = 3

LONG = Faults(BEGIN_S, BEGIN_S + LONG_S)
SHORT = Faults(BEGIN_S, BEGIN_S + SHORT_S)
NONE = "none"
SLOW = "one device 1.5 x as slow"
FAULTS: dict[str, Faults] = {
    NONE: NO_FAULTS,
    "10 % of answers lost": replace(LONG, lost=0.1),
    "half the replicas silent": replace(LONG, silent=True),
    "operator away for 5 min": replace(SHORT, down=True),
    "clock 60 s ahead": replace(LONG, step_s=60.0),
    "clock 60 s behind": replace(LONG, step_s=-60.0),
    "profile 30 % too slow": replace(LONG, profile=1.3),
    "profile 30 % too fast": replace(LONG, profile=0.7),
    SLOW: LONG,
}

_SCALING = Scaling(1, 2 * PEAK_REPLICAS, REFERENCE.target_s, REFERENCE.quantile)


@dataclass(frozen=True)
class Hour:
    """Expected arrivals of the seconds of an hour, and of those before it."""

    trace: str
    before: Floats
    expected: Floats


@dataclass(frozen=True)
class Row:
    """One fault in one hour, beside the same hour without it.

    `below_s`: seconds of the fault in which the size was lower, by at most `below`; `back_s`: likewise in the SHORT_S
    seconds in which the operator that was away decides again. `off_after`: how many replicas the size is off ten
    minutes after.
    """

    fault: str
    trace: str
    outcome: Outcome
    below_s: int
    below: int
    back_s: int
    off_after: int


def hours(demands: Sequence[Demand]) -> list[Hour]:
    """Return the hours in which demand rises most after BEGIN_S, one of each of HOURS traces, with hours before."""
    best: dict[str, tuple[float, Hour]] = {}
    for each in demands:
        for begin in range(BEFORE_S, len(each.expected) - SECONDS + 1, SECONDS):
            part = each.expected[begin : begin + SECONDS]
            before, during = part[BEGIN_S - 600 : BEGIN_S].mean(), part[BEGIN_S : BEGIN_S + LONG_S].mean()
            rise = float(during - before)
            if each.trace not in best or rise > best[each.trace][0]:
                best[each.trace] = rise, Hour(each.trace, each.expected[begin - BEFORE_S : begin], part)
    assert best, "a trace is longer than the hours before"
    return [hour for _, hour in sorted(best.values(), key=lambda found: found[0], reverse=True)[:HOURS]]


def rows(hour: Hour, seed: int) -> list[Row]:
    """Return what every fault does to one hour."""
    memory, first = _watched(hour.before, seed)
    counts = arrivals(hour.expected, seed)
    found = {name: _run(name, counts, deepcopy(memory), first, seed) for name in FAULTS}
    return [row(name, hour.trace, outcome, found[NONE]) for name, outcome in found.items()]


def _watched(expected: Floats, seed: int) -> tuple[Memory, int]:
    """Return what is remembered after such a demand, and the size in the end."""
    law = Law(Setting(_SCALING, REFERENCE.capacity, float(COLD_START_S)), 1)
    counts = arrivals(expected, seed)
    world = fluid.World(REFERENCE, np.array([PEAK_REPLICAS], np.float32), most=_SCALING.most)
    fluid.run(world, [fluid.Fleet(law, COLD_START_S)], OpenClients(counts[:, None]), len(counts))
    assert law.last is not None, "it has decided"
    return law.memory(0), law.last.size


def _run(name: str, counts: Floats, memory: Memory, first: int, seed: int) -> Outcome:
    slow = {0: Slow(1.5, BEGIN_S, BEGIN_S + LONG_S)} if name == SLOW else {}
    service = Service(REFERENCE, COLD_START_S, first, _SCALING.least, _SCALING.most, slow)
    return service.run(counts, Operated(_SCALING, COLD_START_S, FAULTS[name], seed, memory=memory), seed)


def row(name: str, trace: str, outcome: Outcome, plain: Outcome) -> Row:
    """Return how an hour with the fault went beside the same one without."""
    faults, sizes, beside = FAULTS[name], outcome.asked, plain.asked

    lacking = beside - sizes
    during = lacking[faults.begin : faults.end]
    back = faults.end + 2 * TICK_S
    returned = lacking[back : back + SHORT_S] if faults.down else during[:0]
    after = min(faults.end + AFTER_S, len(sizes) - 1)
    return Row(
        name,
        trace,
        outcome,
        int((during > 0).sum()),
        max(0, int(during.max(initial=0))),
        int((returned > 0).sum()),
        abs(int(lacking[after])) if faults.end else 0,
    )
