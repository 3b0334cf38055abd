"""Which labelled predictions may be counted by now? The rows that evidence is folded from, each time anew.

A row counts one revision's predictions of a quarter of an hour. Nothing else is kept: two rows of one cohort add up,
their order does not matter, and an operator that was killed reads the same rows and comes to the same result.

A cohort is mature, and counts, once a fixed horizon has passed since its end. Counting labels as they arrive would be
wrong: where wrong answers are noticed sooner than right ones, every model looks bad at first. The horizon is given, not
learnt: delays learnt from labels that were cut off at the learnt delay shrink round by round. Labels that come later
than the horizon still count, from then on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from evenkeel_operator.decide.quality import deviations
from evenkeel_operator.decide.quality.measures import Measure
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal
from evenkeel_runtime.receipts import Assignment

N = TypeVar("N", int, float)

COHORT = timedelta(minutes=15)

ANSWERS = timedelta(minutes=1)

SKEWED = 2.0
"""Coverage of one predicted class against another's from which labels are called biased."""

LEAST_PREDICTIONS = 30
"""Predictions of a class from which on its coverage says something: 0 of 3 is no skew."""

MOST_WEIGHT = 5.0
"""The most that one label may stand for in the weighted estimate, relative to the best covered class."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """One revision's predictions of the COHORT that begins at `start`, and the labels known of them by now.

    `predictions`: how many were made, per predicted class (of a regression: one number). `labels`: how many are known,
    per cell of the measure (`measures.cell`), 0 where none is; of a regression, before it is known by which measure,
    one number as well, and the sums of their `errors`. `assignment`: what the requests had drawn.
    """

    revision: str
    start: datetime
    predictions: tuple[int, ...]
    labels: tuple[float, ...]
    assignment: Assignment = Assignment.UNASSIGNED
    errors: deviations.Sums = ()


@dataclass(frozen=True, slots=True)
class Pairs:
    """Requests of one cohort that both revisions answered: those whose label is known, per (stable's, canary's) cell,
    and the others, per (stable's, canary's) class."""

    start: datetime
    labels: Mapping[tuple[int, int], int]
    unlabelled: Mapping[tuple[int, int], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answers:
    """How one revision answered in the minute (ANSWERS) from `start` on.

    One sample per pod and second, since the requests of one batch are not independent of each other; how many of the
    samples were slow, and how many failed.
    """

    revision: str
    start: datetime
    samples: int
    slow: int
    failed: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which share of the predictions has a label: of all, and per predicted class where there were predictions, and
    where there were `enough` of them to compare classes by."""

    total: float | NoSignal
    by_class: Mapping[int, float]
    enough: Mapping[int, float]

    @property
    def is_skewed(self) -> bool:
        """Whether one class is labelled so much more often than another that the plain metric may mislead."""
        shares = self.enough.values()
        return bool(shares) and max(shares) > SKEWED * min(shares)


def counted_by(measure: Measure, rows: Iterable[Cohort]) -> tuple[Cohort, ...]:
    """Return the rows with their labels in the cells of `measure`; those of classes are in them already."""
    if measure.cap is None:
        return tuple(rows)
    return tuple(replace(row, labels=tuple(measure.counts(row.errors)), errors=()) for row in rows)


def cohorts(rows: Iterable[Cohort], revision: str) -> tuple[Cohort, ...]:
    """Return `revision`'s rows by time, one per cohort, whatever the requests had drawn."""
    return _by_time(row for row in rows if row.revision == revision)


def drew_stable(rows: Iterable[Cohort], stable: str) -> tuple[Cohort, ...]:
    """Return by time, one per cohort, the rows of requests that were in the draw and fell to the stable revision."""
    return _by_time(row for row in rows if row.revision == stable and row.assignment is Assignment.STABLE)


def drew_canary(rows: Iterable[Cohort], stable: str, canary: str) -> tuple[Cohort, ...]:
    """Return by time, one per cohort, the rows of requests that fell to the canary, whoever answered them.

    A canary of a runtime that knows no assignment says STABLE of what was passed on to it (`receipts.Assignment`).
    """
    told = {
        (stable, Assignment.CANARY),
        (canary, Assignment.CANARY),
        (canary, Assignment.STABLE),
    }
    return _by_time(row for row in rows if (row.revision, row.assignment) in told)


