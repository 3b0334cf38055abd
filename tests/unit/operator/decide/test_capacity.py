"""Is a replica's capacity what queueing theory and published times say, and does it move no faster than devices do?"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel_operator.decide import capacity as model
from evenkeel_operator.decide.capacity import Capacity, Roofline, approached, capacity, faded, fit, unit_gaps
from evenkeel_operator.decide.requests import SINGLE, RequestRows
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal

DEVICE = Roofline(0.0104, 0.0024, 0.000834, 64)

# Milliseconds of a batch of ResNet-50 v1.5 at 224², by rows: NVIDIA DeepLearningExamples, PyTorch, its README of the
# 21.03 container.
PUBLISHED = [
    pytest.param({16: 16.1, 32: 29.4, 128: 109.0}, 0.03, id="V100 FP32"),
    pytest.param({16: 15.8, 32: 15.8, 64: 23.2, 128: 43.6}, 0.05, id="V100 AMP"),
    pytest.param({8: 22.4, 16: 39.8, 64: 152.7}, 0.07, id="T4 FP32"),
    pytest.param({16: 15.8, 32: 29.5, 128: 114.0}, 0.03, id="T4 AMP"),
]


@pytest.mark.parametrize(("ms", "within"), PUBLISHED)
def test_a_roofline_fits_published_times(ms: dict[int, float], within: float) -> None:
    got = fit({rows: (100.0, 0.1 * each) for rows, each in ms.items()}, 128)
    assert isinstance(got, Roofline)
    for rows, each in ms.items():
        assert got.seconds(rows) * 1000.0 == pytest.approx(each, rel=within), f"a batch of {rows}"


@settings(max_examples=50, deadline=None)
@given(st.floats(0.0, 0.1), st.floats(1e-4, 0.05), st.floats(1e-5, 0.02), st.integers(1, 9), st.floats(0.5, 1e6))
def test_exact_times_are_fitted_exactly(floor: float, fixed: float, row: float, sizes: int, count: float) -> None:
    true = Roofline(max(floor, fixed + row), fixed, row, 2**sizes)
    times = {2**i: (count, count * true.seconds(2**i)) for i in range(sizes + 1)}
    got = fit(times, true.max_rows)
    assert isinstance(got, Roofline)
    is_last_alone_on_the_line = sizes >= 1 and true.seconds(2 ** (sizes - 1)) == true.floor_s
    for rows in times:
        assert got.seconds(rows) == pytest.approx(true.seconds(rows), rel=0.5 if is_last_alone_on_the_line else 1e-6)


@pytest.mark.parametrize(
    ("times", "want"),
    [
        pytest.param({}, NO_SIGNAL, id="nothing was measured"),
        pytest.param({1: (0.0, 0.0)}, NO_SIGNAL, id="no batch was counted"),
        pytest.param({1: (3.0, math.nan), 2: (1.0, math.inf), 0: (1.0, 1.0)}, NO_SIGNAL, id="no number among them"),
        pytest.param({4: (2.0, 0.2)}, (0.1, 0.1), id="one size alone speaks for all"),
        pytest.param({1: (1.0, 0.2), 8: (1.0, 0.1)}, (0.12, 0.12), id="times that fall with the size are noise"),
        pytest.param({1: (1.0, 0.01), 2: (1.0, 0.03)}, (0.01154, 0.0923), id="a line that starts below zero"),
    ],
)
def test_fit_of_poor_data(times: dict[int, tuple[float, float]], want: tuple[float, float] | NoSignal) -> None:
    got = fit(times, 8)
    if isinstance(want, NoSignal):
        assert got is NO_SIGNAL
    else:
        assert isinstance(got, Roofline)
        assert (got.seconds(1), got.seconds(8)) == pytest.approx(want, rel=0.002)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_single_requests_wait_as_pollaczek_and_khinchine_say(load: float) -> None:
    """M/D/1: the mean time in a replica is S (1 + ρ / (2 (1 - ρ)))."""
    one = Roofline(0.1, 0.0, 0.1, 1)
    got = statistics.fmean(model.latencies_s(one, load / 0.1, unit_gaps(20_000, 1.0)))
    assert got == pytest.approx(0.1 * (1.0 + load / (2.0 * (1.0 - load))), rel=0.06)


@pytest.mark.parametrize(
    ("engines", "want"),
    [
        pytest.param(1, [0.1, 0.18, 0.26, 0.34], id="one: each waits for all before it"),
        pytest.param(2, [0.1, 0.1, 0.16, 0.16], id="two: the third has the one that is free first"),
        pytest.param(3, [0.1, 0.1, 0.1, 0.14], id="three"),
        pytest.param(4, [0.1] * 4, id="as many as requests: nobody waits"),
    ],
)
def test_the_engine_that_is_free_first_has_the_next_batch(engines: int, want: list[float]) -> None:
    """Four requests, 20 ms apart, of 100 ms each."""
    got = model.latencies_s(Roofline(0.1, 0.0, 0.1, 1, engines), 50.0, [1.0] * 4)
    assert got == pytest.approx(want)


def test_requests_wait_for_the_busy_engines_together() -> None:
    """Of two engines the first two requests have one each; the next three come while both are busy, and share one."""
    got = model.latencies_s(Roofline(0.1, 0.1, 0.0, 8, 2), 50.0, [1.0] * 5)
    assert got == pytest.approx([0.1, 0.1, 0.16, 0.14, 0.12])


@pytest.mark.parametrize(
    ("device", "least", "most"),
    [
        pytest.param(Roofline(0.02, 0.0, 0.02, 1), 2.5, 4.0, id="single requests: one engine takes what another keeps"),
        pytest.param(DEVICE, 1.8, 2.0, id="batches: they are smaller where an idle engine takes what is there"),
    ],
)
def test_two_engines_do_not_carry_just_twice_as_much(device: Roofline, least: float, most: float) -> None:
    one, two = (capacity(replace(device, engines=n), 0.05, 0.95, arrivals=3000) for n in (1, 2))
    assert two.max_rate == 2 * one.max_rate
    assert least < two.rate / one.rate < most


def test_engines_share_out_whole_requests() -> None:
    rows = RequestRows(8.0, 200.0)
    one, two = (capacity(replace(DEVICE, engines=n), 0.1, 0.95, requests=rows, arrivals=3000) for n in (1, 2))
    assert two.max_rate == pytest.approx(2 * one.max_rate)
    assert two.rate > 1.8 * one.rate


def test_batches_carry_what_single_requests_cannot() -> None:
    gaps = unit_gaps(3000, 1.0)
    rate = 4.0 / DEVICE.seconds(1)
    assert model.latency_s(DEVICE, rate, 0.99, gaps) < 4.0 * DEVICE.seconds(1)
    assert model.latency_s(Roofline(*(DEVICE.floor_s,) * 2, 0.0, 1), rate, 0.99, gaps) > 1.0


def test_every_request_is_answered_once_and_after_its_batch() -> None:
    found = model.latencies_s(DEVICE, 500.0, unit_gaps(3000, 1.0))
    assert len(found) == 3000
    assert min(found) >= DEVICE.seconds(1) - 1e-9


@pytest.mark.parametrize("dispersion", [1.0, 3.0])
def test_arrivals_scatter_as_asked(dispersion: float) -> None:
    """Gaps have a mean of 1; the variance of counts over their mean is the dispersion, over a hundred at a time."""
    gaps = unit_gaps(20_000, dispersion)
    assert statistics.fmean(gaps) == pytest.approx(1.0, rel=0.02)
    times = itertools.accumulate(gaps)
    counts = [0] * (int(sum(gaps) / 100.0) + 1)
    for time in times:
        counts[int(time / 100.0)] += 1
    got = statistics.variance(counts[:-1]) / statistics.fmean(counts[:-1])
    assert 0.6 * dispersion < got < 1.6 * dispersion


def test_a_tighter_target_leaves_less_and_a_slower_device_carries_less() -> None:
    found = [capacity(DEVICE, target_s, 0.95, arrivals=3000) for target_s in (0.03, 0.05, 0.1, 0.4)]
    assert [c.rate for c in found] == sorted(c.rate for c in found)
    assert all(0.0 < c.shrink_rate <= c.rate <= c.max_rate for c in found)
    assert all(c.is_attainable for c in found)
    slow = capacity(DEVICE.scaled(2.0), 0.1, 0.95, arrivals=3000)
    assert slow.rate < found[2].rate / 2.0
    assert capacity(DEVICE, 0.1, 0.99, arrivals=3000).rate <= found[2].rate
    assert capacity(DEVICE, 0.1, 0.95, dispersion=8.0, arrivals=3000).rate < found[2].rate


def test_the_target_is_met_at_the_capacity_and_missed_beyond_it() -> None:
    found = capacity(DEVICE, 0.05, 0.95, arrivals=3000)
    gaps = unit_gaps(3000, 1.0)
    assert model.latency_s(DEVICE, found.rate, 0.95, gaps) <= 0.05
    assert model.latency_s(DEVICE, found.rate + 0.01 * found.max_rate, 0.95, gaps) > 0.05
    assert model.latency_s(DEVICE, found.shrink_rate, 0.95, gaps) <= 0.9 * 0.05


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param(RequestRows(8.0, 64.0), id="eight rows each"),
        pytest.param(RequestRows(8.0, 200.0), id="eight rows on average"),
        pytest.param(RequestRows(1.2, 2.4), id="a few rows now and then"),
    ],
)
def test_requests_of_several_rows_leave_less_than_as_many_rows_one_by_one(requests: RequestRows) -> None:
    def p95_s(rate: float) -> float:
        return model.latency_s(DEVICE, rate, 0.95, unit_gaps(3000, 1.0), requests.drawn(3000))

    alone = capacity(DEVICE, 0.1, 0.95, arrivals=3000)
    got = capacity(DEVICE, 0.1, 0.95, requests=requests, arrivals=3000)
    assert got.is_attainable
    assert p95_s(got.rate) <= 0.1 < p95_s(alone.rate), "rows that come together wait together"


def test_batches_are_filled_by_whole_requests() -> None:
    """Of 40 rows each, one fits into a batch of 64."""
    got = capacity(DEVICE, 1.0, 0.95, requests=RequestRows(40.0, 1600.0), arrivals=2000)
    assert got.max_rate == pytest.approx(40 / DEVICE.seconds(40))
    assert capacity(DEVICE, 1.0, 0.95, requests=SINGLE, arrivals=2000).max_rate == DEVICE.max_rate


def test_a_request_of_many_rows_costs_no_more_than_its_own_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as much as all sizes of a batch up to it, at each rate that is looked at."""
    seconds, asked = Roofline.seconds, 0

    def counted(roofline: Roofline, rows: float) -> float:
        nonlocal asked
        asked += 1
        return seconds(roofline, rows)

    monkeypatch.setattr(Roofline, "seconds", counted)
    rare = RequestRows(10.0, 1e6)
    assert max(rare.drawn(20_000)) > 90_000
    capacity(DEVICE, 10.0, 0.95, requests=rare)
    assert asked < 50_000


