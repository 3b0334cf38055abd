"""What does the feedback service keep, and how is a label counted exactly once?

One transaction decides and counts: a label is inserted under the prediction's nonce and row, and only if the row is
new its confusion cell grows, in the same transaction. So does the cell of a pair, whichever of label and pair comes
first: the second of them finds the first. Whoever was answered finds the label there for ever; whoever was not may send
it again. The SQL here is common to both databases; where they differ is in sqlite.py and postgres.py.

Locks are taken in one order (series by id, labels by key, what is told by key, cells by key), so that two replicas on
PostgreSQL never wait for each other in a circle. A series is shared by those who post labels of it; who tells pairs or
totals of it has it alone, or a label and its pair that are written at once would each not find the other.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from evenkeel_operator.feedback import retention, schema, series
from evenkeel_operator.feedback.cohorts import Texts
from evenkeel_operator.feedback.counts import Both, Changes, Key, PairKey, Truth, settled
from evenkeel_operator.feedback.records import Answer, Label, Row, Series, Source, Told, cohort_of
from evenkeel_runtime import receipts

# Of a total that a process has told, the sum over processes grows by what it is more than before.
_ADD_PREDICTED = """
INSERT INTO predicted
SELECT told.series, told.cohort, told.class, told.count - COALESCE(tally.count, 0), 0, 0
FROM (SELECT ? AS series, ? AS cohort, ? AS class, ? AS process, ? AS count) AS told
LEFT JOIN tally ON tally.series = told.series AND tally.cohort = told.cohort AND tally.class = told.class
    AND tally.process = told.process
