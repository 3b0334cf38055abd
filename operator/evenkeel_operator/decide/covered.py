"""How many of the predictions has somebody labelled, and do the labelled ones stand for the others?

What is decided is decided by the labels as they are: weights that are estimated from coverage would break the error
rates that a verdict promises. Where one predicted class is labelled so much more often than another that the plain
metric may mislead (`cohorts.SKEWED`), the metric with weights is told beside it, for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide.quality import cohorts
from evenkeel_operator.decide.quality.counted import Revision
from evenkeel_operator.decide.quality.evidence import Objective
from evenkeel_operator.decide.snapshot import NoSignal


@dataclass(frozen=True, slots=True)
class Covered:
    """Which share of the predictions has a label: of all, and of the predicted classes the least and the most, by name.

    `weighted` is the metric with weights, None where coverage is not skewed.
    """

    share: float
    least: tuple[str, float]
    most: tuple[str, float]
    is_skewed: bool
    weighted: float | None


def covered(objective: Objective, revision: Revision | None, now: datetime) -> Covered | None:
    """Return how the mature cohorts are covered, None where there are no predictions of classes, or none told yet."""
    if revision is None or revision.classes < 2:
        return None
    rows = [row for row in revision.cohorts if cohorts.mature_at(row.start, objective.horizon) <= now]
    found = revision.coverage(rows)
    if isinstance(found.total, NoSignal) or not found.by_class:
        return None
    shares = found.enough or found.by_class
    least, most = (choose(shares, key=lambda class_: shares[class_]) for choose in (min, max))
    weighted = cohorts.weighted_value(objective.measure, rows, revision.classes) if found.is_skewed else None
    return Covered(
        found.total,
        (_name(revision, least), shares[least]),
        (_name(revision, most), shares[most]),
        found.is_skewed,
        None if isinstance(weighted, NoSignal) else weighted,
    )


def told(found: Covered) -> Object:
    """Return it as status.accuracy[].coverage tells it."""
    answer: Object = {
        "share": _rounded(found.share),
        "least": {"class": found.least[0], "share": _rounded(found.least[1])},
        "most": {"class": found.most[0], "share": _rounded(found.most[1])},
        "skewed": found.is_skewed,
    }
    return answer if found.weighted is None else answer | {"weighted": _rounded(found.weighted)}


def _name(revision: Revision, class_: int) -> str:
    if revision.is_folded:
        return "any"
    return revision.names[class_][:_NAME_CHARACTERS] if revision.names else str(class_)


def _rounded(value: float) -> float:
    return float(f"{value:.4f}")


_NAME_CHARACTERS = 64
