"""Is a database of the earlier release brought up to this one's form with all its counts, and a later one's refused?"""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest

from evenkeel_operator.feedback import schema
from evenkeel_operator.feedback.postgres import PostgresStore
from evenkeel_operator.feedback.records import Errors, Told
from evenkeel_operator.feedback.store import Store, Unavailable
from evenkeel_operator.feedback.totals import totals
from evenkeel_runtime.receipts import nonce_or_none
from tests.system.feedback.server import Deployment
from tests.system.feedback.test_pairs import CANARY, pair, told
from tests.system.feedback.test_quality import asked, assert_is_of_the_rows
from tests.system.feedback.test_store import (
    COHORT,
    NOW_S,
    NUMBERS,
    SOURCE,
    SUBJECT,
    confusion,
    label,
    nonce,
    pairs,
    predictions,
)

# As release 1 has made them, the words aside that the databases call differently.
VERSION_1 = """
CREATE TABLE schema_version (version {integer} NOT NULL);
CREATE TABLE series (id {identity}, subject {blob} NOT NULL, revision {text} NOT NULL, variant {integer} NOT NULL,
    classes {integer} NOT NULL, names {text} NOT NULL, UNIQUE (subject, revision, variant, classes));
CREATE TABLE label (series {integer} NOT NULL, nonce {blob} NOT NULL, row_number {integer} NOT NULL,
    time_ms {bigint} NOT NULL, predicted {real} NOT NULL, confidence {integer} NOT NULL, actual {real} NOT NULL,
    PRIMARY KEY (series, nonce, row_number)) {clustered};
CREATE TABLE confusion (series {integer} NOT NULL, cohort {bigint} NOT NULL, predicted {integer} NOT NULL,
    actual {integer} NOT NULL, count {bigint} NOT NULL, PRIMARY KEY (series, cohort, predicted, actual)) {clustered};
CREATE TABLE error (series {integer} NOT NULL, cohort {bigint} NOT NULL, count {bigint} NOT NULL,
    absolute {real} NOT NULL, squared {real} NOT NULL, PRIMARY KEY (series, cohort)) {clustered};
CREATE TABLE prediction (series {integer} NOT NULL, cohort {bigint} NOT NULL, class {integer} NOT NULL,
    process {blob} NOT NULL, count {bigint} NOT NULL, PRIMARY KEY (series, cohort, class, process)) {clustered};
CREATE TABLE pair (series {integer} NOT NULL, cohort {bigint} NOT NULL, nonce {blob} NOT NULL,
    row_number {integer} NOT NULL, stable {integer} NOT NULL, canary_revision {text} NOT NULL,
    canary {integer} NOT NULL, PRIMARY KEY (series, cohort, nonce, row_number)) {clustered};
CREATE TABLE own_id (subject {blob} NOT NULL, id {text} NOT NULL, receipt {text} NOT NULL, at_s {bigint} NOT NULL,
    PRIMARY KEY (subject, id)) {clustered};
CREATE TABLE model (subject {blob} PRIMARY KEY, namespace {text} NOT NULL, name {text} NOT NULL) {clustered};
CREATE INDEX label_time ON label {by_time};
INSERT INTO schema_version VALUES (1)
"""
SQLITE = {
    **{"integer": "INTEGER", "bigint": "INTEGER"},
    **{"identity": "INTEGER PRIMARY KEY", "blob": "BLOB", "text": "TEXT", "real": "REAL"},
    **{"clustered": "WITHOUT ROWID", "by_time": "(time_ms)"},
}
POSTGRES = {
    **{"integer": "integer", "bigint": "bigint", "identity": "integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY"},
    **{"blob": "bytea", "text": "text", "real": "double precision", "clustered": "", "by_time": "USING brin (time_ms)"},
}

Run = Callable[..., Any]


class Database:
    """A database as another program sees it."""

    def __init__(self, flag: str, where: str) -> None:
        self.words = SQLITE if flag == "--path" else POSTGRES
        self._connection: Any = (
            sqlite3.connect(where, isolation_level=None, check_same_thread=False)
            if flag == "--path"
            else psycopg.connect(where, autocommit=True)
        )
        if flag == "--path":
            self.run("PRAGMA journal_mode = WAL")

    def run(self, sql: str, *values: Any) -> list[Any]:
        mark = "?" if self.words is SQLITE else "%s"
        cursor = self._connection.execute(sql.replace("?", mark), values)
        return list(cursor.fetchall()) if cursor.description else []

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def old(database: tuple[str, ...]) -> Any:
    """An empty database of release 1."""
    with closing(Database(*database)) as found:
        for statement in VERSION_1.format(**found.words).split(";"):
            found.run(statement)
        for revision, classes in ((SOURCE.revision, 10), (NUMBERS.revision, 0)):
            found.run(
                "INSERT INTO series (subject, revision, variant, classes, names) VALUES (?, ?, 0, ?, '[]')",
                *(SUBJECT, revision, classes),
            )
        yield found


