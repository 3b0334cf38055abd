"""What has the feedback service counted? The answer to its question for quality, as the rows that verdicts are made of.

The answer comes over a network: what is no count, and classes that do not fit each other, refuse it as a whole. Classes
are indices here; a word of the spec becomes one by the names that the revision's replicas have told.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from evenkeel_operator.api.core import seconds
from evenkeel_operator.api.modeldeployment import DEFAULT_MARGIN, AccuracyObjective
from evenkeel_operator.decide.quality import deviations
from evenkeel_operator.decide.quality.cohorts import COHORT, Cohort, Coverage, Pairs, coverage, coverage_of
from evenkeel_operator.decide.quality.evidence import Objective
from evenkeel_operator.decide.quality.measures import Average, Measure, Metric, cell, classification, regression
from evenkeel_runtime.receipts import Assignment

MOST_CLASSES = 100
"""Every cohort has a cell for each pair of classes, and an average over classes a score for each cell and class: a
million of 100 classes, and eight times as many of 200, for every ModelDeployment in one process. Of more classes all
that is read is whether an answer is right, which is enough for the accuracy."""

_RIGHT, _WRONG = 0, 1
"""Of more than MOST_CLASSES: the cells of two classes in which a right and a wrong answer are counted."""

_MOST_START_S = 1 << 33


class Unjudgeable(Exception):
    """Labels from which no metric of the spec can be computed; `message` says what to change."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision's counts. `names` are those of its classes, empty where they have none; `classes` is 0 of one that
    answers numbers.

    With more than MOST_CLASSES its labels are right or wrong, in the cells of two classes, and its predictions are by
    class modulo MOST_CLASSES: enough to see that two revisions do not predict alike.
    """

    name: str
    classes: int
    names: tuple[str, ...]
    cohorts: tuple[Cohort, ...]
    pairs: Mapping[str, tuple[Pairs, ...]]
    """By the canary's revision: requests that both have answered."""

    @property
    def is_folded(self) -> bool:
        """Whether classes are told apart no longer."""
        return self.classes > MOST_CLASSES

    def coverage(self, rows: Iterable[Cohort]) -> Coverage:
        """Return which share of the predictions in `rows` of this revision has a label; of numbers, and of folded
        classes, as of one class."""
        if self.classes and not self.is_folded:
            return coverage(rows, self.classes)
        known = tuple(rows)
        predictions, labels = sum(sum(row.predictions) for row in known), sum(float(sum(row.labels)) for row in known)
        return coverage_of([predictions], [labels])


@dataclass(frozen=True, slots=True)
class Counted:
    """What is counted of a ModelDeployment, by revision."""

    revisions: Mapping[str, Revision]

    def cohorts(self, *revisions: str) -> tuple[Cohort, ...]:
        """Return the rows of these revisions; of one that nothing is known of, none."""
        return tuple(row for name in revisions if (one := self.revisions.get(name)) for row in one.cohorts)

    def pairs(self, stable: str, canary: str) -> tuple[Pairs, ...]:
        """Return the rows of what both have answered."""
        one = self.revisions.get(stable)
        return () if one is None else one.pairs.get(canary, ())


NOTHING = Counted({})


def read(body: bytes) -> Counted:
    """Return what an answer of GET /v1/quality says; raises ValueError for anything else."""
    try:
        found: Any = json.loads(body)
        revisions: dict[str, Revision] = {}
        for entry in found["revisions"]:
            one = _revision(entry)
            before = revisions.get(one.name)
            revisions[one.name] = one if before is None else _merged(before, one)
    except (KeyError, TypeError, AttributeError, RecursionError, OverflowError) as e:
        raise ValueError(f"this is no answer about quality: {e!r}"[:300]) from e
    return Counted(revisions)


