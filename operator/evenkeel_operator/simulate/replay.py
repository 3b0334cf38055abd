"""What happens to one trace under the law, and under the other autoscalers? All in one run, two of them looked at.

What is compared in numbers is every configuration of the published grid; what is shown over time is ours and one other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evenkeel_operator.decide.replicas import Scaling
from evenkeel_operator.simulate.baselines.grid import Family, defaults, families
from evenkeel_operator.simulate.clients import OpenClients
from evenkeel_operator.simulate.fluid import Autoscaler, Fleet, Outcome, State, World, columns_of, run
from evenkeel_operator.simulate.law import Law, Setting
from evenkeel_operator.simulate.load import Expansion, Floats, Trace, arrivals, expand, peak
from evenkeel_operator.simulate.profile import Profile

OURS = "Evenkeel"
STATIC = "static"
BESIDE = "HPA rps"
OTHERS = (*defaults(), STATIC)
"""Which other autoscalers can be looked at, each at its defaults."""

MOST_POINTS = 480
"""Of a line over time."""


@dataclass(frozen=True)
class Case:
    """What is simulated: a demand, what it is held to, and with what replicas; `notes` say how those were concluded."""

    trace: Trace
    scaling: Scaling
    profile: Profile
    cold_start_s: int
    expansion: Expansion
    seed: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """What came of one configuration; `worst` is None where five minutes have not passed."""

    name: str
    late: float
    worst: float | None
    gpu_hours: float
    changes: int


def worst(row: Row) -> str:
    """Return the share of late requests in the worst five minutes, in words."""
    return "no window" if row.worst is None else f"{row.worst:.2%}"


@dataclass(frozen=True)
class Move:
    """A change of the size, and why."""

    second: int
    before: int
    after: int
    why: str


@dataclass(frozen=True)
class Course:
    """What one autoscaler did over time: at the beginning of every interval, and `late` requests a second in it."""

    row: Row
    asked: Floats
    ready: Floats
    latency_s: Floats
    late: Floats
    moves: Sequence[Move]


@dataclass(frozen=True)
class Replayed:
    """What came of it. `rows` are the defaults of each, ours first; `grid` is every other configuration.

    `every_s` is how long an interval is, and `demand` the requests a second in each.
    """

    case: Case
    seconds: int
    requests: float
    rows: Sequence[Row]
    grid: Sequence[Row]
    every_s: int
    demand: Floats
    ours: Course
    other: Course


class Noted:
    """An autoscaler, of one configuration of which the changes in the first run are noted, with what `why` says."""

    def __init__(self, autoscaler: Autoscaler, column: int, least: int, most: int, why: Callable[[State], str]) -> None:
        self.width, self.every_s = autoscaler.width, autoscaler.every_s
        self.moves: list[Move] = []
        self._autoscaler = autoscaler
        self._column = column
        self._bounds = least, most
        self._why = why

    def observe(self, state: State) -> Floats | None:
        wanted = self._autoscaler.observe(state)
        if wanted is not None:
            before = int(state.asked[0, self._column])
            after = int(np.clip(wanted[0, self._column], *self._bounds))
            if after != before:
                self.moves.append(Move(state.second, before, after, self._why(state)))
        return wanted


def replay(case: Case, beside: str = BESIDE) -> Replayed:
    """Return what happens; `beside` names the one of OTHERS that is shown next to ours."""
    scaling, profile = case.scaling, case.profile
    counts: Floats = arrivals(expand(case.trace, case.expansion), case.seed)[:, None]
    need = max(1, int(np.ceil(peak(case.trace) / profile.capacity.rate)))
    grid = families(profile, min(need, scaling.most), scaling.most)
    least = max(scaling.least, 1)
    law = Law(Setting(scaling, profile.capacity, float(case.cold_start_s)), 1)
    ours = Noted(law, 0, least, scaling.most, lambda _: _of_law(law))
    shown = next(family for family in grid if family.name == beside)
    column = shown.column(_default(shown))
    other = Noted(shown.autoscaler, column, least, scaling.most, _of_demand)
    fleets = [Fleet(ours, case.cold_start_s)]
    fleets += [Fleet(other if family is shown else family.autoscaler, case.cold_start_s) for family in grid]
    first = np.array([min(least, scaling.most)], np.float32)
    every_s = math.ceil(len(counts) / MOST_POINTS)
    world = World(profile, first, least, scaling.most)
    got = run(world, fleets, OpenClients(counts), len(counts), keep_every_s=every_s)
    begins = {family.name: own.start for family, own in zip(grid, columns_of(fleets)[1:], strict=True)}
    named = [(_name(family), begins[family.name] + family.column(_default(family))) for family in grid]
    rows = [_row(got, OURS, 0), *(_row(got, name, at) for name, at in named)]
    every = [
        _row(got, f"{family.name} {label}", begins[family.name] + at)
        for family in grid
        for at, label in enumerate(family.labels)
    ]
    begin = begins[beside] + column
    assert got.kept is not None, "asked for"
    return Replayed(
        case, len(counts), float(got.requests[0, 0]), rows, every, every_s,
        _a_second(got.kept.requests[:, 0, 0], every_s, len(counts)),
        _course(got, rows[0], 0, ours.moves, len(counts)),
        _course(got, next(row for row in rows if row.name == _name(shown)), begin, other.moves, len(counts)),
    )  # fmt: skip


def _default(family: Family) -> str:
    return defaults().get(family.name, family.labels[-1])


def _name(family: Family) -> str:
    return f"{STATIC}, {_default(family)}" if family.name == STATIC else family.name


def _of_law(law: Law) -> str:
    assert law.last is not None, "a size was wanted"
    return f"{law.last.limit}: {law.last.message}"


def _of_demand(state: State) -> str:
    return f"{float(state.arrivals.mean(state.columns, 15)[0, 0]):.1f} requests/s in the last 15 s"


def _row(got: Outcome, name: str, column: int) -> Row:
    return Row(
        name,
        float(got.violation[0, column]),
        None if got.worst is None else float(got.worst[0, column]),
        float(got.gpu_s[0, column]) / 3600,
        int(got.changes[0, column]),
    )


def _course(got: Outcome, row: Row, column: int, moves: Sequence[Move], seconds: int) -> Course:
    kept = got.kept
    assert kept is not None, "asked for"
    asked, ready, latency_s = (values[:, 0, column] for values in (kept.asked, kept.ready, kept.latency_s))
    late = _a_second(kept.late[:, 0, column], kept.every_s, seconds)
    return Course(row, asked, ready, latency_s, late, moves)


def _a_second(sums: Floats, every_s: int, seconds: int) -> Floats:
    """Return sums of intervals as means of their seconds; the last interval may be shorter."""
    lengths = np.full(len(sums), every_s, np.float32)
    lengths[-1] = seconds - every_s * (len(sums) - 1)
    found: Floats = (sums / lengths).astype(np.float32)
    return found
