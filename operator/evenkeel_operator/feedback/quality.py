"""How are the counts of a ModelDeployment told? As JSON: everything that a verdict is folded from, and plain totals.

Counts only: which of them are mature, and what follows from them, is decided where they are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from evenkeel_operator.feedback.records import COHORT_S, Series
from evenkeel_runtime.receipts import Variant, uid_of


def quality(namespace: str, name: str, subject: bytes, since_s: int, series: Sequence[Series]) -> dict[str, Any]:
    """Return the answer of GET /v1/quality/{namespace}/{name}.

    Classes are indices everywhere; `classes` names them where they have names. In `cohorts`, `predictions` holds
    [class, count], `confusion` [predicted, actual, count], `errors` the count and the sums of absolute and squared
    errors, `pairs` [canary revision, class of stable, class of canary, actual, count]. `variant` is what the replicas
    say of themselves: what a canary has predicted is found by its revision.
    """
    return {
        "namespace": namespace,
        "name": name,
        "uid": uid_of(subject),
        "since": since_s,
        "cohortSeconds": COHORT_S,
        "revisions": [_revision(one) for one in series],
    }


def _revision(series: Series) -> dict[str, Any]:
    source = series.source
    cohorts: dict[int, dict[str, Any]] = {}

    def cohort(start: int) -> dict[str, Any]:
        return cohorts.setdefault(start, {"start": start})

    predictions: Counter[int] = Counter()
    labels: Counter[int] = Counter()
    right = 0
    for (start, class_), count in series.predictions.items():
        cohort(start).setdefault("predictions", []).append([class_, count])
        predictions[class_] += count
    for (start, predicted, actual), count in series.confusion.items():
        cohort(start).setdefault("confusion", []).append([predicted, actual, count])
        labels[predicted] += count
        right += count if predicted == actual else 0
    for start, errors in series.errors.items():
        cohort(start)["errors"] = {
            "count": errors.count,
            "absolute": errors.absolute,
            "squared": errors.squared,
        }
        labels[0] += errors.count
    for (start, revision, stable, canary, actual), count in series.pairs.items():
        cohort(start).setdefault("pairs", []).append([revision, stable, canary, actual, count])
    found: dict[str, Any] = {
        "revision": source.revision,
        "variant": Variant(source.variant).name.capitalize(),
        "task": "Classification" if source.classes else "Regression",
        "classes": list(series.names) or source.classes,
        "predictions": predictions.total(),
        "labels": labels.total(),
        "cohorts": [cohorts[start] for start in sorted(cohorts)],
    }
    if source.classes:
        found["labelsOfPredicted"] = sorted(map(list, labels.items()))
        found["predictionsOfClass"] = sorted(map(list, predictions.items()))
        if labels.total():
            found["accuracy"] = right / labels.total()
    elif labels.total():
        found["meanAbsoluteError"] = sum(e.absolute for e in series.errors.values()) / labels.total()
        found["rootMeanSquaredError"] = (sum(e.squared for e in series.errors.values()) / labels.total()) ** 0.5
    return found
