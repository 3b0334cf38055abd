"""How are labels kept in PostgreSQL, by several replicas of the service at once?

Rows go in by arrays, one statement for a whole batch. READ COMMITTED is enough: an insert that meets another replica's
waits until that one has committed, and what is then read was committed. A connection that broke is opened anew by the
next transaction; of a commit whose answer was lost nobody knows whether it happened, so nobody is told that it did.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import psycopg

from evenkeel_operator.feedback.counts import Both, Key, PairKey
from evenkeel_operator.feedback.records import Row
from evenkeel_operator.feedback.store import Refused, Store, Unavailable

_WORDS = {
    "integer": "integer",
    "bigint": "bigint",
    "identity": "integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    "blob": "bytea",
    "text": "text",
    "real": "double precision",
    "clustered": "",
    "by_time": "USING brin (time_ms)",
}
_MAKE_LOCK = 0x45564B4C
"""Replicas that start together make the tables one after another."""
_HOLD_S = 300.0
_HOLD_AGAIN_S = 0.05
"""For how long tables are tried to be had alone that others use, and how soon again."""
_SERIES_LOCK = 0x45564B53
"""With a series' id: who tells of it, or posts labels of it."""

_INSERT_LABELS = """
INSERT INTO label SELECT * FROM unnest(
    %s::integer[], %s::bytea[], %s::integer[], %s::bigint[], %s::float8[], %s::integer[], %s::float8[])
ON CONFLICT DO NOTHING RETURNING series, nonce, row_number
"""
_INSERT_PAIRS = """
INSERT INTO mirrored SELECT * FROM unnest(
    %s::integer[], %s::bigint[], %s::bytea[], %s::integer[], %s::integer[], %s::text[], %s::integer[])
ON CONFLICT DO NOTHING RETURNING series, cohort, nonce, row_number
"""
_LABELS = """
SELECT label.series, label.nonce, label.row_number, label.actual, label.time_ms FROM label
JOIN unnest(%s::integer[], %s::bytea[], %s::integer[]) AS wanted(series, nonce, row_number)
ON label.series = wanted.series AND label.nonce = wanted.nonce AND label.row_number = wanted.row_number
ORDER BY label.series, label.nonce, label.row_number FOR UPDATE OF label
"""
_PAIRS = """
SELECT mirrored.series, mirrored.cohort, mirrored.nonce, mirrored.row_number, canary_revision, stable, canary
FROM mirrored JOIN unnest(%s::integer[], %s::bigint[], %s::bytea[], %s::integer[])
AS wanted(series, cohort, nonce, row_number)
ON mirrored.series = wanted.series AND mirrored.cohort = wanted.cohort AND mirrored.nonce = wanted.nonce
    AND mirrored.row_number = wanted.row_number
"""


_OF_VALUES = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)
"""What PostgreSQL says of values, not of itself; the last where a key is too long for its index."""


