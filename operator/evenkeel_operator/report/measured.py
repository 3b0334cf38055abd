"""What did the operator's statistics say, from the first label to the last? Its functions, asked at many times.

Only cohorts that are mature count, here as there. So many of them make one stretch that a plot shows a few dozen, each
with labels enough to say something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.api.modeldeployment import AccuracyObjective
from evenkeel_operator.api.status import CanaryStatus
from evenkeel_operator.decide import accuracy, canary, standing
from evenkeel_operator.decide.quality import cohorts, counted, verdict
from evenkeel_operator.decide.quality.counted import Counted, Unjudgeable
from evenkeel_operator.decide.quality.evidence import (
    Evidence,
    Moment,
    Objective,
    Trial,
    arms_of,
    counted_by,
    gather,
    moments,
)
from evenkeel_operator.decide.quality.floors import Interval, interval
from evenkeel_operator.decide.quality.guard import Alarm, Served
from evenkeel_operator.decide.quality.measures import Counts, Measure
from evenkeel_operator.decide.quality.verdict import Compared, Progress, Rows
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal
from evenkeel_operator.report.facts import Facts
from evenkeel_runtime.contract import MIRROR

MOST_STRETCHES = 48
LABELS_EACH = 30
"""How many labels a stretch has on average, at least."""
MOST_WORK = 1 << 21
"""Cells of the terms of a metric, times stretches: of many classes, one interval takes long."""
_WIDTHS = tuple(timedelta(minutes=15 * n) for n in (1, 2, 4, 8, 12, 24, 48, 96, 192, 672))

Row = tuple[datetime, Counts]
"""The labels of the cohort that begins then."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive cohorts: the metric over their labels, and over all labels up to their end."""

    start: datetime
    end: datetime
    own: Interval
    so_far: Interval


@dataclass(frozen=True, slots=True)
class Curve:
    """One objective over time. `other` is the revision beside the stable one: the canary, or the one before.

    `waiting`: labels of cohorts that are not mature yet.
    """

    wanted: AccuracyObjective
    objective: Objective
    stable: tuple[Stretch, ...]
    other: tuple[Stretch, ...]
    now: Interval | NoSignal
    alarm: Alarm
    waiting: int


@dataclass(frozen=True, slots=True)
class Tested:
    """The trial of the canary in status, up to `end`: now, or when its verdict fell.

    `problem`: why the labels of the two cannot be compared.
    """

    trial: Trial
    objectives: tuple[Objective, ...]
    moments: tuple[Moment, ...]
    evidence: Evidence
    compared: tuple[Compared, ...]
    end: datetime
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """All that is computed, once for the whole page. `problem`: why the stable revision's labels cannot be judged."""

    curves: tuple[Curve, ...] = ()
    problem: str | None = None
    tested: Tested | None = None

    @property
    def horizon(self) -> timedelta:
        """How long labels are waited for: as long as the objective does that waits longest."""
        objectives = self.tested.objectives if self.tested is not None else ()
        found = (*(curve.objective for curve in self.curves), *objectives)
        return max((objective.horizon for objective in found), default=timedelta(0))


def measured(known: Facts) -> Measured:
    """Return what the operator's statistics make of it."""
    found = tested(known)
    try:
        return Measured(curves(known, found), tested=found)
    except Unjudgeable as e:
        return Measured(problem=e.message, tested=found)


def curves(known: Facts, found: Tested | None) -> tuple[Curve, ...]:
    """Return every objective over time, none without counts or a stable revision; raises Unjudgeable.

    `found` is the trial of the canary, whose labels may be of mirrored requests.
    """
    stable = known.status.stable_revision
    if isinstance(known.counted, NoSignal) or stable is None:
        return ()
    wanted = known.spec.objectives.accuracy
    objectives = counted.objectives(wanted, known.counted, stable)
    kept = standing.kept(known.spec, known.status, None, known.now)
    quality = accuracy.measure(wanted, known.counted, Served(stable, known.since), known.now, kept=kept)
    assert quality.finding is not None, "what can be judged is watched"
    answer = []
    for number, objective in enumerate(objectives):
        rows, young = _rows(known.counted, stable, objective, known.now)
        others = _beside(known, found, known.counted, objective)
        width = _width((rows, others), objective.measure)
        answer.append(
            Curve(
                wanted[number],
                objective,
                stretches(objective.measure, rows, width),
                stretches(objective.measure, others, width),
                quality.intervals[number],
                quality.finding.alarms[number],
                young,
            )
        )
    return tuple(answer)


def beside(known: Facts) -> str | None:
    """Return the other revision of the last trial: the canary, or the one that it replaced."""
    last, stable = known.status.canary, known.status.stable_revision
    if last is None or stable is None:
        return None
    return last.stable if last.revision == stable else last.revision