def objectives(wanted: tuple[AccuracyObjective, ...], counted: Counted, *revisions: str) -> tuple[Objective, ...]:
    """Return the objectives over the classes that the `revisions` share: two, before any of them has told its classes.

    So no rollout is without its objectives while nothing is known; there are no labels to judge then. Raises
    Unjudgeable where they answer different classes, too many of them, numbers where the spec is of classes or classes
    where it is of numbers, or where the spec names a class that there is not.
    """
    known = [one for name in revisions if (one := counted.revisions.get(name)) is not None]
    of_numbers = any(one.is_error for one in wanted)
    first = known[0] if known else Revision("", 0 if of_numbers else 2, (), (), {})
    if any(one.classes != first.classes or one.names != first.names for one in known):
        raise Unjudgeable(
            f"revisions {' and '.join(one.name for one in known)} answer different classes, so their answers cannot be "
            "compared: judge them by latency alone (leave out spec.objectives.accuracy), or deploy the new one under "
            "another name"
        )
    if of_numbers and first.classes:
        raise Unjudgeable(
            f"revision {first.name} answers classes; MAE and RMSE are of numbers: ask for Accuracy, Precision, Recall "
            "or F1 in spec.objectives.accuracy"
        )
    if not of_numbers and not first.classes:
        raise Unjudgeable(
            f"revision {first.name} answers numbers; ask for MAE or RMSE in spec.objectives.accuracy, the other "
            "metrics are of classes"
        )
    if first.classes == 1:
        raise Unjudgeable(
            f"revision {first.name} answers 1 classes; spec.objectives.accuracy is for 2 classes and more"
        )
    if first.is_folded and (
        other := next((one.metric for one in wanted if Metric(one.metric) is not Metric.ACCURACY), None)
    ):
        raise Unjudgeable(
            f"revision {first.name} answers {first.classes} classes; spec.objectives.accuracy of {other} is for 2 to "
            f"{MOST_CLASSES}: ask for metric {Metric.ACCURACY}, which is for any number of them"
        )
    return tuple(
        Objective(
            _measure(one, first, is_known=bool(known)),
            one.bound,
            DEFAULT_MARGIN if one.margin is None else one.margin,
            timedelta(seconds=seconds(one.horizon)),
        )
        for one in wanted
    )


def _measure(wanted: AccuracyObjective, revision: Revision, *, is_known: bool) -> Measure:
    metric = Metric(wanted.metric)
    if metric.is_error:
        if wanted.max_error is None:
            raise Unjudgeable(f"maxError of {metric.value} is missing: name the largest error that counts")
        return regression(metric, deviations.capped(wanted.max_error))
    positive = _positive(wanted, revision) if is_known else 1
    classes = 2 if revision.is_folded else revision.classes
    return classification(metric, classes, Average(wanted.average), positive)


def _positive(wanted: AccuracyObjective, revision: Revision) -> int:
    word = wanted.positive_class
    if word is None:
        return 1
    if revision.names:
        if word in revision.names:
            return revision.names.index(word)
        raise Unjudgeable(
            f"positiveClass of {wanted.metric} is {word}, which the model does not answer; it answers "
            f"{', '.join(revision.names[:10])}"
        )
    if word.isdecimal() and len(word) < 6 and int(word) < revision.classes:
        return int(word)
    raise Unjudgeable(f"positiveClass of {wanted.metric} is {word}; the model answers 0 to {revision.classes - 1}")