WHERE told.count > COALESCE(tally.count, 0)
ON CONFLICT (series, cohort, class) DO UPDATE SET count = predicted.count + excluded.count
"""
_PUT_TALLY = """
INSERT INTO tally VALUES (?, ?, ?, ?, ?)
ON CONFLICT (series, cohort, class, process) DO UPDATE SET count = excluded.count
WHERE excluded.count > tally.count
"""
_PUT_ID = "INSERT INTO own_name (subject, id, receipt, at_s, nonce) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_PUT_MODEL = """
INSERT INTO model VALUES (?, ?, ?)
ON CONFLICT (subject) DO UPDATE SET namespace = excluded.namespace, name = excluded.name
"""
_ANY_PAIR = "SELECT 1 FROM mirrored WHERE series = ? LIMIT 1"
_CORRECT = "UPDATE label SET actual = ? WHERE series = ? AND nonce = ? AND row_number = ?"

T = TypeVar("T")


class Unavailable(Exception):
    """The database does not answer now; nothing of what was asked has been done, or nobody knows."""


class Refused(Unavailable):
    """The database answers, and does not take these values; it may well take others."""


class Store(ABC):
    """One connection that writes and reads; used by one thread at a time."""

    def __init__(self) -> None:
        self._series: dict[Source, int] = {}
        self._named: set[int] = set()
        self._told = Texts()

    # what the databases do differently

    @abstractmethod
    def _run(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run one statement; return its rows, if it has any."""

    @abstractmethod
    def _run_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each of these rows."""

    @abstractmethod
    def _insert_labels(self, rows: Sequence[Row]) -> set[Key]:
        """Insert labels, ordered by their keys; return the keys of those that were not there."""

    @abstractmethod
    def _insert_pairs(self, rows: Sequence[Row]) -> set[PairKey]:
        """Insert pairs, ordered by their keys; return the keys of those that were not there."""

    @abstractmethod
    def _labels(self, keys: Sequence[Key]) -> dict[Key, tuple[float, int]]:
        """Return what the labels that there are of these keys say, and the time in ms of their predictions.

        They are held until the transaction ends.
        """

    @abstractmethod
    def _pairs(self, keys: Sequence[PairKey]) -> dict[PairKey, Both]:
        """Return what the pairs that there are of these keys say."""

    @abstractmethod
    def _hold(self, series: int, *, alone: bool) -> None:
        """Wait for those who have the series alone, or for all who have it, and have it until the transaction ends."""

    @abstractmethod
    def _hold_all(self) -> None:
        """Wait for those who make the tables, and let none do so until the transaction ends."""

    @abstractmethod
    def _hold_tables(self, tables: Sequence[str]) -> None:
        """Wait until nobody reads or writes these, and let nobody do so until the transaction ends."""

    @abstractmethod
    def _json(self, numbers: str) -> str:
        """Return the aggregate that makes JSON text of rows of numbers: an array of arrays."""

    @abstractmethod
    def _begin(self, *, reads: bool = False) -> None:
        """Begin a transaction; one that `reads` only sees what was committed before its first question."""

    @abstractmethod
    def _commit(self) -> None:
        """Return when the transaction is on the disk."""

    @abstractmethod
    def _roll_back(self) -> None:
        """Undo what the transaction did, as far as there is one."""

    @abstractmethod
    def close(self) -> None: ...

    def _make(self, words: Mapping[str, str]) -> None:
        """Make the tables, or close the connection; raises Unavailable, also where they are a later release's."""

        def make() -> None:
            self._hold_all()
            schema.make(self._run, self._run_many, self._hold_tables, words)

        try:
            self._within(make)
        except BaseException as e:
            self.close()
            if isinstance(e, schema.LaterVersion):
                raise Unavailable(str(e)) from e
            raise

    # writes: each is one transaction

    def write(self, labels: Sequence[Label], told: Sequence[Told], now_s: int) -> list[Answer]:
        """Count labels and keep what replicas tell; return the answer to each label when all of it is durable.

        Raises Unavailable.
        """
        return self._within(lambda: self._write(labels, told, now_s))

    def remember(self, models: Iterable[tuple[bytes, str, str]]) -> None:
        """Keep which object (subject, namespace, name) a subject is."""
        self._within(lambda: self._run_many(_PUT_MODEL, sorted(models)))

    def expire(self, before_s: int, ids_before_s: int) -> bool:
        """Delete some of what belongs to predictions before that moment, or of users' own ids that were told before
        theirs; return whether more may be left."""
        doomed = retention.too_old(self._run, before_s, ids_before_s)
        if doomed is not None:
            self._within(lambda: self._run_many(doomed.delete, doomed.rows))
        return doomed is not None

    def _within(self, work: Callable[[], T], *, reads: bool = False) -> T:
        try:
            self._begin(reads=reads)
            done = work()
            self._commit()
        except BaseException:
            self._series.clear()
            self._named.clear()
            self._roll_back()
            raise
        return done

    def _write(self, labels: Sequence[Label], told: Sequence[Told], now_s: int) -> list[Answer]:
        telling = {source for one in told for source in one.sources}
        held = {
            self._series_of(source): source in telling
            for source in sorted(telling.union(label.source for label in labels))
        }
        for id_, alone in sorted(held.items()):
            self._hold(id_, alone=alone)
        answers, truths = self._settle(labels) if labels else ([], {})
        changes = Changes()
        self._keep(told, now_s, changes)
        for key, truth in truths.items():
            changes.judged(key[0], truth)
        self._pair(truths, told, changes)
        changes.write(self._run_many)
        return answers

    def _settle(self, labels: Sequence[Label]) -> tuple[list[Answer], dict[Key, Truth]]:
        """Store labels; return the answer to each, and the truths that are new."""
        keys = [(self._series_of(label.source), label.nonce, label.row) for label in labels]
        first: dict[Key, Label] = {}
        for key, label in zip(keys, labels, strict=True):
            first.setdefault(key, label)
        new = self._insert_labels(
            [
                (*key, label.time_ms, label.predicted, label.confidence, label.actual)
                for key, label in sorted(first.items(), key=lambda item: item[0])
            ]
        )
        found = self._labels(sorted(first.keys() - new)) if len(new) < len(first) else {}
        answers, truths = settled(keys, labels, {key: actual for key, (actual, _) in found.items()})
        corrected = [
            (truth.label.actual, *key)
            for key, truth in sorted(truths.items(), key=lambda item: item[0])
            if truth.label is not first[key] or key not in new
        ]
        if corrected:
            self._run_many(_CORRECT, corrected)
        return answers, truths

    def _keep(self, told: Sequence[Told], now_s: int, changes: Changes) -> None:
        totals: dict[tuple[int, int, int, bytes], int] = {}
        ids: dict[tuple[bytes, str], str] = {}
        for one in told:
            by_assignment = {source.assignment: self._series_of(source) for source in one.sources}
            for id_ in sorted(by_assignment.values()) if one.names else ():
                if id_ not in self._named:
                    self._run("UPDATE series SET names = ? WHERE id = ?", (json.dumps(one.names), id_))
                    self._named.add(id_)
            for (assignment, cohort, class_), count in one.totals.items():
                place = by_assignment[assignment], cohort, class_, one.process
                totals[place] = max(count, totals.get(place, 0))
                changes.told(by_assignment[assignment], cohort)
            for name, receipt in one.ids:
                ids.setdefault((one.source.subject, name), receipt)
        if totals:
            rows = [(*place, count) for place, count in sorted(totals.items())]
            self._run_many(_ADD_PREDICTED, rows)
            self._run_many(_PUT_TALLY, rows)
        if ids:
            self._run_many(
                _PUT_ID,
                [(*place, receipt, now_s, receipts.nonce_or_none(receipt)) for place, receipt in sorted(ids.items())],
            )

    def _pair(self, truths: Mapping[Key, Truth], told: Sequence[Told], changes: Changes) -> None:
        """Store pairs, and count those that are new and those whose truth is."""
        pairs: dict[PairKey, Both] = {}
        for one in told:
            id_ = self._series_of(one.source)
            for pair in one.pairs:
                key = id_, pair.cohort, pair.nonce, pair.row
                pairs.setdefault(key, (pair.canary_revision, pair.stable, pair.canary))
        new = self._insert_pairs([_pair_row(*item) for item in sorted(pairs.items())]) if pairs else set()
        true = {(key[0], truth.label.cohort, *key[1:]): truth for key, truth in truths.items()}
        for key, both in self._paired([key for key in true if key not in new]).items():
            changes.repaired(key, both, true[key])
        unknown = sorted((key[0], *key[2:]) for key in new - true.keys())
        labels = self._labels(unknown) if unknown else {}
        for key in new:
            if (truth := true.get(key)) is not None:
                changes.paired(key, pairs[key], truth.label.actual)
            else:
                actual, time_ms = labels.get((key[0], *key[2:]), (None, 0))
                changes.paired(key, pairs[key], actual if cohort_of(time_ms) == key[1] else None)

    def _paired(self, keys: Sequence[PairKey]) -> dict[PairKey, Both]:
        """Return the pairs of these keys; most series have none, and then no label is looked for."""
        some = {id_ for id_ in {key[0] for key in keys} if self._run(_ANY_PAIR, (id_,))}
        wanted = sorted(key for key in keys if key[0] in some)
        return self._pairs(wanted) if wanted else {}

    def _series_of(self, source: Source) -> int:
        if (known := self._series.get(source)) is not None:
            return known
        values = (source.subject, source.revision, source.assignment, source.classes)
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
        return self._within(lambda: series.quality(self._run, self._json, self._told, subject, since_s), reads=True)

    def labelled(self, subject: bytes, since_s: int, page: int = 1000) -> Iterator[list[Row]]:
        """Yield pages of labelled predictions, as `series.labelled` does."""
        return series.labelled(self._run, subject, since_s, page)

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
            for (receipt,) in self._run("SELECT receipt FROM own_name WHERE subject = ? AND id = ?", (subject, name)):
                found[name] = receipt
        return found

    def models(self) -> list[tuple[bytes, str, str]]:
        """Return subject, namespace and name of every ModelDeployment that was ever seen."""
        rows = self._run("SELECT subject, namespace, name FROM model")
        return [(bytes(subject), namespace, name) for subject, namespace, name in rows]


def _pair_row(key: PairKey, both: Both) -> Row:
    revision, stable, canary = both
    return (*key, stable, revision, canary)
