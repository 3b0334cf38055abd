"""Does each pair stand in one cell, that of its label, whichever comes first, twice, late or at the same time?"""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evenkeel_operator.feedback.records import Label, Outcome, Pair, Row, Told
from evenkeel_operator.feedback.store import Store
from tests.system.feedback.test_store import COHORT, NOW_S, SOURCE, SUBJECT, label, nonce, pairs, predictions

CANARY, OTHER = "digits-89abcdef", "digits-00000000"

Open = Callable[[], Store]
Event = tuple[int, int | None, bool]
"""About which prediction; its truth, or None: its pair; whether it corrects."""

Post = tuple[list[Label], list[Told]]

EVENTS = st.tuples(st.integers(0, 4), st.none() | st.integers(0, 2), st.booleans())


def pair(number: int, **more: object) -> Pair:
    made = Pair(nonce(number), 0, COHORT, number % 3, CANARY if number % 2 else OTHER, 1)
    return replace(made, **more)  # type: ignore[arg-type]


def told(*told_pairs: Pair) -> list[Told]:
    return [Told(SOURCE, b"process!", (), {}, pairs=told_pairs)] if told_pairs else []


def at_once(first: Store, second: Store, one: Post, other: Post) -> None:
    """Write to two stores, the other while what the first has written is not committed, as far as it is let."""
    during = threading.Thread(target=lambda: second.write(*other, NOW_S))
    commit = first._commit

    def commit_later() -> None:
        during.start()
        during.join(0.3)
        commit()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(first, "_commit", commit_later)
        first.write(*one, NOW_S)
    during.join()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(transactions=st.lists(st.lists(EVENTS, min_size=1, max_size=6), max_size=6))
def test_the_cells_are_those_of_the_pairs(transactions: list[list[Event]], open_store: Open) -> None:
    """Any order of labels, corrections, pairs and what is sent again, one transaction or several."""
    store = open_store()
    source = replace(SOURCE, subject=uuid.uuid4().bytes)  # every example has a ModelDeployment of its own
    true: dict[int, int] = {}
    mirrored: set[int] = set()
    for events in transactions:
        posted = [(n, actual, corrects) for n, actual, corrects in events if actual is not None]
        labels = [label(n, actual, source=source, corrects=corrects) for n, actual, corrects in posted]
        # Each in a message of its own, as of several replicas.
        messages = [replace(one, source=source) for n, actual, _ in events if actual is None for one in told(pair(n))]
        answers = store.write(labels, messages, NOW_S)
        mirrored |= {n for n, actual, _ in events if actual is None}
        true |= {
            n: actual
            for (n, actual, _), answer in zip(posted, answers, strict=True)
            if answer.outcome == Outcome.ACCEPTED
        }
        want = Counter((pair(n).canary_revision, n % 3, 1, true.get(n)) for n in mirrored)
        assert pairs(store, source.subject) == dict(want)


@pytest.mark.parametrize("is_label_first", [pytest.param(True, id="label first"), pytest.param(False, id="pair first")])
def test_a_label_and_its_pair_that_are_written_at_once_find_each_other(is_label_first: bool, open_store: Open) -> None:
    """Neither transaction sees what the other has not committed yet, so one of them has to wait."""
    first, second = open_store(), open_store()
    first.write([label(7)], told(pair(7)), NOW_S)  # the series is known to both
    posts: list[Post] = [([label(0, 2)], []), ([], told(pair(0)))]
    at_once(first, second, *(posts if is_label_first else posts[::-1]))
    assert pairs(first) == {(CANARY, 1, 1, 3): 1, (OTHER, 0, 1, 2): 1}


def test_a_pair_of_another_cohort_than_its_label_has_none(open_store: Open) -> None:
    """What a replica tells is not verified; whichever comes first, it is counted the same."""
    store = open_store()
    store.write([label(1)], told(pair(2, cohort=COHORT - 900)), NOW_S)
    store.write([label(2), label(3)], told(pair(1, cohort=COHORT - 900), pair(3, cohort=COHORT - 900)), NOW_S)
    store.write([label(n, 4, corrects=True) for n in (1, 2, 3)], [], NOW_S)
    assert pairs(store) == {(CANARY, 1, 1, None): 1, (OTHER, 2, 1, None): 1, (CANARY, 0, 1, None): 1}


def test_a_total_that_is_told_twice_at_once_counts_once(open_store: Open) -> None:
    first, second = open_store(), open_store()
    first.write([label()], [], NOW_S)
    post: Post = ([], [Told(SOURCE, b"process!", (), {(0, COHORT, 3): 5})])
    at_once(first, second, post, post)
    (series,) = first.quality(SUBJECT, 0)
    assert predictions(series) == {(COHORT, 3): 5}


def test_many_who_post_and_tell_at_once_wait_for_nobody_in_a_circle(open_store: Open) -> None:
    stores = [open_store(), open_store()]
    sources = [replace(SOURCE, revision=f"digits-{n}") for n in range(3)]
    failed: list[BaseException] = []

    def work(store: Store, order: Sequence[int]) -> None:
        try:
            for n in order:
                labels = [label(n + k, 2, source=source) for source in sources[:: 1 if n % 2 else -1] for k in range(5)]
                messages = [
                    replace(
                        one,
                        source=source,
                        totals={(0, COHORT, 0): n},
                        process=b"of" + str(order[0]).encode(),
                    )
                    for source in sources[:: -1 if n % 3 else 1]
                    for one in told(*(pair(n + k) for k in range(4, -1, -1)))
                ]
                store.write(labels if n % 5 else [], messages, NOW_S)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    threads = [
        threading.Thread(target=work, args=(stores[0], range(1, 40))),
        threading.Thread(target=work, args=(stores[1], range(39, 0, -1))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    got: Counter[int | None] = Counter()
    for (*_, actual), count in pairs(stores[0]).items():
        got[actual] += count
    assert got == {2: 3 * 43}
    assert [sum(predictions(series).values()) for series in stores[0].quality(SUBJECT, 0)] == [39 + 39] * 3


def test_no_question_about_quality_joins_what_was_posted_with_what_was_told(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes as long as there are labels, and posts that need a class's name wait behind it."""
    store = open_store()
    store.write([label(0)], told(pair(0), pair(1)), NOW_S)
    asked: list[str] = []
    run = store._run

    def spied(sql: str, values: Sequence[object] = ()) -> list[Row]:
        asked.append(sql)
        return run(sql, values)

    monkeypatch.setattr(store, "_run", spied)
    assert len(pairs(store)) == 2
    words = {word.strip("(),") for sql in asked for word in sql.replace(".", " ").split()}
    assert words.isdisjoint({"label", "mirrored", "tally"})
    assert {"cell", "pair_cell", "predicted", "deviation", "cohort_version"} <= words