@pytest.mark.parametrize("target_s", [0.001, 0.0104])
def test_a_target_below_the_time_of_a_batch_is_unattainable(target_s: float) -> None:
    got = capacity(DEVICE, target_s, 0.95, arrivals=3000)
    rate = model.UNATTAINABLE_LOAD * DEVICE.max_rate
    assert got == Capacity(rate, rate, DEVICE.max_rate, is_attainable=False)


def test_what_is_not_believed_is_not_planned_with() -> None:
    assert Capacity(100.0, 90.0, 200.0).derated(0.5) == Capacity(50.0, 45.0, 200.0)


def test_late_answers_take_nothing_off_a_throughput() -> None:
    planned = Capacity(140.0, 140.0, 200.0, is_attainable=False)
    assert planned.derated(0.5) == planned


@pytest.mark.parametrize("target_s", [0.03, 0.05])
def test_the_latency_is_foreseen_at_any_load(target_s: float) -> None:
    got = capacity(DEVICE, target_s, 0.95, arrivals=3000)
    gaps = unit_gaps(3000, 1.0)
    for share in (0.2, 0.3, 0.5, 0.7, 0.85, 0.95, 1.0):
        foreseen = got.latency_at(share * got.rate)
        assert foreseen == pytest.approx(model.latency_s(DEVICE, share * got.rate, 0.95, gaps), rel=0.2), share
    assert got.latency_at(0.0) == model.idle_latency_s(DEVICE, 0.95)
    assert got.latency_at(2.0 * got.rate) == got.latency_at(got.rate) == got.foreseen_s[-1] <= target_s
    assert Capacity(100.0, 90.0, 200.0).latency_at(50.0) is NO_SIGNAL, "what an earlier release kept"