def stretches(measure: Measure, rows: Sequence[Row], width: timedelta) -> tuple[Stretch, ...]:
    """Return the metric over each `width` that has labels; rows in order of time."""
    together: dict[datetime, list[float]] = {}
    for start, labels in rows:
        to = together.setdefault(_floor(start, width), [0] * measure.cells)
        for i, count in enumerate(labels):
            to[i] += count
    found: list[Stretch] = []
    so_far: list[float] = [0] * measure.cells
    for start, counts in together.items():
        so_far = [a + b for a, b in zip(so_far, counts, strict=True)]
        own, all_of_it = interval(measure, counts), interval(measure, so_far)
        if not isinstance(own, NoSignal) and not isinstance(all_of_it, NoSignal):
            found.append(Stretch(start, start + width, own, all_of_it))
    return tuple(found)


def tested(known: Facts) -> Tested | None:
    """Return the evidence about the canary, None where no step has begun or what it is made of is not known."""
    last, wanted = known.status.canary, known.spec.objectives.accuracy
    if last is None or not last.steps_began or (wanted and isinstance(known.counted, NoSignal)):
        return None
    if not wanted and isinstance(known.answers, NoSignal):
        return None
    labels = counted.NOTHING if isinstance(known.counted, NoSignal) else known.counted
    end = known.now if last.decided is None else parse_time(last.decided)
    problem = None
    try:
        objectives = counted.objectives(wanted, labels, last.stable, last.revision)
    except Unjudgeable as e:
        objectives, problem = (), e.message
    rules = canary.rules(known.spec, objectives)
    progress = Progress(True, True, tuple(parse_time(text) for text in last.steps_began))
    trial = verdict.trial_of(rules, progress, _trial_rows(known, last, labels))
    return Tested(
        trial,
        objectives,
        tuple(moments(objectives, trial, end)),
        gather(objectives, trial, end, rules.alpha, rules.promotion_alpha),
        verdict.compared(objectives, trial, end),
        end,
        problem,
    )


def matrix(known: Facts, revision: str, horizon: timedelta) -> Counts | NoSignal:
    """Return the labels that count of a revision of classes, per cell; NoSignal without any."""
    if isinstance(known.counted, NoSignal) or (one := known.counted.revisions.get(revision)) is None:
        return NO_SIGNAL
    rows = [row for row in one.cohorts if cohorts.mature_at(row.start, horizon) <= known.now]
    found = cohorts.total(rows, one.classes**2) if one.cohorts and not one.is_folded else ()
    return found if any(found) else NO_SIGNAL


def trial_matrix(found: Tested, horizon: timedelta) -> Counts | NoSignal:
    """Return the labels of the canary that count in its trial, mirrored ones too, per cell; NoSignal without any."""
    if not found.objectives:
        return NO_SIGNAL
    cells = found.objectives[0].measure.cells
    total: list[float] = [0] * cells
    for arms in arms_of(found.trial, horizon, cells, found.end):
        total = [a + b for a, b in zip(total, arms.canary, strict=True)]
    return tuple(total) if any(total) else NO_SIGNAL


def _trial_rows(known: Facts, last: CanaryStatus, labels: Counted) -> Rows:
    return Rows(
        last.stable,
        last.revision,
        labels.cohorts(last.stable, last.revision),
        labels.pairs(last.stable, last.revision) if last.mode == MIRROR else None,
        () if isinstance(known.answers, NoSignal) else known.answers,
    )


def _beside(known: Facts, tested: Tested | None, labels: Counted, objective: Objective) -> tuple[Row, ...]:
    """Return the labels of the other revision that count; none of another model, with other classes."""
    other, cells = beside(known), objective.measure.cells
    if tested is not None and tested.objectives and other == tested.trial.canary:
        arms = arms_of(counted_by(objective.measure, tested.trial), objective.horizon, cells, known.now)
        return tuple((row.start, row.canary) for row in arms)
    rows = () if other is None else _rows(labels, other, objective, known.now)[0]
    return rows if all(len(counts) == cells for _, counts in rows) else ()


def _rows(found: Counted, revision: str, objective: Objective, now: datetime) -> tuple[tuple[Row, ...], int]:
    """Return a revision's labels by time that count, and how many do not yet."""
    rows = cohorts.counted_by(objective.measure, cohorts.cohorts(found.cohorts(revision), revision))
    ripe = [row for row in rows if cohorts.mature_at(row.start, objective.horizon) <= now]
    young = round(sum(sum(row.labels) for row in rows) - sum(sum(row.labels) for row in ripe))
    return tuple((row.start, row.labels) for row in ripe), young


def _width(curves: Sequence[Sequence[Row]], measure: Measure) -> timedelta:
    """Return one width for all curves of a plot: few enough stretches, with labels enough in those of the first."""
    labelled = sorted(start for rows in curves for start, labels in rows if any(labels))
    if not labelled:
        return _WIDTHS[0]
    labels = round(sum(sum(counts) for _, counts in curves[0]))
    work = measure.cells * len(measure.terms)
    most = max(1, min(MOST_STRETCHES, max(6, labels // LABELS_EACH), MOST_WORK // work))
    span = labelled[-1] - labelled[0]
    return next((width for width in _WIDTHS if span / width < most), _WIDTHS[-1])


def _floor(at: datetime, width: timedelta) -> datetime:
    seconds = width.total_seconds()
    return datetime.fromtimestamp(at.timestamp() // seconds * seconds, UTC)
