"""What do the labels of each model come to, all cohorts together? Sums that the database makes, a few rows for each."""

from __future__ import annotations

import json

from evenkeel_operator.feedback.counts import errors
from evenkeel_operator.feedback.records import Ask, Errors, Source, Totals

_PREDICTIONS = "SELECT SUM(count) FROM predicted WHERE series = ? AND cohort >= ?"
_CONFUSION = """
SELECT predicted, actual, SUM(count) FROM cell WHERE series = ? AND cohort >= ?
GROUP BY predicted, actual ORDER BY predicted, actual
"""
_ERRORS = """
SELECT exponent, SUM(count), SUM(absolute), SUM(squared) FROM deviation WHERE series = ? AND cohort >= ?
GROUP BY exponent ORDER BY exponent
"""


def subjects(ask: Ask) -> list[bytes]:
    """Return every ModelDeployment that anything is known of."""
    return [bytes(subject) for (subject,) in ask("SELECT DISTINCT subject FROM series ORDER BY subject", ())]


def totals(ask: Ask, subject: bytes, since_s: int) -> list[Totals]:
    """Return the counts of every revision of a ModelDeployment, of cohorts since that moment."""
    rows = ask("SELECT id, revision, variant, classes, names FROM series WHERE subject = ? ORDER BY id", (subject,))
    found = []
    for id_, revision, variant, classes, names in rows:
        place = (id_, since_s)
        ((predictions,),) = ask(_PREDICTIONS, place)
        found.append(
            Totals(
                Source(subject, revision, variant, classes),
                tuple(json.loads(names)),
                int(predictions or 0),
                {(predicted, actual): int(n) for predicted, actual, n in ask(_CONFUSION, place) if n},
                errors_since(ask, id_, since_s),
            )
        )
    return found


def errors_since(ask: Ask, series: int, since_s: int) -> Errors | None:
    """Return the errors of a series, of all cohorts since that moment together."""
    rows = ask(_ERRORS, (series, since_s))
    return errors((int(e), int(count), int(absolute), int(squared)) for e, count, absolute, squared in rows)
