"""How are labels kept in one file? SQLite with a write-ahead log, each commit of which is synced to the disk.

synchronous=FULL: in WAL mode, NORMAL would answer before the log is on the disk and lose labels with the power
(sqlite.org, "PRAGMA synchronous"). One process has the file: on a volume of a network file system, WAL needs that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evenkeel_operator.feedback.counts import Both, Key, PairKey
from evenkeel_operator.feedback.records import Row
from evenkeel_operator.feedback.store import Refused, Store, Unavailable

_WORDS = {
    "integer": "INTEGER",
    "bigint": "INTEGER",
    "identity": "INTEGER PRIMARY KEY",
    "blob": "BLOB",
    "text": "TEXT",
    "real": "REAL",
    "clustered": "WITHOUT ROWID",
    "by_time": "(time_ms)",
}
_CACHE_KIB = 65536
_OF_VALUES = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
"""What SQLite says of values; everything else it says of the file."""


class SqliteStore(Store):
    """A file. Raises Unavailable where it cannot be written or read."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", f"cache_size = -{_CACHE_KIB}"):
                self._connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error as e:
            raise Unavailable(f"{path}: {e}") from e
        self._make(_WORDS)

    def _run(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as e:
            raise _told(e) from e

    def _run_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        try:
            self._connection.executemany(sql, rows)
        except sqlite3.Error as e:
            raise _told(e) from e

    def _insert_labels(self, rows: Sequence[Row]) -> set[Key]:
        return {row[:3] for row in self._inserted("label", rows)}

    def _insert_pairs(self, rows: Sequence[Row]) -> set[PairKey]:
        return {row[:4] for row in self._inserted("mirrored", rows)}

    def _inserted(self, table: str, rows: Sequence[Row]) -> Iterator[Row]:
        """Insert rows of seven columns; yield those that were not there."""
        sql = f"INSERT OR IGNORE INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?)"
        try:
            for row in rows:
                if self._connection.execute(sql, row).rowcount:
                    yield row
        except sqlite3.Error as e:
            raise _told(e) from e

    def _labels(self, keys: Sequence[Key]) -> dict[Key, tuple[float, int]]:
        sql = "SELECT actual, time_ms FROM label WHERE series = ? AND nonce = ? AND row_number = ?"
        return {key: row for key in keys for row in self._run(sql, key)}

    def _pairs(self, keys: Sequence[PairKey]) -> dict[PairKey, Both]:
        sql = (
            "SELECT canary_revision, stable, canary FROM mirrored "
            "WHERE series = ? AND cohort = ? AND nonce = ? AND row_number = ?"
        )
        return {key: row for key in keys for row in self._run(sql, key)}

    def _hold(self, series: int, *, alone: bool) -> None:
        """Nobody else writes to the file since the transaction has begun."""

    def _hold_all(self) -> None:
        """The same."""

    def _hold_tables(self, tables: Sequence[str]) -> None:
        """The same."""

    def _json(self, numbers: str) -> str:
        return f"json_group_array(json_array({numbers}))"

    def _begin(self, *, reads: bool = False) -> None:
        self._run("BEGIN" if reads else "BEGIN IMMEDIATE")

    def _commit(self) -> None:
        self._run("COMMIT")

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._run("ROLLBACK")

    def close(self) -> None:
        self._connection.close()


def _told(error: sqlite3.Error) -> Unavailable:
    kind = Refused if isinstance(error, _OF_VALUES) else Unavailable
    return kind(f"SQLite: {error}")
