"""Does the queue keep client-go's promises?"""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel_operator.control.workqueue import BASE_DELAY_S, MOST_DELAY_S, WorkQueue, backoff_s

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 3)),
        st.tuples(st.just("get"), st.just(0)),
        st.tuples(st.just("done"), st.integers(0, 3)),
    ),
    max_size=60,
)


@given(STEPS)
def test_no_key_is_lost_queued_twice_or_worked_on_twice(steps: list[tuple[str, int]]) -> None:
    async def story() -> None:
        queue: WorkQueue[int] = WorkQueue()
        owed: set[int] = set()
        working: list[int] = []
        for what, number in steps:
            if what == "add":
                queue.add(number)
                owed.add(number)
            elif what == "get" and len(queue):
                key = await queue.get()
                assert key in owed
                assert key not in working, "worked on twice at once"
                owed.discard(key)
                working.append(key)
            elif what == "done" and working:
                queue.done(working.pop(number % len(working)))
        for key in working:
            queue.done(key)
        got = [await queue.get() for _ in range(len(queue))]
        assert sorted(got) == sorted(owed)

    asyncio.run(story())


async def test_a_key_added_while_in_work_is_queued_once_when_it_is_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert len(queue) == 1


async def test_of_several_delays_the_earliest_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 60)
    queue.add_after("a", 0.01)
    queue.add_after("a", 30)
    async with asyncio.timeout(5):
        assert await queue.get() == "a"
    queue.close()


async def test_a_turn_replaces_what_was_due_later() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0.02)
    queue.add("a")
    queue.done(await queue.get())
    await asyncio.sleep(0.05)
    assert len(queue) == 0


async def test_a_cancelled_worker_takes_no_key_with_it() -> None:
    queue: WorkQueue[str] = WorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")  # wakes the first
    first.cancel()
    async with asyncio.timeout(5):
        assert await second == "a"


async def test_workers_share_a_burst() -> None:
    queue: WorkQueue[int] = WorkQueue()
    seen: list[int] = []

    async def work() -> None:
        while True:
            key = await queue.get()
            await asyncio.sleep(0)
            seen.append(key)
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(4)]
    for _ in range(3):
        for key in range(100):
            queue.add(key)
    await asyncio.sleep(0.05)
    for worker in workers:
        worker.cancel()
    assert sorted(seen) == list(range(100))


@pytest.mark.parametrize(
    ("failures", "want"),
    [
        pytest.param(1, BASE_DELAY_S, id="the first failure is tried again at once"),
        pytest.param(2, 2 * BASE_DELAY_S, id="each further one doubles"),
        pytest.param(17, MOST_DELAY_S, id="up to five minutes"),
        pytest.param(100_000, MOST_DELAY_S, id="however often it fails"),
    ],
)
def test_backoff(failures: int, want: float) -> None:
    assert backoff_s(failures) == want


async def test_success_starts_the_backoff_anew() -> None:
    queue: WorkQueue[str] = WorkQueue()
    delays = [queue.add_rate_limited("a") for _ in range(3)]
    queue.forget("a")
    assert delays == [0.005, 0.01, 0.02]
    assert queue.add_rate_limited("a") == 0.005
    assert queue.add_rate_limited("a", least_s=7) == 7
    queue.close()
