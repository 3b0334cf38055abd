"""Does the batching policy keep every row with its request, lose nobody, and starve nobody?"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel_runtime.engine import batching
from evenkeel_runtime.engine.batching import Batch, Policy, Queue, Work, batch_size_to_use, retry_after_s


def queue(max_rows: int = 8, max_queued_rows: int = 100) -> Queue:
    return Queue(Policy(max_rows, max_queued_rows))


def filled(*works: Work, max_rows: int = 8) -> Queue:
    found = queue(max_rows)
    for work in works:
        assert found.admit(work, now=0.0)
    return found


def rows_of(batch: Batch | None) -> list[int]:
    assert batch is not None
    return [work.rows for work in batch.works]


@pytest.mark.parametrize(
    ("rows", "max_rows", "want"),
    [
        pytest.param([1], 8, [[1]], id="a lone request waits for nobody"),
        pytest.param([1, 2, 3], 8, [[1, 2, 3]], id="what waits together runs together"),
        pytest.param([5, 4, 4], 8, [[5], [4, 4]], id="rows are counted, not requests"),
        pytest.param([5, 4, 3], 8, [[5], [4, 3]], id="nobody overtakes to fill a gap"),
        pytest.param([20, 1], 8, [[20], [1]], id="a request larger than a batch runs alone"),
        pytest.param([1, 20], 8, [[1], [20]], id="and in its turn"),
        pytest.param([1, 1], 1, [[1], [1]], id="a model for which batches do not pay"),
        pytest.param([1, 1], 0, [[1], [1]], id="a model whose requests cannot share a call"),
    ],
)
def test_batches_of_one_kind(rows: list[int], max_rows: int, want: list[list[int]]) -> None:
    found = filled(*(Work(count, "a") for count in rows), max_rows=max_rows)
    assert [rows_of(found.next_batch(1.0)) for _ in want] == want
    assert found.next_batch(1.0) is None
    assert found.rows == found.requests == 0


def test_kinds_never_share_and_the_oldest_goes_first() -> None:
    a1, b1, a2, b2 = Work(1, "a"), Work(1, "b"), Work(1, "a"), Work(1, "b")
    found = filled(a1, b1, a2, b2)
    assert [batch.works for batch in (found.next_batch(1.0), found.next_batch(1.0)) if batch] == [(a1, a2), (b1, b2)]


def test_rare_kind_is_not_starved() -> None:
    found = filled(Work(8, "common"), Work(1, "rare"), Work(8, "common"))
    kinds = []
    while batch := found.next_batch(1.0):
        kinds.append(batch.works[0].kind)
    assert kinds == ["common", "rare", "common"]


def test_full_queue_refuses_and_an_empty_one_takes_anything() -> None:
    found = queue(max_queued_rows=10)
    assert found.admit(Work(50, "a"), 0.0)
    assert not found.admit(Work(1, "a"), 0.0)
    found.next_batch(0.0)
    assert found.admit(Work(10, "a"), 0.0)
    assert not found.admit(Work(1, "a"), 0.0)


def test_late_and_cancelled_work_is_dropped_before_it_runs() -> None:
    late, left, good = Work(1, "a", deadline=5.0), Work(1, "a"), Work(1, "a", deadline=5.5)
    found = filled(late, left, good)
    found.cancel(left)
    batch = found.next_batch(5.0)
    assert batch is not None
    assert batch.works == (good,)
    assert batch.expired == (late,)
    assert found.rows == 0


def test_what_was_cancelled_neither_waits_nor_keeps_its_body() -> None:
    left = [Work(10, "a", payload="a body", size=1000) for _ in range(10)]
    found = filled(*left)
    for work in left:
        found.cancel(work)
        found.cancel(work)  # counted once
    assert (found.rows, found.bytes, found.requests) == (0, 0, 0)
    assert {work.payload for work in left} == {None}
    newcomer = Work(100, "a")
    assert found.admit(newcomer, 0.0)
    batch = found.next_batch(0.0)
    assert batch is not None
    assert batch.works == (newcomer,)
    assert (found.rows, found.requests) == (0, 0)


def test_what_runs_keeps_its_body_though_its_client_has_left() -> None:
    """The model reads it, maybe in another thread."""
    work = Work(1, "a", payload="a body", size=6)
    found = filled(work)
    found.next_batch(0.0)
    found.cancel(work)
    assert (work.cancelled, work.payload) == (True, "a body")
    assert (found.rows, found.bytes, found.requests) == (0, 0, 0)


def test_few_rows_may_be_too_many_bytes() -> None:
    found = Queue(Policy(max_rows=8, max_queued_rows=100, max_queued_bytes=1000))
    assert found.admit(Work(1, "a", size=5000), 0.0)  # an empty queue takes anything
    assert not found.admit(Work(1, "a", size=1), 0.0)
    found.next_batch(0.0)
    assert found.admit(Work(1, "a", size=600), 0.0)
    assert found.admit(Work(1, "a", size=400), 0.0)
    assert not found.admit(Work(1, "a", size=1), 0.0)


def test_only_late_work_makes_a_batch_without_works() -> None:
    found = filled(Work(1, "a", deadline=1.0), Work(1, "b", deadline=1.0))
    batch = found.next_batch(2.0)
    assert batch is not None
    assert batch.works == ()
    assert len(batch.expired) == 2


works = st.builds(
    Work,
    rows=st.integers(1, 12),
    kind=st.sampled_from("abc"),
    deadline=st.none() | st.floats(0, 10, allow_nan=False),
    size=st.integers(0, 100),
    cancelled=st.booleans(),
)


@given(st.lists(works | st.just(None), max_size=60), st.integers(0, 10))
def test_every_request_ends_exactly_once(steps: list[Work | None], max_rows: int) -> None:
    """None in the list stands for a dispatch, at a time that goes on."""
    found = queue(max_rows, max_queued_rows=40)
    admitted: list[Work] = []
    batches: list[Batch] = []
    now = 0.0
    for step in [*steps, *[None] * len(steps)]:
        now += 0.25
        if step is None:
            if batch := found.next_batch(now):
                batches.append(batch)
        elif found.admit(step, now):
            admitted.append(step)
            if step.cancelled:
                found.cancel(step)
    while batch := found.next_batch(now):
        batches.append(batch)

    run = [work for batch in batches for work in batch.works]
    expired = [work for batch in batches for work in batch.expired]
    assert found.rows == found.bytes == found.requests == 0
    assert sorted(map(id, run + expired + [work for work in admitted if work.cancelled])) == sorted(map(id, admitted))
    for batch in batches:
        assert len({work.kind for work in batch.works}) <= 1
        assert batch.rows == sum(work.rows for work in batch.works)
        assert batch.rows <= max_rows or len(batch.works) == 1
        owners = [index for _, start, stop in batch.slices() for index in range(start, stop)]
        assert owners == list(range(batch.rows))
    for kind in "abc":  # first come, first served, within a kind
        order = [work.admitted for work in run if work.kind == kind]
        assert order == sorted(order)


@pytest.mark.parametrize(
    ("speeds", "want"),
    [
        pytest.param({1: 100.0}, 1, id="one size"),
        pytest.param({1: 1499.0, 8: 1510.0, 32: 1607.0}, 1, id="noise is no gain"),
        pytest.param({1: 100.0, 2: 190.0, 4: 300.0, 8: 310.0}, 4, id="it stops where growth stops"),
        pytest.param({1: 100.0, 2: 95.0, 4: 180.0, 8: 170.0}, 4, id="a dip on the way is passed"),
    ],
)
def test_batch_size_to_use(speeds: dict[int, float], want: int) -> None:
    assert batch_size_to_use(speeds) == want


@pytest.mark.parametrize(
    ("rows", "speed", "want"), [(0, 10, 1), (100, 10, 10), (101, 10, 11), (10**6, 1, 60), (5, 0, 1)]
)
def test_retry_after(rows: int, speed: float, want: int) -> None:
    assert retry_after_s(rows, speed) == want


def test_policy_is_pure() -> None:
    """The operator's simulator imports it: standard library only, and no clock of its own."""
    tree = ast.parse(Path(batching.__file__).read_text())
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        )
    }  # fmt: skip
    assert imported <= set(sys.stdlib_module_names) - {"time", "asyncio", "threading", "random"}
