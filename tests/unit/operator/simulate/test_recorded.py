"""Does a trace from Prometheus tell what was recorded from what was not, and never take the one for none?"""

from __future__ import annotations

import math

import pytest

from evenkeel_operator.simulate.load import BadTrace
from evenkeel_operator.simulate.recorded import trace
from evenkeel_operator.world.prometheus import MOST_POINTS, Range

DAY = 1_763_596_800
"""2025-11-20T00:00:00Z"""
TEN = Range(DAY, DAY + 9 * 30, 30)


def at(*values: float | None) -> dict[int, float]:
    return {DAY + 30 * i: value for i, value in enumerate(values) if value is not None}


def test_a_rate_is_of_every_second_and_a_count_of_the_step() -> None:
    values = at(*[2.0, 4.0] * 5)
    rate, count = trace("x", values, TEN, "rate"), trace("x", values, TEN, "count")
    assert (rate.interval_s, rate.counts.tolist()) == (30, [60.0, 120.0] * 5)
    assert (count.interval_s, count.counts.tolist()) == (30, [2.0, 4.0] * 5)
    assert "requests a second of the 30 s before each (--values rate)" in rate.notes[0]
    assert "requests in 30 s of the 30 s before each (--values count)" in count.notes[0]
    assert len(rate.notes) == 1


def test_what_is_missing_is_bridged_by_a_line_and_named() -> None:
    found = trace("x", at(1.0, None, None, 4.0, 1.0, None, 1.0, 1.0, 2.0, 1.0), TEN, "rate")
    assert found.counts.tolist() == [30, 60, 90, 120, 30, 30, 30, 30, 60, 30]
    (told,) = found.notes[1:]
    assert "3 of 10 values are missing, and bridged by a line between their neighbours" in told
    assert "2025-11-20T00:00:30Z to 00:01:00Z; 2025-11-20T00:02:30Z" in told


def test_what_is_missing_at_the_ends_is_cut_off_and_named() -> None:
    found = trace("x", at(None, None, 1.0, 0.0, 2.0, 1.0), TEN, "rate")
    assert found.counts.tolist() == [30, 0, 60, 30]
    assert found.notes[1:] == (
        "the trace begins at 2025-11-20T00:01:00Z: 2 values are missing there",
        "the trace ends at 2025-11-20T00:02:30Z: 4 values are missing there",
    )


def test_many_gaps_are_counted_and_the_first_named() -> None:
    many = Range(DAY, DAY + 59 * 30, 30)
    found = trace("x", at(*[1.0, 2.0, None] * 19, 1.0, 2.0, 1.0), many, "rate")
    assert "19 of 60 values are missing" in found.notes[1]
    assert "; and 14 more; " in found.notes[1]


def test_a_counter_is_told_from_its_rate() -> None:
    assert any("never fall" in note for note in trace("x", at(*range(1, 11)), TEN, "rate").notes)
    assert not any("never fall" in note for note in trace("x", at(*[3.0] * 10), TEN, "rate").notes)


def test_what_prometheus_said_is_told() -> None:
    found = trace("x", at(*[1.0] * 10), TEN, "rate", told=("metric might not be a counter",))
    assert found.notes[-1] == "metric might not be a counter"


@pytest.mark.parametrize(
    ("values", "over", "want"),
    [
        pytest.param({}, TEN, "no value from 2025-11-20T00:00:00Z to 2025-11-20T00:04:30Z", id="nothing"),
        pytest.param(at(1.0, *[None] * 8, 1.0), TEN, "8 of 10 values are missing, and more would be", id="two values"),
        pytest.param(at(1.0, -0.5), TEN, "negative at 2025-11-20T00:00:30Z", id="fewer than none"),
        pytest.param(at(math.inf), TEN, "more than 1,000,000,000 requests in the step until", id="without end"),
        pytest.param(at(1e8), TEN, "more than 1,000,000,000 requests in the step", id="too many in a step"),
    ],
)
def test_what_is_no_demand_is_refused(values: dict[int, float], over: Range, want: str) -> None:
    with pytest.raises(BadTrace, match=r"^x") as found:
        trace("x", values, over, "rate")
    assert want in str(found.value)


@pytest.mark.parametrize(
    ("points", "want"),
    [
        pytest.param(1, [1], id="one point"),
        pytest.param(MOST_POINTS, [MOST_POINTS], id="as many as one answer has"),
        pytest.param(MOST_POINTS + 1, [MOST_POINTS, 1], id="one more"),
        pytest.param(3 * MOST_POINTS, [MOST_POINTS] * 3, id="three answers"),
    ],
)
def test_a_range_is_asked_for_in_parts_on_one_grid(points: int, want: list[int]) -> None:
    whole = Range(DAY, DAY + 7 * points - 1, 7)
    parts = whole.parts()
    assert [part.points for part in parts] == want
    moments = [at for part in parts for at in range(part.start, part.end + 1, 7)]
    assert moments == list(range(DAY, DAY + 7 * points, 7)), "each once"
