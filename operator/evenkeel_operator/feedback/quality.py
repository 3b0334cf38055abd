"""How are the counts of a ModelDeployment told? As JSON: everything that a verdict is folded from, and plain totals.

Counts only: which of them are mature, and what follows from them, is decided where they are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from evenkeel_operator.decide.quality.cohorts import coverage_of
from evenkeel_operator.decide.snapshot import NoSignal
from evenkeel_operator.feedback.records import COHORT_S, Series
from evenkeel_runtime.receipts import Assignment, uid_of


def quality(namespace: str, name: str, subject: bytes, since_s: int, series: Sequence[Series]) -> str:
    """Return the answer of GET /v1/quality/{namespace}/{name}.

    Classes are indices everywhere; `classes` names them where they have names. In `cohorts`, `predictions` holds
    [class, count], `confusion` [predicted, actual, count], `errors` the count and the sums of absolute and squared
    errors, `deviations` [exponent, count, absolute, squared], the same of the errors from 2^(exponent-1) to below
    2^exponent, those that are 0 with the exponent -1074, `pairs` [canary revision, class of stable, class of canary,
    actual, count], and `unlabelledPairs` the same of pairs whose label is not known, without an actual class: [canary
    revision, class of stable, class of canary, count]. What has no cells is left out. Each revision is told once for
    each `assignment` that its requests have had (`receipts.Assignment`): who answered is its revision, and what the
    request had drawn its assignment. `coverage` is of all cohorts, those that are not mature among them: which share of
    the predictions has a label, of which predicted class the least and the most, and whether that is skewed
    (`decide/quality/cohorts.py`).
    """
    head = {"namespace": namespace, "name": name, "uid": uid_of(subject), "since": since_s, "cohortSeconds": COHORT_S}
    return _with(head, "revisions", [_with(_totals(one), "cohorts", one.cohorts.values()) for one in series])


def _with(head: dict[str, Any], last: str, texts: Iterable[str]) -> str:
    """Return a JSON object with one more member: an array of what is JSON already."""
    return f"{json.dumps(head)[:-1]}, {json.dumps(last)}: [{', '.join(texts)}]}}"


def _totals(series: Series) -> dict[str, Any]:
    source, errors = series.source, series.errors
    found: dict[str, Any] = {
        "revision": source.revision,
        "assignment": Assignment(source.assignment).name.capitalize(),
        "task": "Classification" if source.classes else "Regression",
        "classes": list(series.names) or source.classes,
        "predictions": sum(count for count, _, _ in series.classes.values()),
        "labels": sum(labels for _, labels, _ in series.classes.values()) if errors is None else errors.count,
    }
    if source.classes:
        classes = sorted(series.classes.items())
        found["labelsOfPredicted"] = [[class_, labels] for class_, (_, labels, _) in classes if labels]
        found["predictionsOfClass"] = [[class_, count] for class_, (count, _, _) in classes if count]
        if (told := _coverage(series)) is not None:
            found["coverage"] = told
        if found["labels"]:
            found["accuracy"] = sum(right for _, _, right in series.classes.values()) / found["labels"]
    elif errors is not None:
        found["meanAbsoluteError"] = errors.absolute / errors.count
        found["rootMeanSquaredError"] = (errors.squared / errors.count) ** 0.5
    return found


def _coverage(series: Series) -> dict[str, Any] | None:
    """Return which share of the predictions has a label, None where no predictions were told."""
    classes = range(1 + max(series.classes, default=-1))
    counts = [series.classes.get(class_, (0, 0, 0)) for class_ in classes]
    found = coverage_of([predicted for predicted, _, _ in counts], [labels for _, labels, _ in counts])
    if isinstance(found.total, NoSignal):
        return None
    shares = found.enough or found.by_class
    least, most = (choose(shares, key=lambda class_: shares[class_]) for choose in (min, max))
    return {
        "share": found.total,
        "least": {"class": least, "share": shares[least]},
        "most": {"class": most, "share": shares[most]},
        "skewed": found.is_skewed,
    }
