"""Are the times of answered requests counted as one by one, each in its own histogram, whenever they are read?"""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evenkeel_runtime.serve.metrics import SECONDS, Histogram, Metrics
from evenkeel_runtime.serve.signals import Signals
from evenkeel_runtime.serve.tally import Tally
from evenkeel_runtime.serve.timings import MOST, Timings

ARRIVED, ADMITTED, BEGAN, ENDED, WRITTEN_FROM, WRITTEN = 100.0, 100.002, 100.02, 100.2, 100.201, 100.202
seconds = st.one_of(st.floats(0, 60), st.sampled_from(SECONDS))


@given(st.lists(seconds), st.lists(seconds))
def test_many_values_are_counted_as_one_by_one(before: list[float], values: list[float]) -> None:
    want, got = Histogram(SECONDS), Histogram(SECONDS)
    for value in before:
        want.observe(value)
        got.observe(value)
    for value in values:
        want.observe(value)
    got.observe_all(np.array(values))
    assert got.counts == want.counts
    assert abs(got.total - want.total) <= 1e-9 * want.total


def test_every_part_is_counted_where_it_belongs() -> None:
    metrics, signals = Metrics("m", "v1"), Signals()
    timings = Timings(metrics, signals)
    for code in (200, 0, 200):
        timings.moments += (code, ARRIVED, ADMITTED, BEGAN, ENDED, WRITTEN_FROM, WRITTEN, 0.0)
    timings.bin()
    timings.bin()  # nothing is counted twice
    want = {
        "preprocess": (metrics.preprocess, 3, ADMITTED - ARRIVED),
        "queue": (metrics.queue, 3, BEGAN - ADMITTED),
        "predict": (metrics.predict, 3, ENDED - ADMITTED),
        "postprocess": (metrics.postprocess, 3, WRITTEN - WRITTEN_FROM),
        "latency": (signals.latency, 3, WRITTEN - ARRIVED),
        "by HTTP": (metrics.durations[200], 2, WRITTEN - ARRIVED),
        "by gRPC": (metrics.durations[0], 1, WRITTEN - ARRIVED),
    }
    for name, (histogram, count, each) in want.items():
        assert (histogram.count, round(histogram.total, 9)) == (count, round(count * each, 9)), name
    assert metrics.requests == {200: 2, 0: 1}


def test_as_many_as_are_kept_are_told_to_be_enough() -> None:
    timings = Timings(Metrics("m", "v1"), Signals())
    for _ in range(MOST - 1):
        timings.moments += (200, ARRIVED, ADMITTED, BEGAN, ENDED, WRITTEN_FROM, WRITTEN, 0.0)
    assert not timings.is_full
    timings.moments += (200, ARRIVED, ADMITTED, BEGAN, ENDED, WRITTEN_FROM, WRITTEN, 0.0)
    assert timings.is_full


def test_of_what_could_have_been_the_canary_s_it_is_counted_what_was_late() -> None:
    metrics, took_s = Metrics("m", "v1"), WRITTEN - ARRIVED
    metrics.canary = Tally("digits-91cc", 0.1)
    timings = Timings(metrics, Signals())
    for within_s in (0.0, took_s / 2, took_s * 2, took_s * 3):
        timings.moments += (200, ARRIVED, ADMITTED, BEGAN, ENDED, WRITTEN_FROM, WRITTEN, within_s)
    timings.bin()
    assert metrics.canary.beside.told() == {"ended": 3, "late": 1, "failed": 0}
