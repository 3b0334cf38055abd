"""How are labels kept in one file? SQLite with a write-ahead log, each commit of which is synced to the disk.

synchronous=FULL: in WAL mode, NORMAL would answer before the log is on the disk and lose labels with the power
(sqlite.org, "PRAGMA synchronous"). One process has the file: on a volume of a network file system, WAL needs that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evenkeel_operator.feedback.store import TABLES, Key, Refused, Row, Store, Unavailable

_WORDS = {
    "integer": "INTEGER",
    "bigint": "INTEGER",
    "identity": "INTEGER PRIMARY KEY",
    "blob": "BLOB",
    "text": "TEXT",
    "real": "REAL",
    "clustered": "WITHOUT ROWID",
}
_CACHE_KIB = 65536
_OF_VALUES = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
"""What SQLite says of values; everything else it says of the file."""


class SqliteStore(Store):
    """A file. Raises Unavailable where it cannot be written or read."""

    _cells = "json_group_array(json_array(predicted, actual, count))"

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", f"cache_size = -{_CACHE_KIB}"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._make()
        except sqlite3.Error as e:
            raise Unavailable(f"{path}: {e}") from e

    def _make(self) -> None:
        self._begin()
        for statement in TABLES.format(**_WORDS).split(";"):
            self._connection.execute(statement)
        # The retention's: without it, each of its looks would read every label.
        self._connection.execute("CREATE INDEX IF NOT EXISTS label_time ON label (time_ms)")
        self._check_version()
        self._commit()

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

    def _insert(self, rows: Sequence[Row]) -> set[Key]:
        new = set()
        try:
            for row in rows:
                done = self._connection.execute("INSERT OR IGNORE INTO label VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                if done.rowcount:
                    new.add((row[0], row[1], row[2]))
        except sqlite3.Error as e:
            raise _told(e) from e
        return new

    def _actual(self, keys: Sequence[Key]) -> dict[Key, float]:
        found = {}
        for key in keys:
            ((actual,),) = self._run("SELECT actual FROM label WHERE series = ? AND nonce = ? AND row_number = ?", key)
            found[key] = actual
        return found

    def _begin(self) -> None:
        self._run("BEGIN IMMEDIATE")

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