def _revision(entry: Any) -> Revision:
    told = entry["classes"]
    names = tuple(str(name) for name in told) if isinstance(told, list) else ()
    name, classes = str(entry["revision"]), len(names) or _count(told)
    if classes == 0:
        return Revision(name, 0, (), tuple(_errors(name, row, _assignment(entry)) for row in entry["cohorts"]), {})
    if classes < 2:
        return Revision(name, classes, names, (), {})
    is_folded, kept = classes > MOST_CLASSES, min(classes, MOST_CLASSES)

    def place(predicted: Any, actual: Any) -> int:
        if is_folded:
            return _RIGHT if _class(predicted, classes) == _class(actual, classes) else _WRONG
        return cell(_class(predicted, classes), _class(actual, classes), classes)

    assignment = _assignment(entry)
    cohorts: list[Cohort] = []
    pairs: dict[str, list[Pairs]] = {}
    for row in entry["cohorts"]:
        start = _start(row["start"])
        predictions, labels = [0] * kept, [0] * (4 if is_folded else classes**2)
        for class_, count in row.get("predictions", ()):
            predictions[_class(class_, classes) % kept] += _count(count)
        for predicted, actual, count in row.get("confusion", ()):
            labels[place(predicted, actual)] += _count(count)
        cohorts.append(Cohort(name, start, tuple(predictions), tuple(labels), assignment))
        both: dict[str, dict[tuple[int, int], int]] = {}
        for canary, stable, other, actual, count in row.get("pairs", ()):
            cells = place(stable, actual), place(other, actual)
            known = both.setdefault(str(canary), {})
            known[cells] = known.get(cells, 0) + _count(count)
        unlabelled: dict[str, dict[tuple[int, int], int]] = {}
        for canary, stable, other, count in row.get("unlabelledPairs", ()):
            seen = unlabelled.setdefault(str(canary), {})
            answers = _class(stable, classes) % kept, _class(other, classes) % kept
            seen[answers] = seen.get(answers, 0) + _count(count)
        for canary in {*both, *unlabelled}:
            pairs.setdefault(canary, []).append(Pairs(start, both.get(canary, {}), unlabelled.get(canary, {})))
    return Revision(name, classes, names, tuple(cohorts), {canary: tuple(rows) for canary, rows in pairs.items()})


def _errors(revision: str, row: Any, assignment: Assignment) -> Cohort:
    """Return a cohort of numbers."""
    if "errors" in row and "deviations" not in row:
        raise ValueError("the feedback service is of a release that tells no deviations: upgrade it")
    sums = deviations.sums(
        (_exponent(exponent), _count(count), _sum(absolute), _sum(squared))
        for exponent, count, absolute, squared in row.get("deviations", ())
    )
    predictions = sum(_count(count) for _, count in row.get("predictions", ()))
    return Cohort(revision, _start(row["start"]), (predictions,), (deviations.labelled(sums),), assignment, errors=sums)


def _merged(one: Revision, other: Revision) -> Revision:
    """Return the counts of one revision, of requests of two assignments."""
    if one.classes != other.classes:
        raise ValueError(f"revision {one.name} has {one.classes} classes and {other.classes}")
    pairs = {name: (*one.pairs.get(name, ()), *other.pairs.get(name, ())) for name in {*one.pairs, *other.pairs}}
    return Revision(one.name, one.classes, one.names or other.names, (*one.cohorts, *other.cohorts), pairs)


def _assignment(entry: Any) -> Assignment:
    """Return what the requests of an entry had drawn; a service from before there was an assignment says `variant`."""
    return Assignment[str(entry["assignment"] if "assignment" in entry else entry["variant"]).upper()]


def _start(value: Any) -> datetime:
    start_s = _count(value)
    # Whoever adds a horizon to the last date there is has no date.
    if start_s % COHORT.total_seconds() or start_s >= _MOST_START_S:
        raise ValueError(f"{start_s} is not the start of a quarter of an hour")
    return datetime.fromtimestamp(start_s, UTC)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise ValueError(f"{str(value)[:40]} is not a count")
    return value


def _exponent(value: Any) -> int:
    if type(value) is not int or not -1100 < value <= deviations.MOST:
        raise ValueError(f"{str(value)[:40]} is not the exponent of an error")
    return value


def _sum(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ValueError(f"{str(value)[:40]} is not a sum of errors")
    return float(value)


def _class(value: Any, classes: int) -> int:
    if _count(value) >= classes:
        raise ValueError(f"there is no class {value} of {classes}")
    return int(value)
