"""Does what is too old go, a part at a time and without a look at all the rest, so that no post waits for it?"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from evenkeel_operator.feedback import retention
from evenkeel_operator.feedback.postgres import PostgresStore
from evenkeel_operator.feedback.records import Row, Told
from evenkeel_operator.feedback.store import Store
from tests.system.feedback.test_pairs import pair
from tests.system.feedback.test_store import COHORT, NUMBERS, SOURCE, SUBJECT, label, told

OLD = COHORT - 9000
TABLES = ("label", "mirrored", "tally", "own_name", "cell", "deviation", "pair_cell", "predicted", "cohort_version")

Open = Callable[[], Store]


def filled(store: Store, count: int, cohort: int) -> None:
    """Store so many rows of a cohort in every table, and ids told then."""
    first = 1000 if cohort == OLD else 0  # no prediction is in two cohorts
    labels = [
        made
        for n in range(count)
        for made in (
            label(first + n, float(n % 10), float(n // 10 % 10), time_ms=cohort * 1000),
            label(first + n, 2.0**n, 0.0, source=NUMBERS, time_ms=cohort * 1000),
        )
    ]
    pairs = tuple(pair(first + n, cohort=cohort, canary_revision=str(n)) for n in range(count))
    ids = tuple((f"{cohort}-{n}", "r") for n in range(count))
    totals = {(0, cohort, n): 1 for n in range(count)}
    store.write(labels, [Told(SOURCE, b"process!", (), totals, ids, pairs)], cohort)


def rows(store: Store) -> dict[str, int]:
    return {table: store.ask(f"SELECT COUNT(*) FROM {table}")[0][0] for table in TABLES}


def test_a_post_waits_for_a_part_of_one_table_at_most(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 7)
    store = open_store()
    filled(store, 20, OLD)
    filled(store, 3, COHORT)
    kept = {
        "label": 6,
        "mirrored": 3,
        "tally": 3,
        "own_name": 3,
        "cell": 3,
        "deviation": 3,
        "pair_cell": 3,
        "predicted": 3,
        "cohort_version": 2,
    }
    before = rows(store)
    assert all(before[table] >= kept[table] + (2 if table == "cohort_version" else 20) for table in TABLES)
    while store.expire(COHORT, COHORT):
        after = rows(store)
        gone = {table: before[table] - after[table] for table in TABLES if before[table] != after[table]}
        assert len(gone) == 1
        assert max(gone.values()) <= 7
        before = after
        is_whole = gone.keys() <= {"own_name"}
        assert len(store.quality(SUBJECT, 0)[0].cohorts) == 1 + is_whole, "none is told in part"
    assert rows(store) == kept
    assert told(store.quality(SUBJECT, 0)[0], "confusion") == {COHORT: [[0, 0, 1], [0, 1, 1], [0, 2, 1]]}


def test_ids_go_by_a_moment_of_their_own(open_store: Open) -> None:
    store = open_store()
    filled(store, 2, OLD)
    assert store.expire(OLD, OLD + 1)
    assert not store.expire(OLD, OLD + 1)
    assert rows(store)["own_name"] == 0
    assert rows(store)["label"] == 4


@pytest.mark.parametrize("table", TABLES)
def test_no_table_is_looked_through_for_what_is_too_old(table: str, open_store: Open) -> None:
    store = open_store()
    filled(store, 3, COHORT)
    asked: list[str] = []

    def ask(sql: str, values: Sequence[Any]) -> list[Row]:
        asked.append(sql.replace("?", str(values[0])))
        return store.ask(sql, values)

    assert retention.too_old(ask, OLD, OLD) is None
    (sql,) = [sql for sql in asked if f" FROM {table} " in sql]
    if isinstance(store, PostgresStore):
        store.ask("SET enable_seqscan TO off")  # of a few rows, it would read all in any case
        plan = "\n".join(line for (line,) in store.ask(f"EXPLAIN {sql}"))
        assert re.search(rf"\b{table}_(cohort|time)\b", plan), plan
    else:
        plan = "\n".join(row[-1] for row in store.ask(f"EXPLAIN QUERY PLAN {sql}"))
        assert "SEARCH" in plan
        assert "SCAN" not in plan