def labelled(old: Database, series: int, number: int, predicted: float, actual: float) -> None:
    old.run(
        "INSERT INTO label VALUES (?, ?, 0, ?, ?, 0, ?)", series, nonce(number), COHORT * 1000 + 5, predicted, actual
    )


def mirrored(old: Database, number: int, cohort: int = COHORT) -> None:
    one = pair(number)
    values = 1, cohort, one.nonce, 0, one.stable, one.canary_revision, one.canary
    old.run("INSERT INTO pair VALUES (?, ?, ?, ?, ?, ?, ?)", *values)


def test_pairs_of_the_earlier_release_are_counted_and_go_on_being_counted(old: Database, open_store: Any) -> None:
    for number, actual in ((1, 4), (7, 4), (9, 5)):
        labelled(old, 1, number, 3, actual)
        old.run(
            "INSERT INTO confusion VALUES (1, ?, 3, ?, 1) ON CONFLICT (series, cohort, predicted, actual) "
            "DO UPDATE SET count = confusion.count + 1",
            *(COHORT, actual),
        )
    for number in (1, 7, 13):
        mirrored(old, number)
    mirrored(old, 9, COHORT - 900)  # of another cohort than its label: no pair of it
    store: Store = open_store()
    assert pairs(store) == {(CANARY, 1, 1, 4): 2, (CANARY, 1, 1, None): 1, (CANARY, 0, 1, None): 1}
    assert confusion(store) == {(3, 4): 2, (3, 5): 1}
    store.write([label(1, 6, corrects=True), label(13, 6)], told(pair(9), pair(1)), NOW_S)
    want = {(CANARY, 1, 1, 4): 1, (CANARY, 1, 1, 6): 2, (CANARY, 0, 1, 5): 1, (CANARY, 0, 1, None): 1}
    assert pairs(store) == want
    assert confusion(store) == {(3, 4): 1, (3, 5): 1, (3, 6): 2}


def test_totals_of_the_earlier_release_are_summed_and_grow(old: Database, open_store: Any) -> None:
    for process, count in ((b"one", 5), (b"two", 2)):
        old.run("INSERT INTO prediction VALUES (1, ?, 3, ?, ?)", COHORT, process, count)
    store: Store = open_store()
    assert predictions(store.quality(SUBJECT, 0)[0]) == {(COHORT, 3): 7}
    store.write(
        [], [Told(SOURCE, b"one", (), {(0, COHORT, 3): 6}), Told(SOURCE, b"two", (), {(0, COHORT, 3): 1})], NOW_S
    )
    assert predictions(store.quality(SUBJECT, 0)[0]) == {(COHORT, 3): 8}


def test_errors_of_the_earlier_release_are_summed_anew_from_their_labels(old: Database, open_store: Any) -> None:
    for number, (predicted, actual) in enumerate(((1.0, 2.0), (1.0, 3.5), (1e200, 1.0))):
        labelled(old, 2, number, predicted, actual)
    old.run("INSERT INTO error VALUES (2, ?, 3, ?, ?)", COHORT, float("inf"), float("inf"))
    store: Store = open_store()
    assert store.quality(SUBJECT, 0)[1].errors == Errors(2, 1 + 2.5, 1 + 6.25)
    store.write([label(1, 1.0, 1.0, source=NUMBERS, corrects=True)], [], NOW_S)
    assert store.quality(SUBJECT, 0)[1].errors == Errors(2, 1.0, 1.0)


