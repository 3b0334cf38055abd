"""How are the counts of a ModelDeployment told? As JSON: everything that a verdict is folded from, and plain totals.

Counts only: which of them are mature, and what follows from them, is decided where they are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from evenkeel_operator.feedback.records import COHORT_S, Series
from evenkeel_runtime.receipts import Assignment, uid_of


def quality(namespace: str, name: str, subject: bytes, since_s: int, series: Sequence[Series]) -> str:
    """Return the answer of GET /v1/quality/{namespace}/{name}.

    Classes are indices everywhere; `classes` names them where they have names. In `cohorts`, `predictions` holds
    [class, count], `confusion` [predicted, actual, count], `errors` the count and the sums of absolute and squared
    errors, `deviations` [exponent, count, absolute, squared], the same of the errors from 2^(exponent-1) to below
    2^exponent, those that are 0 with the exponent 0, `pairs` [canary revision, class of stable, class of canary,
    actual, count], and `unlabelledPairs` the same of pairs whose label is not known, without an actual class: [canary
    revision, class of stable, class of canary, count]. What has no cells is left out. Each revision is told once for
    each `assignment` that its requests have had (`receipts.Assignment`): who answered is its revision, and what the
    request had drawn its assignment.
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
        if found["labels"]:
            found["accuracy"] = sum(right for _, _, right in series.classes.values()) / found["labels"]
    elif errors is not None:
        found["meanAbsoluteError"] = errors.absolute / errors.count
        found["rootMeanSquaredError"] = (errors.squared / errors.count) ** 0.5
    return found
