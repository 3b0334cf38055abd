"""What is known of each revision of a ModelDeployment, cohort by cohort and label by label? Read as it is kept: no
question counts anything, or joins what was told with what was posted."""

from __future__ import annotations

import json
from collections.abc import Iterator

from evenkeel_operator.feedback import cohorts
from evenkeel_operator.feedback.cohorts import AsJson, Texts
from evenkeel_operator.feedback.records import Ask, Row, Series, Source
from evenkeel_operator.feedback.totals import errors_since

_CLASSES = """
SELECT class, SUM(count), SUM(labels), SUM(hits) FROM predicted WHERE series = ? AND cohort >= ?
GROUP BY class ORDER BY class
"""


def quality(ask: Ask, as_json: AsJson, kept: Texts, subject: bytes, since_s: int) -> list[Series]:
    """Return the counts of every revision and assignment of a ModelDeployment, of cohorts since that moment.

    Within a transaction that sees one moment; `kept` are the texts of cohorts that were told before.
    """
    rows = ask("SELECT id, revision, variant, classes, names FROM series WHERE subject = ? ORDER BY id", (subject,))
    return [
        Series(
            Source(subject, revision, assignment, classes),
            tuple(json.loads(names)),
            {class_: (int(n), int(labels), int(hits)) for class_, n, labels, hits in ask(_CLASSES, (id_, since_s))},
            errors_since(ask, id_, since_s),
            cohorts.told(ask, as_json, kept, id_, since_s),
        )
        for id_, revision, assignment, classes, names in rows
    ]


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
                "(SELECT MIN(id) FROM own_name WHERE own_name.subject = ? AND own_name.nonce = label.nonce) FROM label "
                "WHERE series = ? AND (nonce > ? OR (nonce = ? AND row_number > ?)) AND time_ms >= ? "
                f"ORDER BY nonce, row_number LIMIT {page}",
                (subject, id_, nonce, nonce, row, since_s * 1000),
            )
            if rows:
                yield [(revision, assignment, *found) for found in rows]
            if len(rows) < page:
                break
            nonce, row = bytes(rows[-1][0]), rows[-1][1]
