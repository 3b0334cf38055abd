"""Is a label counted once, in both databases, whatever comes first, twice, late or at the same time?"""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evenkeel_operator.decide.quality.deviations import ZERO
from evenkeel_operator.feedback.records import Answer, Errors, Label, Outcome, Pair, Series, Source, Told
from evenkeel_operator.feedback.store import Store

SUBJECT = bytes(range(16))
SOURCE = Source(SUBJECT, "digits-0123abcd", 0, 10)
NUMBERS = Source(SUBJECT, "prices-0123abcd", 0, 0)
COHORT = 1_764_000_000 // 900 * 900
NOW_S = COHORT + 100

Open = Callable[[], Store]


def nonce(number: int) -> bytes:
    return b"process!" + number.to_bytes(4)


def label(number: int = 0, actual: float = 3, predicted: float = 3, **more: object) -> Label:
    made = Label(SOURCE, nonce(number), 0, COHORT * 1000 + 5, predicted, 40000, actual)
    return replace(made, **more)  # type: ignore[arg-type]


def outcomes(answers: list[Answer]) -> list[str]:
    return [answer.reason or answer.outcome.value for answer in answers]


def told(series: Series, name: str) -> dict[int, Any]:
    """Return what is told by this name of each cohort, by its start, where something is."""
    found = [json.loads(text) for text in series.cohorts.values()]
    assert [cohort["start"] for cohort in found] == list(series.cohorts)
    return {cohort["start"]: cohort[name] for cohort in found if name in cohort}


def predictions(series: Series) -> dict[tuple[int, int], int]:
    """Return how many predictions there are by cohort and class."""
    return {(start, class_): n for start, rows in told(series, "predictions").items() for class_, n in rows}


def confusion(store: Store, subject: bytes = SUBJECT) -> dict[tuple[int, int], int]:
    """Return the counts by (predicted, actual), all sources and cohorts together."""
    found: Counter[tuple[int, int]] = Counter()
    for series in store.quality(subject, 0):
        of_source: Counter[tuple[int, int]] = Counter()
        for rows in told(series, "confusion").values():
            of_source += Counter({(predicted, actual): count for predicted, actual, count in rows})
        assert {p: (n, hits) for p, (_, n, hits) in series.classes.items() if n} == {
            p: (sum(n for (q, _), n in of_source.items() if q == p), of_source[p, p]) for p, _ in of_source
        }
        found += of_source
    return dict(found)


def pairs(store: Store, subject: bytes = SUBJECT) -> dict[tuple[str, int, int, int | None], int]:
    """Return the counts of pairs by (canary's revision, stable's, canary's, actual class or None), of all cohorts."""
    found: Counter[tuple[str, int, int, int | None]] = Counter()
    for series in store.quality(subject, 0):
        for rows in told(series, "pairs").values():
            found.update({(*both, actual): count for *both, actual, count in rows})
        for rows in told(series, "unlabelledPairs").values():
            found.update({(*both, None): count for *both, count in rows})
    return dict(found)