def test_whatever_the_earlier_release_has_stored_is_told_as_it_is(old: Database, open_store: Any) -> None:
    chance = random.Random(1)
    for number in range(60):
        at, class_ = COHORT + 900 * chance.randrange(3), chance.randrange(3)
        if chance.random() < 0.7:
            mirrored(old, number, at)
        if chance.random() < 0.7:
            predicted, actual = number % 3, chance.randrange(3)
            for series in (1, 2):
                values = series, nonce(number), at * 1000 + number, predicted, actual
                old.run("INSERT INTO label VALUES (?, ?, 0, ?, ?, 0, ?)", *values)
            old.run(
                "INSERT INTO confusion VALUES (1, ?, ?, ?, 1) ON CONFLICT (series, cohort, predicted, actual) "
                "DO UPDATE SET count = confusion.count + 1",
                *(at, predicted, actual),
            )
        total = at, class_, b"process" + bytes([number]), 1 + chance.randrange(9)
        old.run("INSERT INTO prediction VALUES (1, ?, ?, ?, ?)", *total)
    store: Store = open_store()
    for since_s in (0, COHORT + 900):
        assert_is_of_the_rows(asked(store, SUBJECT, since_s), store, SUBJECT, since_s)


def test_a_typing_error_that_only_the_earlier_release_took_hides_no_other_label(old: Database, open_store: Any) -> None:
    labelled(old, 2, 0, 1.0, 2.0)
    labelled(old, 2, 1, 1.0, 1e300)
    store: Store = open_store()
    assert store.quality(SUBJECT, 0)[1].errors == Errors(1, 1.0, 1.0)
    assert [found.errors for found in totals(store.ask, SUBJECT, 0)] == [None, Errors(1, 1.0, 1.0)]
    store.write([label(1, 3.0, 1.0, source=NUMBERS, corrects=True)], [], NOW_S)
    assert store.quality(SUBJECT, 0)[1].errors == Errors(2, 1.0 + 2.0, 1.0 + 4.0)


def test_ids_of_the_earlier_release_are_told_with_their_labels(old: Database, open_store: Any) -> None:
    model = Deployment()
    receipt = model.receipt(3)
    old.run("INSERT INTO own_id VALUES (?, ?, ?, ?)", SUBJECT, "order-1", receipt, NOW_S)
    old.run("INSERT INTO own_id VALUES (?, ?, ?, ?)", SUBJECT, "order-2", "no receipt", NOW_S)
    store: Store = open_store()
    store.write([label(nonce=nonce_or_none(receipt))], [], NOW_S)
    assert [row[-1] for page in store.labelled(SUBJECT, 0) for row in page] == ["order-1"]
    assert store.receipts(SUBJECT, ["order-1", "order-2"]) == {"order-1": receipt, "order-2": "no receipt"}


def test_it_is_done_once(old: Database, open_store: Any) -> None:
    mirrored(old, 1)
    stores = [open_store() for _ in range(3)]
    assert [pairs(store) for store in stores] == [{(CANARY, 1, 1, None): 1}] * 3
    assert old.run("SELECT version FROM schema_version") == [(2,)]


