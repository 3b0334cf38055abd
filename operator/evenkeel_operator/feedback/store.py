"""What does the feedback service keep, and how is a label counted exactly once?

One transaction decides and counts: a label is inserted under the prediction's nonce and row, and only if the row is
new its confusion cell grows, in the same transaction. Whoever was answered finds the label there for ever; whoever was
not may send it again. The SQL here is common to both databases; where they differ is in sqlite.py and postgres.py.

Locks are taken in one order (labels by key, then cells by key), so that two replicas on PostgreSQL never wait for each
other in a circle.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from evenkeel_operator.feedback.records import Answer, Errors, Label, Outcome, Series, Source, Told

Key = tuple[int, bytes, int]
"""A prediction: series, nonce, row."""
Row = tuple[Any, ...]

SCHEMA_VERSION = 1

TABLES = """
CREATE TABLE IF NOT EXISTS schema_version (version {integer} NOT NULL);
CREATE TABLE IF NOT EXISTS series (
    id {identity}, subject {blob} NOT NULL, revision {text} NOT NULL, variant {integer} NOT NULL,
    classes {integer} NOT NULL, names {text} NOT NULL, UNIQUE (subject, revision, variant, classes));
CREATE TABLE IF NOT EXISTS label (
    series {integer} NOT NULL, nonce {blob} NOT NULL, row_number {integer} NOT NULL, time_ms {bigint} NOT NULL,
    predicted {real} NOT NULL, confidence {integer} NOT NULL, actual {real} NOT NULL,
    PRIMARY KEY (series, nonce, row_number)) {clustered};
CREATE TABLE IF NOT EXISTS confusion (
    series {integer} NOT NULL, cohort {bigint} NOT NULL, predicted {integer} NOT NULL, actual {integer} NOT NULL,
    count {bigint} NOT NULL, PRIMARY KEY (series, cohort, predicted, actual)) {clustered};
CREATE TABLE IF NOT EXISTS error (
    series {integer} NOT NULL, cohort {bigint} NOT NULL, count {bigint} NOT NULL, absolute {real} NOT NULL,
    squared {real} NOT NULL, PRIMARY KEY (series, cohort)) {clustered};
CREATE TABLE IF NOT EXISTS prediction (
    series {integer} NOT NULL, cohort {bigint} NOT NULL, class {integer} NOT NULL, process {blob} NOT NULL,
    count {bigint} NOT NULL, PRIMARY KEY (series, cohort, class, process)) {clustered};
CREATE TABLE IF NOT EXISTS pair (
    series {integer} NOT NULL, cohort {bigint} NOT NULL, nonce {blob} NOT NULL, row_number {integer} NOT NULL,
    stable {integer} NOT NULL, canary_revision {text} NOT NULL, canary {integer} NOT NULL,
    PRIMARY KEY (series, cohort, nonce, row_number)) {clustered};
CREATE TABLE IF NOT EXISTS own_id (
    subject {blob} NOT NULL, id {text} NOT NULL, receipt {text} NOT NULL, at_s {bigint} NOT NULL,
    PRIMARY KEY (subject, id)) {clustered};
CREATE TABLE IF NOT EXISTS model (
    subject {blob} PRIMARY KEY, namespace {text} NOT NULL, name {text} NOT NULL) {clustered}
"""

_ADD_CELL = """
INSERT INTO confusion VALUES (?, ?, ?, ?, ?)
ON CONFLICT (series, cohort, predicted, actual) DO UPDATE SET count = confusion.count + excluded.count
"""
_ADD_ERROR = """
INSERT INTO error VALUES (?, ?, ?, ?, ?)
ON CONFLICT (series, cohort) DO UPDATE SET count = error.count + excluded.count,
    absolute = error.absolute + excluded.absolute, squared = error.squared + excluded.squared
