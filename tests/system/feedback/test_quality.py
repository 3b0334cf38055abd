"""Is an answer about quality that of what is stored, whatever was told before, whoever has written since?"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evenkeel_operator.decide.quality.deviations import ZERO
from evenkeel_operator.feedback import cohorts
from evenkeel_operator.feedback.cohorts import Texts
from evenkeel_operator.feedback.command import warm_up
from evenkeel_operator.feedback.quality import quality
from evenkeel_operator.feedback.records import COHORT_S, Label, Pair, Row, Source, Told, cohort_of
from evenkeel_operator.feedback.store import Store
from tests.system.feedback.test_store import COHORT, NOW_S, SUBJECT, label, nonce

CLASSES = 3
CANARY = 'digits-"[0]'

Open = Callable[[], Store]

NUMBER = st.integers(0, 4)
CLASS = st.integers(0, CLASSES - 1)
STABLE, OTHER, NUMBERS = (Source(SUBJECT, name, 0, classes) for name, classes in (("a", 3), ("b", 3), ("c", 0)))


def start_of(number: int) -> int:
    """Return the cohort of a prediction: neighbours have the same one."""
    return COHORT + number // 2 * COHORT_S


def labelled(source: Source, number: int, actual: int, corrects: bool) -> Label:
    at_ms = start_of(number) * 1000 + number
    return label(number, actual, number % CLASSES, source=source, time_ms=at_ms, corrects=corrects)


def paired(source: Source, number: int, canary: int) -> Told:
    pair = Pair(nonce(number), 0, start_of(number), number % CLASSES, CANARY, canary)
    return Told(source, b"process!", (), {}, pairs=(pair,))


def totalled(source: Source, number: int, count: int, process: int) -> Told:
    return Told(
        source, bytes([process] * 8), (), {(source.assignment, start_of(number), number % (source.classes or 1)): count}
    )


LABELS = st.lists(st.builds(labelled, st.sampled_from([STABLE, OTHER, NUMBERS]), NUMBER, CLASS, st.booleans()))
TOLD = st.lists(
    st.builds(paired, st.sampled_from([STABLE, OTHER]), NUMBER, CLASS)
    | st.builds(totalled, st.sampled_from([STABLE, OTHER, NUMBERS]), NUMBER, st.integers(1, 9), st.integers(0, 1))
)
SINCE = st.sampled_from([0, COHORT + COHORT_S])


def recounted(store: Store, subject: bytes, since_s: int) -> dict[str, dict[int, dict[str, Counter[Any]]]]:
    """Return by revision and cohort what follows from the rows that were posted and told."""
    found: dict[str, Any] = {}
    for series, revision, classes in store.ask(
        "SELECT id, revision, classes FROM series WHERE subject = ? ORDER BY id", (subject,)
    ):
        counts: defaultdict[int, defaultdict[str, Counter[Any]]] = defaultdict(lambda: defaultdict(Counter))
        true = {}
        for key, row, time_ms, predicted, actual in store.ask(
            "SELECT nonce, row_number, time_ms, predicted, actual FROM label WHERE series = ?", (series,)
        ):
            start = cohort_of(time_ms)
            true[bytes(key), row, start] = actual
            if classes:
                counts[start]["confusion"][predicted, actual] += 1
            else:
                counts[start]["errors"][predicted - actual] += 1
        for start, class_, _, count in store.ask(
            "SELECT cohort, class, process, count FROM tally WHERE series = ?", (series,)
        ):
            counts[start]["predictions"][class_,] += count
        for start, key, row, stable, revision_, canary in store.ask(
            "SELECT cohort, nonce, row_number, stable, canary_revision, canary FROM mirrored WHERE series = ?",
            (series,),
        ):
            actual = true.get((bytes(key), row, start))
            name, more = ("unlabelledPairs", ()) if actual is None else ("pairs", (actual,))
            counts[start][name][revision_, stable, canary, *more] += 1
        found[revision] = {start: dict(members) for start, members in counts.items() if start >= since_s}
    return found


def counted(answer: Any) -> dict[str, dict[int, dict[str, Counter[Any]]]]:
    """Return the same of an answer, whose totals have to be the sums of its cohorts."""
    found: dict[str, Any] = {}
    for revision in answer["revisions"]:
        members: dict[int, Any] = {}
        sums: Counter[str] = Counter()
        of_predicted: Counter[int] = Counter()
        for cohort in revision["cohorts"]:
            members[cohort["start"]] = {
                name: Counter({tuple(place): count for *place, count in rows})
                for name, rows in cohort.items()
                if name not in ("start", "errors", "deviations")
            } | {name: (value, cohort["deviations"]) for name, value in cohort.items() if name == "errors"}
            sums["predictions"] += sum(count for _, count in cohort.get("predictions", ()))
            for predicted, actual, count in cohort.get("confusion", ()):
                sums["labels"] += count
                sums["right"] += count if predicted == actual else 0
                of_predicted[predicted] += count
            sums["labels"] += cohort.get("errors", {"count": 0})["count"]
        assert (revision["predictions"], revision["labels"]) == (sums["predictions"], sums["labels"])
        if revision["task"] == "Classification":
            assert revision["labelsOfPredicted"] == [[p, n] for p, n in sorted(of_predicted.items()) if n]
            share = sums["labels"] / sums["predictions"] if sums["predictions"] else None
            assert revision.get("coverage", {}).get("share") == share
            assert revision.get("accuracy") == (sums["right"] / sums["labels"] if sums["labels"] else None)
        found[revision["revision"]] = members
    return found


def asked(store: Store, subject: bytes, since_s: int = 0) -> Any:
    return json.loads(quality("team-a", "digits", subject, since_s, store.quality(subject, since_s)))


def assert_is_of_the_rows(answer: Any, store: Store, subject: bytes, since_s: int) -> None:
    got, want = counted(answer), recounted(store, subject, since_s)
    assert got.keys() == want.keys()
    for revision, members in want.items():
        assert got[revision].keys() == members.keys()
        for start, of_cohort in members.items():
            assert got[revision][start].keys() == of_cohort.keys()
            for name, counts in of_cohort.items():
                if name == "errors":
                    errors, deviations = got[revision][start][name]
                    by_exponent: Counter[int] = Counter()
                    for e, n in counts.items():
                        by_exponent[math.frexp(abs(e))[1] if e else ZERO] += n
                    assert {exponent: n for exponent, n, _, _ in deviations} == by_exponent
                    assert errors["count"] == counts.total()
                    assert math.isclose(errors["absolute"], sum(abs(e) * n for e, n in counts.items()))
                    assert math.isclose(errors["squared"], sum(e * e * n for e, n in counts.items()))
                else:
                    assert got[revision][start][name] == counts


@pytest.fixture
def stores(open_store: Open) -> tuple[Store, Store]:
    return open_store(), open_store()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(transactions=st.lists(st.tuples(st.integers(0, 1), LABELS, TOLD, SINCE), max_size=6))
def test_an_answer_is_that_of_the_rows(
    transactions: list[tuple[int, list[Label], list[Told], int]], stores: tuple[Store, Store]
) -> None:
    """Two replicas write by turns, and one of them is asked after each, which remembers what it has told."""
    subject = uuid.uuid4().bytes  # every example has a ModelDeployment of its own

    def own(source: Source) -> Source:
        return replace(source, subject=subject)

    for writer, labels, told, since_s in transactions:
        stores[writer].write(
            [replace(one, source=own(one.source)) for one in labels],
            [replace(one, source=own(one.source)) for one in told],
            NOW_S,
        )
        assert_is_of_the_rows(asked(stores[0], subject, since_s), stores[0], subject, since_s)


def spied(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Sequence[Any]]]:
    """Return where the statements will be that the store runs."""
    run, seen = store._run, list[tuple[str, Sequence[Any]]]()

    def spy(sql: str, values: Sequence[Any] = ()) -> list[Row]:
        seen.append((sql, values))
        return run(sql, values)

    monkeypatch.setattr(store, "_run", spy)
    return seen


def read_of_cells(seen: list[tuple[str, Sequence[Any]]]) -> list[int]:
    return [cohort for sql, values in seen if " FROM cell " in sql for cohort in values[1:]]


def test_a_cohort_is_read_again_only_when_it_has_changed(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    store, writer = open_store(), open_store()
    writer.write([labelled(STABLE, n, 0, False) for n in range(6)], [], NOW_S)
    seen = spied(store, monkeypatch)
    first = asked(store, SUBJECT)
    assert read_of_cells(seen) == [start_of(0), start_of(2), start_of(4)]
    for labels, told, want in (
        ([], [], []),
        ([labelled(STABLE, 1, 0, False)], [], []),  # again
        ([labelled(STABLE, 3, 2, True)], [], [start_of(2)]),
        ([], [paired(STABLE, 5, 1)], [start_of(4)]),
        ([], [totalled(STABLE, 0, 3, 0)], [start_of(0)]),
    ):
        writer.write(labels, told, NOW_S)
        seen.clear()
        again = asked(store, SUBJECT)
        assert read_of_cells(seen) == want
        assert (again != first) == bool(want)
        first = again


def test_the_first_who_asks_a_service_that_has_just_started_waits_for_no_cohort(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, now_s = open_store(), int(time.time())
    sources = [replace(STABLE, subject=bytes([n] * 16)) for n in range(3)]
    store.write([label(source=source, time_ms=now_s * 1000) for source in sources], [], now_s)
    warm_up(store, for_s=0.0)
    seen = spied(store, monkeypatch)
    warm_up(store, for_s=60.0)
    assert len(read_of_cells(seen)) == 3, "there was no time for any before"
    seen.clear()
    for source in sources:
        asked(store, source.subject)
    assert read_of_cells(seen) == []


def test_a_cohort_that_was_deleted_and_is_told_again_is_no_longer_what_it_was(open_store: Open) -> None:
    store, writer = open_store(), open_store()
    for count in (3, 5):
        writer.write([], [totalled(STABLE, 0, count, 0)], NOW_S)
        (revision,) = asked(store, SUBJECT)["revisions"]
        assert revision["cohorts"] == [{"start": COHORT, "predictions": [[0, count]]}]
        while writer.expire(COHORT + COHORT_S, 0):
            pass


def test_an_answer_is_of_one_moment(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is committed between two of its questions, for one would be told and the other not."""
    store, writer = open_store(), open_store()
    writer.write([labelled(STABLE, 0, 0, False)], [paired(STABLE, 0, 1)], NOW_S)
    run, numbers = store._run, iter(range(1, 100))

    def run_late(sql: str, values: Sequence[Any] = ()) -> list[Row]:
        rows = run(sql, values)
        if sql.lstrip().startswith("SELECT"):
            n = next(numbers)
            writer.write([label(n, 1, 0, source=STABLE)], [Told(STABLE, bytes(8), (), {(0, COHORT, 0): n})], NOW_S)
        return rows

    monkeypatch.setattr(store, "_run", run_late)
    (revision,) = asked(store, SUBJECT)["revisions"]
    assert (revision["labels"], revision["predictions"]) == (1, 0)
    assert counted({"revisions": [revision]})["a"] == {
        COHORT: {"confusion": Counter({(0, 0): 1}), "pairs": Counter({(CANARY, 0, 1, 0): 1})}
    }
    monkeypatch.undo()
    assert_is_of_the_rows(asked(store, SUBJECT), store, SUBJECT, 0)


def test_many_cohorts_are_asked_for_in_parts(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohorts, "_AT_ONCE", 2)
    store = open_store()
    store.write([labelled(STABLE, 2 * n, n % 3, False) for n in range(5)], [], NOW_S)
    assert_is_of_the_rows(asked(store, SUBJECT), store, SUBJECT, 0)


def test_texts_that_nobody_has_asked_for_longest_make_room() -> None:
    kept = Texts(most=10)
    kept.keep(1, 0, 7, "aaaa")
    kept.keep(1, 1, 7, "bbbb")
    assert kept.find(1, 0, 7) == "aaaa"
    kept.keep(2, 0, 7, "cc")
    assert kept.find(1, 1, 7) == "bbbb"
    kept.keep(2, 0, 8, "ccc")
    assert [kept.find(1, 0, 7), kept.find(1, 1, 7), kept.find(2, 0, 7), kept.find(2, 0, 8)] == [
        None,
        "bbbb",
        None,
        "ccc",
    ]
    kept.keep(3, 0, 1, "more than there is room for")
    assert kept.find(3, 0, 1) is None
    kept.keep(1, 1, 8, "1234567890")
    assert kept.find(1, 1, 8) == "1234567890"
