"""What is known of each revision of a ModelDeployment, cohort by cohort and label by label? Read as it is kept: no
question counts anything, or joins what was told with what was posted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from evenkeel_operator.feedback import counts
from evenkeel_operator.feedback.counts import UNKNOWN
from evenkeel_operator.feedback.records import Ask, Errors, Row, Series, Source

_PLACE = "WHERE series = ? AND cohort >= ?"
_PREDICTIONS = f"SELECT cohort, class, count FROM predicted {_PLACE} ORDER BY cohort, class"
# By cohort first, which is the order of the key: to sort all cells by class takes as long as all the rest.
_LABELS = f"""
SELECT predicted, SUM(labels), SUM(hits) FROM (
    SELECT cohort, predicted, SUM(count) AS labels, SUM(CASE WHEN predicted = actual THEN count ELSE 0 END) AS hits
    FROM cell {_PLACE} GROUP BY cohort, predicted) AS of_cohorts
GROUP BY predicted
"""
_ERRORS = f"SELECT cohort, exponent, count, absolute, squared FROM deviation {_PLACE} ORDER BY cohort, exponent"


def quality(ask: Ask, as_json: Callable[[str], str], subject: bytes, since_s: int) -> list[Series]:
    """Return the counts of every revision and assignment of a ModelDeployment, of cohorts since that moment.

    `as_json` makes of columns the aggregate that is the JSON text of a cohort's cells.
    """
    rows = ask("SELECT id, revision, variant, classes, names FROM series WHERE subject = ? ORDER BY id", (subject,))
    found = []
    for id_, revision, assignment, classes, names in rows:
        place = (id_, since_s)

        def texts(columns: str, of: str, place: tuple[int, int] = place) -> dict[int, str]:
            sql = f"SELECT cohort, {as_json(columns)} FROM {of} GROUP BY cohort"
            return dict(ask(sql, place))

        both = "canary_revision, stable, canary"
        found.append(
            Series(
                Source(subject, revision, assignment, classes),
                tuple(json.loads(names)),
                {(cohort, class_): int(count) for cohort, class_, count in ask(_PREDICTIONS, place)},
                texts("predicted, actual, count", f"cell {_PLACE} AND count <> 0"),
                {predicted: (int(n), int(hits)) for predicted, n, hits in ask(_LABELS, place) if n},
                _errors(ask(_ERRORS, place)),
                texts(f"{both}, actual, count", f"pair_cell {_PLACE} AND count <> 0 AND actual <> {UNKNOWN}"),
                texts(f"{both}, count", f"pair_cell {_PLACE} AND count <> 0 AND actual = {UNKNOWN}"),
            )
        )
    return found


def _errors(rows: list[Row]) -> dict[int, Errors]:
    by_cohort: dict[int, list[tuple[int, int, int, int]]] = {}
    for cohort, exponent, count, absolute, squared in rows:
        by_cohort.setdefault(cohort, []).append((exponent, count, absolute, squared))
    sums = {cohort: counts.errors(of_cohort) for cohort, of_cohort in by_cohort.items()}
    return {cohort: found for cohort, found in sums.items() if found is not None}


def labelled(ask: Ask, subject: bytes, since_s: int, page: int) -> Iterator[list[Row]]:
    """Yield pages of (revision, assignment, nonce, row, time in ms, predicted, confidence, actual, id), by their keys.

    The id is what the user has called the prediction, None where there is no such name or it is forgotten.
    """
    for id_, revision, assignment in ask(
        "SELECT id, revision, variant FROM series WHERE subject = ? ORDER BY id", (subject,)
    ):
        nonce, row = b"", -1
        while True:
            rows = ask(
                "SELECT nonce, row_number, time_ms, predicted, confidence, actual, "
                "(SELECT MIN(id) FROM own_id WHERE own_id.subject = ? AND own_id.nonce = label.nonce) FROM label "
                "WHERE series = ? AND (nonce > ? OR (nonce = ? AND row_number > ?)) AND time_ms >= ? "
                f"ORDER BY nonce, row_number LIMIT {page}",
                (subject, id_, nonce, nonce, row, since_s * 1000),
            )
            if rows:
                yield [(revision, assignment, *found) for found in rows]
            if len(rows) < page:
                break
            nonce, row = bytes(rows[-1][0]), rows[-1][1]