def test_what_one_search_has_simulated_the_other_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    simulated: list[float] = []

    def latency_s(roofline: Roofline, rate: float, *rest: object) -> float:
        simulated.append(rate)
        return found(roofline, rate, *rest)

    found: Callable[..., float] = model.latency_s
    monkeypatch.setattr(model, "latency_s", latency_s)
    capacity(DEVICE, 0.05, 0.95, arrivals=2000)
    assert len(simulated) == len(set(simulated)) <= 18


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.floats(1e-3, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 0.1)),
    st.tuples(st.floats(1e-3, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 0.1)),
    st.floats(0.0, 600.0),
)
def test_a_device_changes_its_speed_slowly(
    old: tuple[float, float, float], new: tuple[float, float, float], elapsed_s: float
) -> None:
    present, measured = Roofline(*old, 16), Roofline(*new, 16)
    got = approached(present, measured, elapsed_s)
    bound = 1.2 ** (elapsed_s / 600.0) + 1e-9
    for rows in (1, 8, 16):
        assert 1.0 / bound <= got.seconds(rows) / present.seconds(rows) <= bound


@pytest.mark.parametrize("factor", [0.2, 0.9, 1.15, 5.0])
def test_what_is_measured_for_long_is_believed_in_the_end(factor: float) -> None:
    measured, found, minutes = DEVICE.scaled(factor), DEVICE, 0
    while found != measured:
        found, minutes = approached(found, measured, 60.0), minutes + 1
        assert minutes < 200
    assert minutes >= abs(math.log(factor)) / math.log(1.2) * 10.0 - 1.0


def test_measurements_fade() -> None:
    assert faded({1: (8.0, 4.0), 2: (0.015, 1.0)}, 1800.0) == {1: (4.0, 2.0)}
    assert faded({1: (8.0, 4.0)}, 0.0) == {1: (8.0, 4.0)}
