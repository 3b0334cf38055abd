"""Are rates remembered as they were, and is what nobody measured never taken for zero?"""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel_operator.decide.window import RECENT_S, SLOT_S, Rates

DAY_S = 86400.0


def rates(*rows: tuple[float | None, float]) -> Rates:
    """Return what was seen of (rate, seconds), one after the other; a rate of None was not measured."""
    found = Rates()
    for rate, seconds in rows:
        if rate is None:
            found.pass_over(seconds)
        else:
            found.observe(rate, seconds, seconds)
    return found


@pytest.mark.parametrize(
    ("rows", "want"),
    [
        pytest.param([], 0.0, id="nothing was measured"),
        pytest.param([(10.0, 5.0)], 10.0, id="the first measurement stands for the time before it"),
        pytest.param([(10.0, 5.0), (40.0, 5.0)], 20.0, id="each second counts as much as any other"),
        pytest.param([(10.0, 5.0), (40.0, 10.0)], 30.0, id="whatever spans they were measured in"),
        pytest.param([(10.0, 5.0), (None, 10.0), (40.0, 5.0)], 40.0, id="what was not measured does not count"),
        pytest.param([(10.0, 5.0), (None, 5.0), (40.0, 5.0)], 25.0, id="nor does it weigh on what was"),
        pytest.param([(10.0, 5.0), (None, 600.0)], 0.0, id="all of it is long ago"),
        pytest.param([(90.0, 5.0), (0.0, 5.0), (0.0, 5.0), (0.0, 5.0)], 0.0, id="no traffic is a rate of zero"),
    ],
)
def test_mean_of_15_seconds(rows: list[tuple[float | None, float]], want: float) -> None:
    assert rates(*rows).mean(15.0) == pytest.approx(want)


@pytest.mark.parametrize(
    ("rows", "want"),
    [
        pytest.param([(10.0, 5.0)] * 12, 0.0, id="a constant rate does not rise"),
        pytest.param([(10.0, 30.0), (20.0, 30.0)], 10.0, id="twice as many"),
        pytest.param([(20.0, 30.0), (10.0, 30.0)], 0.0, id="fewer is no rise"),
        pytest.param([(10.0, 30.0), (11.0, 30.0)], 0.0, id="one more a second is noise at this rate"),
        pytest.param([(1000.0, 30.0), (1040.0, 30.0)], 40.0, id="but four per cent of many are none"),
        pytest.param([(0.0, 30.0), (10.0, 30.0)], 10.0, id="from nothing"),
        pytest.param([(10.0, 30.0), (None, 60.0), (10.0, 5.0)], 0.0, id="a minute without measurements is no zero"),
        pytest.param([(None, 60.0), (500.0, 5.0)], 0.0, id="what was first seen has not risen"),
        pytest.param([(10.0, 30.0), (20.0, 30.0), (None, 35.0)], 0.0, id="the present is not known"),
    ],
)
def test_rise(rows: list[tuple[float | None, float]], want: float) -> None:
    assert rates(*rows).rise(30.0) == pytest.approx(want)


def test_a_burst_is_found_at_its_time_of_day() -> None:
    found = rates((1.0, 600.0), (50.0, 30.0), *[(1.0, 60.0)] * (24 * 60))
    assert found.peak(DAY_S + 60.0, DAY_S - 60.0) == pytest.approx(50.0)
    assert found.peak(DAY_S - 120.0, 0.0) == pytest.approx(1.0)
    assert found.peak(3 * DAY_S, 2 * DAY_S) == 0.0, "before anything was measured"


def test_a_day_is_forgotten_after_a_day() -> None:
    found = rates((50.0, 30.0))
    found.pass_over(1000 * DAY_S)
    assert found.peak(DAY_S, 0.0) == 0.0


seconds_of = st.lists(st.tuples(st.none() | st.integers(0, 200), st.integers(1, 20)), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None)
@given(seconds_of, st.integers(1, int(RECENT_S)))
def test_means_and_peaks_are_those_of_the_single_seconds(rows: list[tuple[int | None, int]], over: int) -> None:
    """Beside a list of every second, None where nothing was measured."""
    found = Rates()
    seconds: list[int | None] = []
    slots: dict[int, float] = {}
    for rate, span in rows:
        if rate is None:
            found.pass_over(span)
            seconds += [None] * span
            continue
        if all(second is None for second in seconds):
            seconds = [rate] * (int(RECENT_S) - span)
        found.observe(float(rate), float(span), float(span))
        seconds += [rate] * span
        slot = int(found.clock // SLOT_S)
        slots[slot] = max(slots.get(slot, 0.0), _mean(seconds, 15))
    assert found.mean(float(over)) == pytest.approx(_mean(seconds, over))
    assert found.peak(found.clock, 0.0) == pytest.approx(max(slots.values(), default=0.0))


def _mean(seconds: list[int | None], over: int) -> float:
    known = [s for s in seconds[-over:] if s is not None]
    return sum(known) / len(known) if known else 0.0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.06, 1e6), min_size=1, max_size=20))
def test_a_day_outlives_the_process_to_four_per_cent(means: list[float]) -> None:
    found = rates(*[(mean, 300.0) for mean in means])
    kept = Rates.from_text(found.to_text())
    for ago, mean in enumerate(reversed(means)):
        begin = found.clock - 300.0 * ago
        around = kept.peak(300.0 * (ago + 1) + 300.0, max(0.0, 300.0 * ago - 300.0))
        assert around >= mean / 1.04, f"the rate at {begin} s"
    highest = kept.peak(DAY_S, 0.0)
    assert highest == pytest.approx(max(means), rel=0.04)
    assert Rates.from_text(kept.to_text()).to_text() == kept.to_text()


def test_what_is_kept_is_short() -> None:
    assert len(rates((5.0, 5.0)).to_text()) == 384


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("AAAA", id="too little"),
        pytest.param("A" * 388, id="too much"),
        pytest.param("=" * 384, id="no base64"),
        pytest.param("ä" * 384, id="no ASCII"),
    ],
)
def test_anything_else_is_no_day(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Rates.from_text(text)


def test_a_clock_that_stands_still_changes_nothing() -> None:
    found = rates((10.0, 5.0))
    found.observe(10.0, 5.0, 0.0)
    assert (found.mean(15.0), found.clock) == (10.0, 5.0)
    assert math.isfinite(found.rise(30.0))


@pytest.mark.parametrize(
    ("rows", "want"),
    [
        pytest.param([(10.0, 5.0), (10.0, 5.0)], math.inf, id="there never was a gap"),
        pytest.param([(10.0, 5.0), (None, 5.0)], 0.0, id="in a gap"),
        pytest.param([(10.0, 5.0), (None, 5.0), (None, 5.0), (10.0, 5.0)], 0.0, id="what ends a gap covers none of it"),
        pytest.param([(None, 5.0), (10.0, 5.0), (10.0, 5.0), (10.0, 5.0)], 10.0, id="after a gap"),
    ],
)
def test_time_without_a_gap(rows: list[tuple[float | None, float]], want: float) -> None:
    assert rates(*rows).seen_s == want


def test_whoever_comes_back_has_not_seen_the_time_before() -> None:
    assert Rates.from_text(rates((10.0, 5.0)).to_text()).seen_s == 0.0
