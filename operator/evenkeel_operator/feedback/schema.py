"""In which tables is everything kept, and how do those of an earlier release become these?

Four kinds: what was posted and told (label, mirrored, tally, own_name), counts of it, which are kept so that no
question has to count (cell, deviation, pair_cell, predicted), a number that is another one whenever any count of a
cohort is (cohort_version), and who it is about (series, model). Version 2 has counts that version 1 did not keep, so
what version 1 writes has other names here: a replica of the earlier release that still runs beside the first of the new
one finds its tables no more and answers 503, instead of storing what nobody counts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evenkeel_operator.feedback.counts import UNKNOWN, Changes, Truth
from evenkeel_operator.feedback.records import COHORT_S, MOST, Ask, Label, Source
from evenkeel_runtime import receipts

VERSION = 2

log = logging.getLogger(__name__)

Hold = Callable[[Sequence[str]], None]
RunMany = Callable[[str, Sequence[Sequence[Any]]], None]
"""Runs one statement for each of some rows."""

# A series' variant is its `receipts.Assignment`: version 1 knew of none, and its series are all STABLE.
_VERSIONS = "CREATE TABLE IF NOT EXISTS schema_version (version {integer} NOT NULL)"
_TABLES = """
CREATE TABLE IF NOT EXISTS series (
    id {identity}, subject {blob} NOT NULL, revision {text} NOT NULL, variant {integer} NOT NULL,
    classes {integer} NOT NULL, names {text} NOT NULL, UNIQUE (subject, revision, variant, classes));
CREATE TABLE IF NOT EXISTS label (
    series {integer} NOT NULL, nonce {blob} NOT NULL, row_number {integer} NOT NULL, time_ms {bigint} NOT NULL,
    predicted {real} NOT NULL, confidence {integer} NOT NULL, actual {real} NOT NULL,
    PRIMARY KEY (series, nonce, row_number)) {clustered};
CREATE INDEX IF NOT EXISTS label_time ON label {by_time};
CREATE TABLE IF NOT EXISTS cell (
    series {integer} NOT NULL, cohort {bigint} NOT NULL, predicted {integer} NOT NULL, actual {integer} NOT NULL,
    count {bigint} NOT NULL, PRIMARY KEY (series, cohort, predicted, actual)) {clustered};
CREATE INDEX IF NOT EXISTS cell_cohort ON cell (cohort);
CREATE TABLE IF NOT EXISTS deviation (
    series {integer} NOT NULL, cohort {bigint} NOT NULL, exponent {integer} NOT NULL, count {bigint} NOT NULL,
    absolute {bigint} NOT NULL, squared {bigint} NOT NULL, PRIMARY KEY (series, cohort, exponent)) {clustered};
CREATE INDEX IF NOT EXISTS deviation_cohort ON deviation (cohort);
CREATE TABLE IF NOT EXISTS tally (
    series {integer} NOT NULL, cohort {bigint} NOT NULL, class {integer} NOT NULL, process {blob} NOT NULL,
    count {bigint} NOT NULL, PRIMARY KEY (series, cohort, class, process)) {clustered};
CREATE INDEX IF NOT EXISTS tally_cohort ON tally (cohort);
CREATE TABLE IF NOT EXISTS predicted (
    series {integer} NOT NULL, cohort {bigint} NOT NULL, class {integer} NOT NULL, count {bigint} NOT NULL,
    labels {bigint} NOT NULL, hits {bigint} NOT NULL, PRIMARY KEY (series, cohort, class)) {clustered};
CREATE INDEX IF NOT EXISTS predicted_cohort ON predicted (cohort);
CREATE TABLE IF NOT EXISTS cohort_version (
    series {integer} NOT NULL, cohort {bigint} NOT NULL, version {bigint} NOT NULL,
    PRIMARY KEY (series, cohort)) {clustered};
CREATE INDEX IF NOT EXISTS cohort_version_cohort ON cohort_version (cohort);
CREATE TABLE IF NOT EXISTS mirrored (
    series {integer} NOT NULL, cohort {bigint} NOT NULL, nonce {blob} NOT NULL, row_number {integer} NOT NULL,
    stable {integer} NOT NULL, canary_revision {text} NOT NULL, canary {integer} NOT NULL,
    PRIMARY KEY (series, cohort, nonce, row_number)) {clustered};
CREATE INDEX IF NOT EXISTS mirrored_cohort ON mirrored (cohort);
CREATE TABLE IF NOT EXISTS pair_cell (
    series {integer} NOT NULL, cohort {bigint} NOT NULL, canary_revision {text} NOT NULL, stable {integer} NOT NULL,
    canary {integer} NOT NULL, actual {integer} NOT NULL, count {bigint} NOT NULL,
    PRIMARY KEY (series, cohort, canary_revision, stable, canary, actual)) {clustered};
CREATE INDEX IF NOT EXISTS pair_cell_cohort ON pair_cell (cohort);
CREATE TABLE IF NOT EXISTS own_name (
    subject {blob} NOT NULL, id {text} NOT NULL, receipt {text} NOT NULL, at_s {bigint} NOT NULL, nonce {blob},
    PRIMARY KEY (subject, id)) {clustered};
CREATE INDEX IF NOT EXISTS own_name_nonce ON own_name (subject, nonce);
CREATE INDEX IF NOT EXISTS own_name_time ON own_name (at_s);
CREATE TABLE IF NOT EXISTS model (
    subject {blob} PRIMARY KEY, namespace {text} NOT NULL, name {text} NOT NULL) {clustered}
