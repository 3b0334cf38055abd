"""How are the counts of a ModelDeployment told? As JSON: everything that a verdict is folded from, and plain totals.

Counts only: which of them are mature, and what follows from them, is decided where they are read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from evenkeel_operator.feedback.records import COHORT_S, Series
from evenkeel_runtime.receipts import Assignment, uid_of


def quality(namespace: str, name: str, subject: bytes, since_s: int, series: Sequence[Series]) -> str:
    """Return the answer of GET /v1/quality/{namespace}/{name}.

    Classes are indices everywhere; `classes` names them where they have names. In `cohorts`, `predictions` holds
    [class, count], `confusion` [predicted, actual, count], `errors` the count and the sums of absolute and squared
    errors, `pairs` [canary revision, class of stable, class of canary, actual, count], and `unlabelledPairs` the same
    of pairs whose label is not known, without an actual class: [canary revision, class of stable, class of canary,
    count]. What has no cells is left out. Each revision is told once for each `assignment` that its requests have had
    (`receipts.Assignment`): who answered is its revision, and what the request had drawn its assignment.
    """
    head = {"namespace": namespace, "name": name, "uid": uid_of(subject), "since": since_s, "cohortSeconds": COHORT_S}
    return _with(head, "revisions", [_with(_totals(one), "cohorts", _cohorts(one)) for one in series])


def _with(head: dict[str, Any], last: str, texts: Sequence[str]) -> str:
    """Return a JSON object with one more member: an array of what is JSON already."""
    return f"{json.dumps(head)[:-1]}, {json.dumps(last)}: [{', '.join(texts)}]}}"


def _cohorts(series: Series) -> list[str]:
    found: dict[int, dict[str, Any]] = {}

    def cohort(start: int) -> dict[str, Any]:
        return found.setdefault(start, {"start": start})

    for (start, class_), count in series.predictions.items():
        cohort(start).setdefault("predictions", []).append([class_, count])
    for start, errors in series.errors.items():
        cohort(start)["errors"] = {
            "count": errors.count,
            "absolute": errors.absolute,
            "squared": errors.squared,
        }
    cells = {"confusion": series.confusion, "pairs": series.pairs, "unlabelledPairs": series.unlabelled_pairs}
    for start in (start for texts in cells.values() for start in texts):
        cohort(start)
    return [
        json.dumps(found[start])[:-1]
        + "".join(f', "{name}": {texts[start]}' for name, texts in cells.items() if start in texts)
        + "}"
        for start in sorted(found)
    ]


def _totals(series: Series) -> dict[str, Any]:
    source = series.source
    predictions: Counter[int] = Counter()
    for (_, class_), count in series.predictions.items():
        predictions[class_] += count
    labels = sum(count for count, _ in series.labels.values()) + sum(e.count for e in series.errors.values())
    found: dict[str, Any] = {
        "revision": source.revision,
        "assignment": Assignment(source.assignment).name.capitalize(),
        "task": "Classification" if source.classes else "Regression",
        "classes": list(series.names) or source.classes,
        "predictions": predictions.total(),
        "labels": labels,
    }
    if source.classes:
        found["labelsOfPredicted"] = [[class_, count] for class_, (count, _) in sorted(series.labels.items())]
        found["predictionsOfClass"] = sorted(map(list, predictions.items()))
        if labels:
            found["accuracy"] = sum(right for _, right in series.labels.values()) / labels
    elif labels:
        found["meanAbsoluteError"] = sum(e.absolute for e in series.errors.values()) / labels
        found["rootMeanSquaredError"] = (sum(e.squared for e in series.errors.values()) / labels) ** 0.5
    return found