def test_all_of_it_is_done_or_nothing(old: Database, open_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mirrored(old, 1)
    monkeypatch.setattr(schema, "_FILL_PAIR_CELLS", "INSERT INTO nowhere VALUES (1)")
    with pytest.raises(Unavailable, match="nowhere"):
        open_store()
    assert old.run("SELECT version FROM schema_version") == [(1,)]
    assert len(old.run("SELECT * FROM pair")) == 1
    monkeypatch.undo()
    assert pairs(open_store()) == {(CANARY, 1, 1, None): 1}


def test_killed_half_way_it_has_done_nothing_and_is_done_by_the_next(
    old: Database, database: tuple[str, ...], open_store: Any
) -> None:
    mirrored(old, 1)
    labelled(old, 1, 1, 3, 4)
    old.run("INSERT INTO confusion VALUES (1, ?, 3, 4, 1)", COHORT)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from evenkeel_operator.feedback import schema\n"
        "from evenkeel_operator.feedback.postgres import PostgresStore\n"
        "from evenkeel_operator.feedback.sqlite import SqliteStore\n"
        "schema._fill_nonces = lambda *_: os.kill(os.getpid(), 9)\n"
        "flag, where = sys.argv[1:]\n"
        "SqliteStore(Path(where)) if flag == '--path' else PostgresStore(where)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, *database], check=False).returncode == -signal.SIGKILL
    assert old.run("SELECT version FROM schema_version") == [(1,)]
    assert old.run("SELECT COUNT(*) FROM confusion") == [(1,)]
    store: Store = open_store()
    assert (confusion(store), pairs(store)) == ({(3, 4): 1}, {(CANARY, 1, 1, 4): 1})


def test_replicas_that_start_together_do_it_once(old: Database, open_store: Any) -> None:
    for number in range(50):
        mirrored(old, number)
        labelled(old, 2, number, number, 0.0)
    with ThreadPoolExecutor(3) as pool:
        stores: list[Store] = [future.result() for future in [pool.submit(open_store) for _ in range(3)]]
    for store in stores:
        assert sum(pairs(store).values()) == 50
        errors = store.quality(SUBJECT, 0)[1].errors
        assert errors is not None
        assert (errors.count, errors.absolute) == (50, sum(range(50)))


def test_what_the_earlier_release_is_writing_meanwhile_is_counted(old: Database, open_store: Any) -> None:
    """It has stored the label and not yet counted it: this waits for that, and that not for this."""
    old.run("BEGIN")
    labelled(old, 1, 1, 3, 4)
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(open_store)
        with pytest.raises(TimeoutError):
            opened.result(timeout=2)
        old.run("INSERT INTO confusion VALUES (1, ?, 3, 4, 1)", COHORT)
        old.run("COMMIT")
        assert confusion(opened.result(timeout=30)) == {(3, 4): 1}


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param("own_id", "confusion", id="looks for old ids before it counts"),
        pytest.param("pair", "error", id="reads pairs before errors"),
        pytest.param("prediction", "label", id="reads totals before labels"),
    ],
)
def test_what_the_earlier_release_does_meanwhile_in_another_order_is_no_deadlock(
    first: str, then: str, old: Database, open_store: Any
) -> None:
    if old.words is SQLITE:
        pytest.skip("a file has one lock, so no order of locks")
    old.run("BEGIN")
    old.run(f"SELECT COUNT(*) FROM {first}")
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(open_store)
        with pytest.raises(TimeoutError):
            opened.result(timeout=2)
        assert old.run(f"SELECT COUNT(*) FROM {then}") == [(0,)]
        old.run("COMMIT")
        assert opened.result(timeout=30).ask("SELECT version FROM schema_version") == [(schema.VERSION,)]


def test_a_replica_that_starts_and_one_that_writes_do_not_wait_for_each_other(open_store: Any) -> None:
    """Whoever makes an index that is there waits for those who write to its table, and they for him at the next."""
    first: Store = open_store()
    if not isinstance(first, PostgresStore):
        pytest.skip("one process has the file, and opens it before it writes")
    first._begin()
    first._write([label()], [Told(SOURCE, b"process!", (), {(0, COHORT, 3): 1})], NOW_S)
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(open_store)
        try:
            opened.result(timeout=60)
        finally:
            first._commit()


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        pytest.param("INSERT INTO confusion VALUES (1, ?, 3, 3, 1)", (COHORT,), id="counts a label"),
        pytest.param("INSERT INTO error VALUES (2, ?, 1, 1, 1)", (COHORT,), id="counts an error"),
        pytest.param("INSERT INTO prediction VALUES (1, ?, 3, ?, 1)", (COHORT, b"one"), id="keeps a total"),
        pytest.param("INSERT INTO pair VALUES (1, ?, ?, 0, 3, 'x', 3)", (COHORT, b"n"), id="keeps a pair"),
        pytest.param("INSERT INTO own_id VALUES (?, 'order-1', 'r', 1)", (SUBJECT,), id="keeps an id"),
    ],
)
def test_a_replica_of_the_earlier_release_that_still_runs_stores_nothing_that_nobody_counts(
    sql: str, values: tuple[Any, ...], old: Database, open_store: Any
) -> None:
    old.run(sql, *values)
    old.run("DELETE FROM error")
    open_store()
    with pytest.raises((sqlite3.OperationalError, psycopg.errors.UndefinedTable)):
        old.run(sql, *values)


def test_a_later_release_is_refused(old: Database, open_store: Any) -> None:
    old.run("UPDATE schema_version SET version = ?", schema.VERSION + 1)
    with pytest.raises(Unavailable, match=f"form {schema.VERSION + 1} of a later release"):
        open_store()
    assert old.run("SELECT COUNT(*) FROM confusion") == [(0,)], "it is as it was"


def test_a_new_database_has_this_form(open_store: Any) -> None:
    store: Store = open_store()
    assert store.ask("SELECT version FROM schema_version") == [(schema.VERSION,)]
    assert json.dumps(store.quality(SUBJECT, 0)) == "[]"