@pytest.mark.parametrize(
    ("batches", "want", "counts"),
    [
        pytest.param([[label()]], [["accepted"]], {(3, 3): 1}, id="a label"),
        pytest.param([[label()], [label()]], [["accepted"], ["duplicate"]], {(3, 3): 1}, id="the same again"),
        pytest.param([[label(), label()]], [["accepted", "duplicate"]], {(3, 3): 1}, id="twice in one post"),
        pytest.param(
            [[label(), label(actual=4)]],
            [["accepted", "AlreadyLabelled"]],
            {(3, 3): 1},
            id="two truths in one post: the first",
        ),
        pytest.param(
            [[label()], [label(actual=4)]], [["accepted"], ["AlreadyLabelled"]], {(3, 3): 1}, id="another truth"
        ),
        pytest.param(
            [[label()], [label(actual=4, corrects=True)]],
            [["accepted"], ["Corrected"]],
            {(3, 4): 1},
            id="another truth that says that it corrects",
        ),
        pytest.param(
            [[label()], [label(actual=4, corrects=True)], [label()]],
            [["accepted"], ["Corrected"], ["AlreadyLabelled"]],
            {(3, 4): 1},
            id="the first one again, after it was corrected",
        ),
        pytest.param(
            [[label(actual=4, corrects=True)], [label(actual=4, corrects=True)]],
            [["accepted"], ["duplicate"]],
            {(3, 4): 1},
            id="a correction of nothing, twice",
        ),
        pytest.param(
            [[label(), label(actual=4, corrects=True), label(actual=5, corrects=True)]],
            [["accepted", "Corrected", "Corrected"]],
            {(3, 5): 1},
            id="corrected twice in one post",
        ),
        pytest.param(
            [[label(), label(row=1), label(1)]],
            [["accepted", "accepted", "accepted"]],
            {(3, 3): 3},
            id="rows and requests of their own",
        ),
        pytest.param(
            [[label(), label(source=replace(SOURCE, revision="digits-89abcdef"))]],
            [["accepted", "accepted"]],
            {(3, 3): 2},
            id="revisions of their own",
        ),
    ],
)
def test_a_label_counts_once(
    batches: list[list[Label]], want: list[list[str]], counts: dict[tuple[int, int], int], open_store: Open
) -> None:
    store = open_store()
    assert [outcomes(store.write(batch, [], NOW_S)) for batch in batches] == want
    assert confusion(store) == counts


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.booleans()), min_size=1, max_size=8), max_size=6
    )
)
def test_the_cells_are_those_of_the_labels(batches: list[list[tuple[int, int, bool]]], open_store: Open) -> None:
    """Whatever comes in which order: each prediction stands in one cell, that of its last accepted label."""
    store = open_store()
    source = replace(SOURCE, subject=uuid.uuid4().bytes)  # every example has a ModelDeployment of its own
    want: dict[int, int] = {}
    for batch in batches:
        labels = [label(n, actual, source=source, corrects=corrects) for n, actual, corrects in batch]
        answers = store.write(labels, [], NOW_S)
        for (number, actual, corrects), answer in zip(batch, answers, strict=True):
            is_new = number not in want
            is_change = not is_new and want[number] != actual and corrects
            assert (answer.outcome == Outcome.ACCEPTED) == (is_new or is_change)
            if is_new or is_change:
                want[number] = actual
    assert confusion(store, source.subject) == dict(Counter((3, actual) for actual in want.values()))


def test_numbers_have_errors_instead_of_cells(open_store: Open) -> None:
    store = open_store()
    labels = [label(n, float(n), 2.0, source=NUMBERS) for n in range(4)]
    store.write(labels, [], NOW_S)
    store.write([label(3, 2.5, 2.0, source=NUMBERS, corrects=True)], [], NOW_S)
    (series,) = store.quality(SUBJECT, 0)
    want = Errors(4, 2 + 1 + 0 + 0.5, 4 + 1 + 0 + 0.25)
    assert series.errors == want
    deviations = [[ZERO, 1, 0.0, 0.0], [0, 1, 0.5, 0.25], [1, 1, 1.0, 1.0], [2, 1, 2.0, 4.0]]
    assert [json.loads(text) for text in series.cohorts.values()] == [
        {"start": COHORT, "errors": asdict(want), "deviations": deviations}
    ]


def test_totals_of_a_process_count_once(open_store: Open) -> None:
    store = open_store()
    one = Told(SOURCE, b"one", tuple("abcdefghij"), {(0, COHORT, 3): 5, (0, COHORT + 900, 1): 1})
    store.write([], [one, replace(one, totals={(0, COHORT, 3): 7})], NOW_S)
    store.write([], [one, replace(one, process=b"two", totals={(0, COHORT, 3): 2})], NOW_S)
    (series,) = store.quality(SUBJECT, 0)
    assert predictions(series) == {(COHORT, 3): 9, (COHORT + 900, 1): 1}
    assert series.classes == {3: (9, 0, 0), 1: (1, 0, 0)}
    assert series.names == tuple("abcdefghij")
    assert store.names(SUBJECT, SOURCE.revision) == series.names
    (late,) = store.quality(SUBJECT, COHORT + 900)
    assert predictions(late) == {(COHORT + 900, 1): 1}
    assert late.classes == {1: (1, 0, 0)}