class PostgresStore(Store):
    """A database, by its DSN. Raises Unavailable where it does not answer."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self._dsn = dsn
        self._open: psycopg.Connection[Row] | None = None
        self._is_inside = False
        self._make(_WORDS)

    @property
    def _connection(self) -> psycopg.Connection[Row]:
        """The connection; a broken one is replaced, but never inside a transaction, which would go on without its
        beginning."""
        is_broken = self._open is None or self._open.closed
        if is_broken and not self._is_inside:
            self._series.clear()
            self._named.clear()
            try:
                self._open = psycopg.connect(self._dsn, autocommit=True, connect_timeout=5)
                # Whatever the server's default: an answer means that the label is on the disk.
                self._open.execute("SET synchronous_commit TO on")
            except psycopg.Error as e:
                raise Unavailable(f"PostgreSQL: {e}") from e
        assert self._open is not None, "a transaction begins with a connection"
        return self._open

    def _run(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        try:
            try:
                return self._asked(sql, values)
            except psycopg.OperationalError:
                if self._is_inside or self._open is None or not self._open.closed:
                    raise
                # It broke while nobody used it, and nothing was begun: a question, or the beginning of a transaction.
                return self._asked(sql, values)
        except psycopg.Error as e:
            raise _told(e) from e

    def _asked(self, sql: str, values: Sequence[Any]) -> list[Row]:
        cursor = self._connection.execute(sql.replace("?", "%s"), values)
        return cursor.fetchall() if cursor.description is not None else []

    def _run_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        try:
            with self._connection.cursor() as cursor:
                cursor.executemany(sql.replace("?", "%s"), rows)
        except psycopg.Error as e:
            raise _told(e) from e

    def _insert_labels(self, rows: Sequence[Row]) -> set[Key]:
        found = self._run(_INSERT_LABELS, _columns(rows))
        return {(series, bytes(nonce), row) for series, nonce, row in found}

    def _insert_pairs(self, rows: Sequence[Row]) -> set[PairKey]:
        found = self._run(_INSERT_PAIRS, _columns(rows))
        return {(series, cohort, bytes(nonce), row) for series, cohort, nonce, row in found}

    def _labels(self, keys: Sequence[Key]) -> dict[Key, tuple[float, int]]:
        found = self._run(_LABELS, _columns(keys))
        return {(series, bytes(nonce), row): (actual, time_ms) for series, nonce, row, actual, time_ms in found}

    def _pairs(self, keys: Sequence[PairKey]) -> dict[PairKey, Both]:
        found = self._run(_PAIRS, _columns(keys))
        return {(series, cohort, bytes(nonce), row): tuple(both) for series, cohort, nonce, row, *both in found}

    def _hold(self, series: int, *, alone: bool) -> None:
        lock = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
        self._run(f"SELECT {lock}({_SERIES_LOCK}, ?)", (series,))

    def _hold_all(self) -> None:
        self._run(f"SELECT pg_advisory_xact_lock({_MAKE_LOCK})")

    def _hold_tables(self, tables: Sequence[str]) -> None:
        # A replica of another release reads and writes them in an order of its own. Taken one by one they would be a
        # deadlock some day, which PostgreSQL ends by refusing either. So whoever has one waits for none: it waits for
        # the first, with nothing in hand, and where another is taken it lets go of all and tries again.
        first, *others = tables
        until = time.monotonic() + _HOLD_S
        while True:
            self._run("SAVEPOINT held")
            self._run(f"LOCK TABLE {first} IN ACCESS EXCLUSIVE MODE")
            try:
                self._connection.execute(f"LOCK TABLE {', '.join(others)} IN ACCESS EXCLUSIVE MODE NOWAIT")
                return
            except psycopg.errors.LockNotAvailable as e:
                if time.monotonic() >= until:
                    raise Unavailable(f"PostgreSQL: for {_HOLD_S:g} s others have had its tables: {e}") from e
            except psycopg.Error as e:
                raise _told(e) from e
            self._run("ROLLBACK TO SAVEPOINT held")
            time.sleep(_HOLD_AGAIN_S)

    def _json(self, numbers: str) -> str:
        # In a third of the time that json_agg takes.
        return f"translate(CAST(array_agg(ARRAY[{numbers}]) AS text), '{{}}', '[]')"

    def _begin(self, *, reads: bool = False) -> None:
        self._run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if reads else "BEGIN")
        self._is_inside = True

    def _commit(self) -> None:
        self._run("COMMIT")
        self._is_inside = False

    def _roll_back(self) -> None:
        self._is_inside = False
        if self._open is not None and not self._open.closed:
            try:
                self._open.execute("ROLLBACK")
            except psycopg.Error:
                self._open.close()

    def close(self) -> None:
        if self._open is not None:
            self._open.close()


def _told(error: psycopg.Error) -> Unavailable:
    kind = Refused if isinstance(error, _OF_VALUES) else Unavailable
    return kind(f"PostgreSQL: {error}")


def _columns(rows: Sequence[Row]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
