"""What do the labels of each model come to, all cohorts together? Sums that the database makes, a few rows for each."""

from __future__ import annotations

import json
from collections.abc import Iterable

from evenkeel_operator.feedback.counts import errors
from evenkeel_operator.feedback.records import Ask, Errors, Row, Totals

_SERIES = "SELECT id FROM series WHERE subject = ? AND revision = ? AND classes = ?"
_PLACE = f"WHERE series IN ({_SERIES}) AND cohort >= ?"
_PREDICTIONS = f"SELECT class, SUM(count), SUM(labels) FROM predicted {_PLACE} GROUP BY class ORDER BY class"
_CONFUSION = f"""
SELECT predicted, actual, SUM(count) FROM cell {_PLACE}
GROUP BY predicted, actual ORDER BY predicted, actual
"""
_ERRORS = """
SELECT exponent, SUM(count), SUM(absolute), SUM(squared) FROM deviation {place}
GROUP BY exponent ORDER BY exponent
"""
_ERRORS_OF_ONE = _ERRORS.format(place="WHERE series = ? AND cohort >= ?")
_ERRORS_OF_ALL = _ERRORS.format(place=_PLACE)


def subjects(ask: Ask) -> list[bytes]:
    """Return every ModelDeployment that anything is known of."""
    return [bytes(subject) for (subject,) in ask("SELECT DISTINCT subject FROM series ORDER BY subject", ())]


def totals(ask: Ask, subject: bytes, since_s: int) -> list[Totals]:
    """Return the counts of every revision of a ModelDeployment, of cohorts since that moment.

    Whatever its requests had drawn: how good a revision is does not hang on that.
    """
    names: dict[tuple[str, int], tuple[str, ...]] = {}
    for revision, classes, told in ask(
        "SELECT revision, classes, names FROM series WHERE subject = ? ORDER BY id", (subject,)
    ):
        names[revision, classes] = names.get((revision, classes)) or tuple(json.loads(told))
    found = []
    for (revision, classes), known in names.items():
        place = (subject, revision, classes, since_s)
        predicted = {class_: (int(count), int(labels)) for class_, count, labels in ask(_PREDICTIONS, place)}
        found.append(
            Totals(
                revision,
                classes,
                known,
                sum(count for count, _ in predicted.values()),
                {(predicted, actual): int(n) for predicted, actual, n in ask(_CONFUSION, place) if n},
                _errors(ask(_ERRORS_OF_ALL, place)),
                predicted,
            )
        )
    return found


def errors_since(ask: Ask, series: int, since_s: int) -> Errors | None:
    """Return the errors of a series, of all cohorts since that moment together."""
    return _errors(ask(_ERRORS_OF_ONE, (series, since_s)))


def _errors(rows: Iterable[Row]) -> Errors | None:
    return errors((int(e), int(count), int(absolute), int(squared)) for e, count, absolute, squared in rows)