"""

# What becomes another one below, label first: version 1 writes to it before the others, so whoever has it alone waits
# for none that has stored a label and not counted it yet.
_OF_1 = ("label", "confusion", "error", "prediction", "own_id", "pair")
_FROM_1 = """
CREATE INDEX IF NOT EXISTS label_time ON label {by_time};
ALTER TABLE confusion RENAME TO cell;
DROP TABLE error;
ALTER TABLE prediction RENAME TO tally;
ALTER TABLE own_id RENAME TO own_name;
ALTER TABLE own_name ADD COLUMN nonce {blob};
ALTER TABLE pair RENAME TO mirrored
"""
_FILL_PREDICTED = """
INSERT INTO predicted SELECT series, cohort, class, SUM(count), SUM(labels), SUM(hits) FROM (
    SELECT series, cohort, class, count, 0 AS labels, 0 AS hits FROM tally UNION ALL
    SELECT series, cohort, predicted, 0, count, CASE WHEN predicted = actual THEN count ELSE 0 END FROM cell) AS parts
GROUP BY 1, 2, 3
"""
_FILL_PAIR_CELLS = f"""
INSERT INTO pair_cell
SELECT mirrored.series, mirrored.cohort, canary_revision, stable, canary,
    COALESCE(CAST(label.actual AS integer), {UNKNOWN}), COUNT(*)
FROM mirrored JOIN series ON series.id = mirrored.series AND series.classes > 0
LEFT JOIN label ON label.series = mirrored.series AND label.nonce = mirrored.nonce
    AND label.row_number = mirrored.row_number AND label.time_ms / {COHORT_S * 1000} * {COHORT_S} = mirrored.cohort
GROUP BY 1, 2, 3, 4, 5, 6
"""
_FILL_VERSIONS = """
INSERT INTO cohort_version SELECT series, cohort, 0 FROM (
    SELECT series, cohort FROM predicted UNION SELECT series, cohort FROM deviation UNION
    SELECT series, cohort FROM pair_cell) AS places
"""
_PAGE = 1000


class LaterVersion(Exception):
    """The tables have the form of a later release."""


def make(run: Ask, run_many: RunMany, hold: Hold, words: Mapping[str, str]) -> None:
    """Make the tables that are not there, of those of version 1 these; raises LaterVersion.

    Within one transaction, which is the caller's. `hold` has tables to itself until the transaction ends; `words` says
    how the database calls types and the like.
    """
    run(_VERSIONS.format(**words), ())
    found = run("SELECT version FROM schema_version", ())
    version = int(found[0][0]) if found else None
    if version is not None and version > VERSION:
        raise LaterVersion(f"the database has the form {version} of a later release; this one reads {VERSION}")
    if version == VERSION:
        return  # to make an index that is there waits for who writes, on PostgreSQL, and they for this
    if version == 1:
        hold(_OF_1)
        _run_all(run, _FROM_1, words)
    _run_all(run, _TABLES, words)
    if version == 1:
        log.info("counting what is stored, once: the database is brought up to this release's form")
        _fill(run, run_many)
        run("UPDATE schema_version SET version = ?", (VERSION,))
    if version is None:
        run("INSERT INTO schema_version VALUES (?)", (VERSION,))


def _run_all(run: Ask, statements: str, words: Mapping[str, str]) -> None:
    for statement in statements.format(**words).split(";"):
        run(statement, ())


def _fill(run: Ask, run_many: RunMany) -> None:
    run(_FILL_PREDICTED, ())
    run(_FILL_PAIR_CELLS, ())
    changes = Changes()
    for series, subject, revision, assignment in run(
        "SELECT id, subject, revision, variant FROM series WHERE classes = 0", ()
    ):
        source = Source(bytes(subject), revision, assignment, 0)
        for nonce, row, time_ms, predicted, actual in _labels(run, series):
            # Nothing can be posted about a larger one any more, so that what is not counted here is not taken off.
            if abs(predicted) < MOST:
                changes.judged(series, Truth(Label(source, nonce, row, time_ms, predicted, 0, actual), None))
    changes.write(run_many)
    run("DELETE FROM cohort_version", ())
    run(_FILL_VERSIONS, ())
    _fill_nonces(run, run_many)


def _labels(run: Ask, series: int) -> Any:
    nonce, row = b"", -1
    while rows := run(
        "SELECT nonce, row_number, time_ms, predicted, actual FROM label WHERE series = ? AND "
        f"(nonce > ? OR (nonce = ? AND row_number > ?)) ORDER BY nonce, row_number LIMIT {_PAGE}",
        (series, nonce, nonce, row),
    ):
        yield from rows
        nonce, row = bytes(rows[-1][0]), rows[-1][1]


def _fill_nonces(run: Ask, run_many: RunMany) -> None:
    subject, name = b"", ""
    while rows := run(
        "SELECT subject, id, receipt FROM own_name WHERE subject > ? OR (subject = ? AND id > ?) "
        f"ORDER BY subject, id LIMIT {_PAGE}",
        (subject, subject, name),
    ):
        run_many(
            "UPDATE own_name SET nonce = ? WHERE subject = ? AND id = ?",
            [(receipts.nonce_or_none(receipt), subject, name) for subject, name, receipt in rows],
        )
        subject, name = bytes(rows[-1][0]), rows[-1][1]
