"""Does the model of a replica batch as the runtime's queue does, and does it find late requests as a sort would?"""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel_operator.decide.batches import Arrivals, Run, batches, is_met
from evenkeel_runtime.engine.batching import Policy, Queue, Work

REQUESTS = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 1.0, 7.0]), st.integers(1, 9)), min_size=1, max_size=60)
TARGETS = st.integers(0, 300).map(lambda tenths: 0.1 * tenths + 0.05)
"""Between the latencies that there are, which are tenths: what is exactly at the target is a matter of rounding."""
BATCH_TIMES = [0.0, *(0.7 + 0.3 * rows for rows in range(1, 20))]


def by_the_queue(requests: list[tuple[float, int]], max_rows: int, engines: int) -> list[Run]:
    """Return the batches that the runtime's own queue forms of (gap, rows)."""
    queue = Queue(Policy(max_rows=max_rows, max_queued_rows=math.inf))
    waiting = [
        (at, number, rows)
        for number, (at, rows) in enumerate(
            zip(accumulate(gap for gap, _ in requests), (rows for _, rows in requests), strict=True)
        )
    ]
    found: list[Run] = []
    free, served = [0.0] * engines, 0
    while served < len(requests):
        start = min(free) if queue.requests else max(min(free), waiting[0][0])
        while waiting and (waiting[0][0] < start or not queue.requests):
            at, number, rows = waiting.pop(0)
            queue.admit(Work(rows, None, number), at)
        batch = queue.next_batch(start)
        assert batch is not None
        end = start + BATCH_TIMES[batch.rows]
        free[free.index(min(free))] = end
        found.append((batch.works[0].payload, batch.works[-1].payload + 1, end))
        served += len(batch.works)
    return found


@settings(max_examples=300, deadline=None)
@given(REQUESTS, st.integers(1, 12), st.integers(1, 3))
def test_the_batches_are_those_of_the_runtime(requests: list[tuple[float, int]], max_rows: int, engines: int) -> None:
    arrivals = Arrivals.of([gap for gap, _ in requests], [rows for _, rows in requests])
    assert list(batches(arrivals, BATCH_TIMES, max_rows, engines)) == by_the_queue(requests, max_rows, engines)


@settings(max_examples=300, deadline=None)
@given(REQUESTS, st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]), TARGETS, st.integers(0, 20))
def test_a_quantile_is_met_where_the_sorted_latencies_say_so(
    requests: list[tuple[float, int]], quantile: float, target: float, left_out: int
) -> None:
    arrivals = Arrivals.of([gap for gap, _ in requests])
    left_out = min(left_out, len(requests) - 1)
    runs = list(batches(arrivals, BATCH_TIMES, 4))
    waits = [end - at for first, stop, end in runs for at in arrivals.at[first:stop]][left_out:]
    want = sum(wait <= target for wait in waits) >= quantile * len(waits)
    assert is_met(iter(runs), arrivals.at, target, quantile, left_out) == want


def test_a_load_that_cannot_be_met_is_told_before_its_end() -> None:
    """A search for the largest rate asks for ten of them."""
    arrivals = Arrivals.of([1.0] * 10_000)
    runs = batches(arrivals, [0.0, 2.0], 1)
    assert not is_met(runs, arrivals.at, 3.0, 0.95, 0)
    first, _, _ = next(runs)
    assert first < 1_000


def test_as_many_rows_as_requests() -> None:
    with pytest.raises(AssertionError, match="as many"):
        Arrivals.of([1.0, 1.0], [1])