def _by_time(rows: Iterable[Cohort]) -> tuple[Cohort, ...]:
    merged: dict[datetime, Cohort] = {}
    for row in rows:
        before = merged.get(row.start)
        merged[row.start] = (
            row
            if before is None
            else replace(
                before,
                predictions=_added(before.predictions, row.predictions),
                labels=_added(before.labels, row.labels),
                errors=_added(before.errors, row.errors),
            )
        )
    return tuple(merged[start] for start in sorted(merged))


def pairs(rows: Iterable[Pairs]) -> tuple[Pairs, ...]:
    """Return the rows by time, one per cohort."""
    merged: dict[datetime, tuple[Counter[tuple[int, int]], Counter[tuple[int, int]]]] = {}
    for row in rows:
        labels, unlabelled = merged.setdefault(row.start, (Counter(), Counter()))
        labels.update(row.labels)
        unlabelled.update(row.unlabelled)
    return tuple(Pairs(start, *merged[start]) for start in sorted(merged))


def answers(rows: Iterable[Answers], revision: str) -> tuple[Answers, ...]:
    """Return `revision`'s rows by time, one per start."""
    merged: dict[datetime, Answers] = {}
    for row in rows:
        if row.revision == revision:
            old = merged.get(row.start, Answers(revision, row.start, 0, 0, 0))
            merged[row.start] = Answers(
                revision, row.start, old.samples + row.samples, old.slow + row.slow, old.failed + row.failed
            )
    return tuple(merged[start] for start in sorted(merged))


def first_from(moment: datetime) -> datetime:
    """Return the start of the first cohort that begins at `moment` or later; the Unix epoch began one."""
    length = COHORT.total_seconds()
    return datetime.fromtimestamp(math.ceil(moment.timestamp() / length) * length, UTC)


def mature_at(start: datetime, horizon: timedelta) -> datetime:
    """Return when the cohort that begins at `start` counts."""
    return start + COHORT + horizon


def total(rows: Iterable[Cohort], cells: int) -> tuple[float, ...]:
    """Return the labels of all rows, per cell."""
    found: tuple[float, ...] = (0,) * cells
    for row in rows:
        found = _added(found, row.labels)
    return found


def coverage(rows: Iterable[Cohort], classes: int) -> Coverage:
    """Return which share of the rows' predictions has a label."""
    predicted: list[int] = [0] * classes
    labelled: list[float] = [0] * classes
    for row in rows:
        step = len(row.labels) // classes
        for k, count in enumerate(row.predictions):
            predicted[k] += count
            labelled[k] += sum(row.labels[k * step : (k + 1) * step])
    return coverage_of(predicted, labelled)


def coverage_of(predicted: Sequence[int], labelled: Sequence[float]) -> Coverage:
    """Return which share of the predictions has a label, from both per predicted class."""
    by_class = {k: labels / count for k, (count, labels) in enumerate(zip(predicted, labelled, strict=True)) if count}
    enough = {k: share for k, share in by_class.items() if predicted[k] >= LEAST_PREDICTIONS}
    return Coverage(sum(labelled) / sum(predicted) if sum(predicted) else NO_SIGNAL, by_class, enough)


def weighted_value(measure: Measure, rows: Iterable[Cohort], classes: int) -> float | NoSignal:
    """Return the metric with each label weighing as many predictions as it stands for, to be shown and not decided on.

    The weights are estimated and capped, either of which would break the error rates of a decision.
    """
    known = tuple(rows)
    found = coverage(known, classes)
    counts = total(known, measure.cells)
    best = max(found.by_class.values(), default=0.0)
    if best == 0:
        return NO_SIGNAL
    step = measure.cells // classes
    # Whole numbers, as counts are: a thousand stands for one label of the best covered class.
    weights = [
        round(1000 * min(MOST_WEIGHT, best / found.by_class[k])) if found.by_class.get(k) else 0 for k in range(classes)
    ]
    return measure.value([count * weights[i // step] for i, count in enumerate(counts)])


def _added(one: tuple[N, ...], other: tuple[N, ...]) -> tuple[N, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