def test_a_late_label_finds_both_sides_of_a_pair(open_store: Open) -> None:
    store = open_store()
    pair = Pair(nonce(0), 0, COHORT, 3, "digits-89abcdef", 4)
    store.write([], [Told(SOURCE, b"one", (), {}, pairs=(pair, pair))], NOW_S)
    assert pairs(store) == {("digits-89abcdef", 3, 4, None): 1}
    store.write([label(actual=4)], [Told(SOURCE, b"one", (), {}, pairs=(pair,))], NOW_S)
    assert pairs(store) == {("digits-89abcdef", 3, 4, 4): 1}


def test_a_users_own_id_stays_with_its_first_receipt(open_store: Open) -> None:
    store = open_store()
    store.write([], [Told(SOURCE, b"one", (), {}, ids=(("order-1", "r1"), ("order-1", "r2")))], NOW_S)
    assert store.receipts(SUBJECT, ["order-1", "order-2"]) == {"order-1": "r1"}
    assert store.receipts(bytes(16), ["order-1"]) == {}


def test_what_is_too_old_is_deleted(open_store: Open) -> None:
    store = open_store()
    old = [label(n, time_ms=(COHORT - 9000) * 1000) for n in range(20)]
    totals = Told(SOURCE, b"one", (), {(0, COHORT - 9000, 3): 20, (0, COHORT, 3): 1}, ids=(("a", "r"),))
    store.write([*old, label(100)], [totals], COHORT - 9000)
    while store.expire(COHORT, COHORT):
        pass
    (series,) = store.quality(SUBJECT, 0)
    assert told(series, "confusion") == {COHORT: [[3, 3, 1]]}
    assert predictions(series) == {(COHORT, 3): 1}
    assert store.receipts(SUBJECT, ["a"]) == {}
    assert [row[2] for page in store.labelled(SUBJECT, 0) for row in page] == [nonce(100)]


def test_labels_are_exported_page_by_page(open_store: Open) -> None:
    store = open_store()
    store.write([label(n, row=row) for n in range(5) for row in range(3)], [], NOW_S)
    got = [(bytes(row[2]), row[3]) for page in store.labelled(SUBJECT, 0, page=2) for row in page]
    assert got == [(nonce(n), row) for n in range(5) for row in range(3)]


def test_what_was_written_is_there_for_the_next_process(open_store: Open) -> None:
    first = open_store()
    first.remember([(SUBJECT, "team-a", "digits")])
    first.write([label()], [], NOW_S)
    first.close()
    second = open_store()
    assert outcomes(second.write([label()], [], NOW_S)) == ["duplicate"]
    assert second.models() == [(SUBJECT, "team-a", "digits")]


def test_two_writers_at_once_count_once(open_store: Open) -> None:
    """On PostgreSQL as two replicas; on SQLite one waits for the other, as an old process before a new one."""
    stores = [open_store(), open_store()]
    got: list[Answer] = []
    failed: list[BaseException] = []

    def write(store: Store, order: range) -> None:
        try:
            for start in order:
                batch = [label(n, n % 10) for n in range(start * 5, start * 5 + 20)]
                got.extend(store.write(batch[:: 1 if order.step > 0 else -1], [], NOW_S))
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    threads = [
        threading.Thread(target=write, args=(stores[0], range(20))),
        threading.Thread(target=write, args=(stores[1], range(19, -1, -1))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    want = 19 * 5 + 20
    assert sum(answer.outcome == Outcome.ACCEPTED for answer in got) == want
    assert sum(confusion(stores[0]).values()) == want