"""
_PUT_TOTAL = """
INSERT INTO prediction VALUES (?, ?, ?, ?, ?)
ON CONFLICT (series, cohort, class, process) DO UPDATE SET count = excluded.count
WHERE excluded.count > prediction.count
"""
_PUT_PAIR = "INSERT INTO pair VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_PUT_ID = "INSERT INTO own_id VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_PUT_MODEL = """
INSERT INTO model VALUES (?, ?, ?)
ON CONFLICT (subject) DO UPDATE SET namespace = excluded.namespace, name = excluded.name
"""
_CORRECT = "UPDATE label SET actual = ? WHERE series = ? AND nonce = ? AND row_number = ?"

AGED = ("confusion", "error", "prediction", "pair")
"""Tables whose rows belong to a cohort."""

DELETED_AT_ONCE = 5000
"""How many labels one transaction of the retention deletes: a post waits for no longer."""


class Unavailable(Exception):
    """The database does not answer now; nothing of what was asked has been done, or nobody knows."""


class Refused(Unavailable):
    """The database answers, and does not take these values; it may well take others."""


class Store(ABC):
    """One connection that writes and reads; used by one thread at a time."""

    _cells: str
    """The aggregate that makes the JSON text of a cohort's cells."""

    def __init__(self) -> None:
        self._series: dict[Source, int] = {}
        self._named: set[int] = set()

    # what the databases do differently

    @abstractmethod
    def _run(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run one statement; return its rows, if it has any."""

    @abstractmethod
    def _run_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each of these rows."""

    @abstractmethod
    def _insert(self, rows: Sequence[Row]) -> set[Key]:
        """Insert labels, ordered by their keys; return the keys of those that were not there."""

    @abstractmethod
    def _actual(self, keys: Sequence[Key]) -> dict[Key, float]:
        """Return what the labels of these keys say, held until the transaction ends."""

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _commit(self) -> None:
        """Return when the transaction is on the disk."""

    @abstractmethod
    def _roll_back(self) -> None:
        """Undo what the transaction did, as far as there is one."""

    @abstractmethod
    def close(self) -> None: ...

    def _check_version(self) -> None:
        """Mark new tables with the version of their form; raise Unavailable for a later one's."""
        self._run(
            "INSERT INTO schema_version SELECT CAST(? AS integer) WHERE NOT EXISTS (SELECT 1 FROM schema_version)",
            (SCHEMA_VERSION,),
        )
        ((found,),) = self._run("SELECT version FROM schema_version")
        if found > SCHEMA_VERSION:
            raise Unavailable(f"the database has the form {found} of a later release; this one reads {SCHEMA_VERSION}")

    # writes: each is one transaction

    def write(self, labels: Sequence[Label], told: Sequence[Told], now_s: int) -> list[Answer]:
        """Count labels and keep what replicas tell; return the answer to each label when all of it is durable.

        Raises Unavailable.
        """
        try:
            self._begin()
            answers = self._count(labels) if labels else []
            for one in told:
                self._keep(one, now_s)
            self._commit()
        except BaseException:
            self._series.clear()
            self._named.clear()
            self._roll_back()
            raise
        return answers

    def remember(self, models: Iterable[tuple[bytes, str, str]]) -> None:
        """Keep which object (subject, namespace, name) a subject is."""
        self._within(lambda: self._run_many(_PUT_MODEL, sorted(models)))

    def expire(self, before_s: int) -> bool:
        """Delete some of what belongs to predictions before that moment; return whether more is left."""
        doomed = self._run(
            f"SELECT series, nonce, row_number FROM label WHERE time_ms < ? LIMIT {DELETED_AT_ONCE}",
            (before_s * 1000,),
        )

        def delete() -> None:
            self._run_many("DELETE FROM label WHERE series = ? AND nonce = ? AND row_number = ?", sorted(doomed))
            if len(doomed) < DELETED_AT_ONCE:
                for table in AGED:
                    self._run(f"DELETE FROM {table} WHERE cohort < ?", (before_s,))
                self._run("DELETE FROM own_id WHERE at_s < ?", (before_s,))

        self._within(delete)
        return len(doomed) == DELETED_AT_ONCE

    def _within(self, work: Any) -> None:
        try:
            self._begin()
            work()
            self._commit()
        except BaseException:
            self._roll_back()
            raise

    def _count(self, labels: Sequence[Label]) -> list[Answer]:
        keys = [(self._series_of(label.source), label.nonce, label.row) for label in labels]
        first: dict[Key, Label] = {}
        for key, label in zip(keys, labels, strict=True):
            first.setdefault(key, label)
        new = self._insert(
            [
                (*key, label.time_ms, label.predicted, label.confidence, label.actual)
                for key, label in sorted(first.items(), key=lambda item: item[0])
            ]
        )
        said = self._actual(sorted(first.keys() - new)) if len(new) < len(first) else {}
        cells: Counter[tuple[int, int, int, int]] = Counter()
        errors: dict[tuple[int, int], tuple[int, float, float]] = {}
        corrected: dict[Key, float] = {}
        answers = []
        for key, label in zip(keys, labels, strict=True):
            before = said.get(key)
            answer = _answered(before, label)
            answers.append(answer)
            if answer.outcome == Outcome.ACCEPTED:
                if before is not None:
                    corrected[key] = label.actual
                    _count_one(cells, errors, key, label, before, -1)
                said[key] = label.actual
                _count_one(cells, errors, key, label, label.actual, 1)
        if corrected:
            self._run_many(_CORRECT, [(corrected[key], *key) for key in sorted(corrected)])
        if cells:
            self._run_many(_ADD_CELL, [(*cell, count) for cell, count in sorted(cells.items()) if count])
        if errors:
            self._run_many(_ADD_ERROR, [(*place, *sums) for place, sums in sorted(errors.items())])
        return answers

    def _keep(self, told: Told, now_s: int) -> None:
        series = self._series_of(told.source)
        if told.names and series not in self._named:
            self._run("UPDATE series SET names = ? WHERE id = ?", (json.dumps(told.names), series))
            self._named.add(series)
        totals = [(series, cohort, class_, told.process, n) for (cohort, class_), n in sorted(told.totals.items())]
        if totals:
            self._run_many(_PUT_TOTAL, totals)
        if told.ids:
            rows = [(told.source.subject, name, receipt, now_s) for name, receipt in sorted(told.ids)]
            self._run_many(_PUT_ID, rows)
        if told.pairs:
            pairs = [(series, p.cohort, p.nonce, p.row, p.stable, p.canary_revision, p.canary) for p in told.pairs]
            self._run_many(_PUT_PAIR, sorted(pairs))

    def _series_of(self, source: Source) -> int:
        if (known := self._series.get(source)) is not None:
            return known
        values = (source.subject, source.revision, source.variant, source.classes)
        self._run(
            "INSERT INTO series (subject, revision, variant, classes, names) VALUES (?, ?, ?, ?, '[]') "
            "ON CONFLICT DO NOTHING",
            values,
        )
        ((found,),) = self._run(
            "SELECT id FROM series WHERE subject = ? AND revision = ? AND variant = ? AND classes = ?", values
        )
        self._series[source] = int(found)
        return int(found)

    # reads

    def ask(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return the rows that one statement finds; raises Unavailable."""
        return self._run(sql, values)

    def quality(self, subject: bytes, since_s: int) -> list[Series]:
        """Return the counts of every revision of a ModelDeployment, of cohorts since that moment."""
        rows = self._run(
            "SELECT id, revision, variant, classes, names FROM series WHERE subject = ? ORDER BY id", (subject,)
        )
        return [
            self._of_series(int(id_), Source(subject, revision, variant, classes), tuple(json.loads(names)), since_s)
            for id_, revision, variant, classes, names in rows
        ]

    def _of_series(self, series: int, source: Source, names: tuple[str, ...], since_s: int) -> Series:
        place = (series, since_s)
        predictions = self._run(
            "SELECT cohort, class, SUM(count) FROM prediction WHERE series = ? AND cohort >= ? "
            "GROUP BY cohort, class ORDER BY cohort, class",
            place,
        )
        confusion = self._run(
            f"SELECT cohort, {self._cells} FROM confusion WHERE series = ? AND cohort >= ? AND count <> 0 "
            "GROUP BY cohort",
            place,
        )
        # By cohort first, which is the order of the key: to sort all cells by class takes as long as all the rest.
        labels = self._run(
            "SELECT predicted, SUM(labels), SUM(hits) FROM (SELECT cohort, predicted, SUM(count) AS labels, "
            "SUM(CASE WHEN predicted = actual THEN count ELSE 0 END) AS hits FROM confusion "
            "WHERE series = ? AND cohort >= ? GROUP BY cohort, predicted) AS of_cohorts GROUP BY predicted",
            place,
        )
        errors = self._run(
            "SELECT cohort, count, absolute, squared FROM error WHERE series = ? AND cohort >= ? ORDER BY cohort",
            place,
        )
        pairs = self._run(
            "SELECT pair.cohort, canary_revision, stable, canary, actual, COUNT(*) FROM pair JOIN label "
            "ON label.series = pair.series AND label.nonce = pair.nonce AND label.row_number = pair.row_number "
            "WHERE pair.series = ? AND pair.cohort >= ? GROUP BY pair.cohort, canary_revision, stable, canary, actual",
            place,
        )
        return Series(
            source,
            names,
            {(cohort, class_): int(count) for cohort, class_, count in predictions},
            dict(confusion),
            {predicted: (int(count), int(hits)) for predicted, count, hits in labels if count},
            {cohort: Errors(count, absolute, squared) for cohort, count, absolute, squared in errors if count},
            {
                (cohort, revision, stable, canary, int(actual)): count
                for cohort, revision, stable, canary, actual, count in pairs
            },
        )

    def names(self, subject: bytes, revision: str) -> tuple[str, ...]:
        """Return the names of a revision's classes, empty while they are not known."""
        rows = self._run(
            "SELECT names FROM series WHERE subject = ? AND revision = ? AND names <> '[]'", (subject, revision)
        )
        return tuple(json.loads(rows[0][0])) if rows else ()

    def receipts(self, subject: bytes, ids: Sequence[str]) -> dict[str, str]:
        """Return the receipts that were given these ids by users."""
        found = {}
        for name in ids:
            for (receipt,) in self._run("SELECT receipt FROM own_id WHERE subject = ? AND id = ?", (subject, name)):
                found[name] = receipt
        return found

    def models(self) -> list[tuple[bytes, str, str]]:
        """Return subject, namespace and name of every ModelDeployment that was ever seen."""
        rows = self._run("SELECT subject, namespace, name FROM model")
        return [(bytes(subject), namespace, name) for subject, namespace, name in rows]

    def labelled(self, subject: bytes, since_s: int, page: int = 1000) -> Iterator[list[Row]]:
        """Yield pages of (revision, variant, nonce, row, time in ms, predicted, confidence, actual), by their keys."""
        for id_, revision, variant in self._run(
            "SELECT id, revision, variant FROM series WHERE subject = ? ORDER BY id", (subject,)
        ):
            nonce, row = b"", -1
            while True:
                rows = self._run(
                    "SELECT nonce, row_number, time_ms, predicted, confidence, actual FROM label "
                    "WHERE series = ? AND (nonce > ? OR (nonce = ? AND row_number > ?)) AND time_ms >= ? "
                    f"ORDER BY nonce, row_number LIMIT {page}",
                    (id_, nonce, nonce, row, since_s * 1000),
                )
                if rows:
                    yield [(revision, variant, *found) for found in rows]
                if len(rows) < page:
                    break
                nonce, row = bytes(rows[-1][0]), rows[-1][1]


def _answered(before: float | None, label: Label) -> Answer:
    """Return what becomes of a label where the store says `before` about its prediction.

    A label that says otherwise counts only when it says that it corrects: posts are sent again when their answer was
    lost, and an old one that arrives again must not undo the correction.
    """
    if before is None:
        return Answer(Outcome.ACCEPTED)
    if before == label.actual:
        return Answer(Outcome.DUPLICATE)
    if label.corrects:
        return Answer(Outcome.ACCEPTED, "Corrected")
    return Answer(
        Outcome.DUPLICATE,
        "AlreadyLabelled",
        'the prediction has another label; to replace it, send "corrects": true along with the label',
    )


def _count_one(
    cells: Counter[tuple[int, int, int, int]],
    errors: dict[tuple[int, int], tuple[int, float, float]],
    key: Key,
    label: Label,
    actual: float,
    sign: int,
) -> None:
    if label.source.classes:
        cells[(key[0], label.cohort, int(label.predicted), int(actual))] += sign
        return
    error = abs(label.predicted - actual)
    count, absolute, squared = errors.get((key[0], label.cohort), (0, 0.0, 0.0))
    errors[(key[0], label.cohort)] = count + sign, absolute + sign * error, squared + sign * error * error
