"""What do the labels of each model come to, all cohorts together? Sums that the database makes, a few rows for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from evenkeel_operator.feedback.records import Errors, Source, Totals
from evenkeel_operator.feedback.store import Row

Ask = Callable[[str, Sequence[Any]], list[Row]]
"""Runs one statement; returns its rows. Raises Unavailable."""

_PREDICTIONS = "SELECT SUM(count) FROM prediction WHERE series = ? AND cohort >= ?"
_CONFUSION = """
SELECT predicted, actual, SUM(count) FROM confusion WHERE series = ? AND cohort >= ?
GROUP BY predicted, actual ORDER BY predicted, actual
"""
_ERRORS = "SELECT SUM(count), SUM(absolute), SUM(squared) FROM error WHERE series = ? AND cohort >= ?"


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
        ((count, absolute, squared),) = ask(_ERRORS, place)
        found.append(
            Totals(
                Source(subject, revision, variant, classes),
                tuple(json.loads(names)),
                int(predictions or 0),
                {(predicted, actual): int(n) for predicted, actual, n in ask(_CONFUSION, place) if n},
                Errors(int(count), absolute, squared) if count else None,
            )
        )
    return found
