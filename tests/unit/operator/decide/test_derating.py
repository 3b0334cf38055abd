"""How much of a capacity is believed, by what was measured?"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from evenkeel_operator.decide.capacity import Capacity
from evenkeel_operator.decide.derating import FORGET_S, Derating, Sample

FORESEEN = (0.1, 0.15, 0.2, 0.27, 0.43, 0.6, 1.0)
CARRIES = Capacity(100.0, 90.0, 120.0, foreseen_s=FORESEEN)
MANY = 6000


def sample(quantile_s: float, requests: int = MANY, slow: int | None = None) -> Sample:
    """Return a minute whose p95 is `quantile_s`, of a target of one second."""
    slow = (requests // 5 if quantile_s > 1.0 else 0) if slow is None else slow
    return Sample(0.95, quantile_s, requests, slow)


def looked(
    derating: Derating, carries: Capacity, seen: Sample, load: float, now: float = 0.0, *, is_calm: bool = True
) -> float:
    """Return how much is believed after a look."""
    derating.look(carries, seen, 1.0, load, now, is_calm=is_calm)
    return derating.factor


@pytest.mark.parametrize(
    ("factor", "seen", "load", "is_calm", "want"),
    [
        pytest.param(1.0, sample(1.2), 50.0, True, 0.9, id="slow below its capacity, in calm"),
        pytest.param(1.0, sample(1.2), 50.0, False, 1.0, id="slow after a burst says nothing"),
        pytest.param(1.0, sample(1.2), 120.0, True, 1.0, id="slow above its capacity is as planned"),
        pytest.param(0.5, sample(1.2), 20.0, True, 0.5, id="less than a half is never believed"),
        pytest.param(0.8, sample(0.4), 80.0, True, 0.816, id="fast at its capacity"),
        pytest.param(0.8, sample(0.2), 40.0, True, 0.808, id="as fast as foreseen at half of it, half as fast"),
        pytest.param(0.8, sample(0.4), 40.0, True, 0.8, id="twice as slow, which the target has no room for"),
        pytest.param(0.6, sample(0.4), 30.0, True, 0.606, id="twice as slow, which it has room for"),
        pytest.param(0.99, sample(0.2), 99.0, True, 1.0, id="never more than the model says"),
        pytest.param(0.8, sample(0.2), 0.0, True, 0.8, id="no load"),
        pytest.param(0.5, sample(2.5), 100.0, False, 0.5, id="slow above it is as planned, and no sign of more"),
        pytest.param(0.7, sample(1.2), 90.0, True, 0.7, id="nor where the target would have room below it"),
        pytest.param(0.5, sample(0.9), 100.0, True, 0.51, id="in time above it"),
        pytest.param(1.0, sample(1.2, 1, 1), 50.0, True, 1.0, id="one slow request"),
        pytest.param(1.0, sample(1.2, 60, 4), 50.0, True, 1.0, id="as many slow ones as chance makes"),
        pytest.param(1.0, sample(1.2, 60, 20), 50.0, True, 0.9, id="more than chance makes"),
        pytest.param(1.0, sample(1.2, 3, 3), 50.0, True, 0.9, id="none in time, of few"),
        pytest.param(0.8, sample(0.1, 2), 80.0, True, 0.8 * 1.02**0.1, id="two requests move a tenth of it"),
    ],
)
def test_derating(factor: float, seen: Sample, load: float, is_calm: bool, want: float) -> None:
    assert looked(Derating(factor), CARRIES, seen, load, is_calm=is_calm) == pytest.approx(want, rel=1e-4)


def test_without_a_foreseen_latency_there_is_nothing_to_compare_with() -> None:
    """What an earlier release kept, until it is computed anew."""
    carries = Capacity(100.0, 90.0, 120.0)
    assert looked(Derating(0.8), carries, sample(0.1), 75.0) == 0.8
    assert looked(Derating(0.8), carries, sample(1.2), 75.0) == pytest.approx(0.72)


def test_a_target_that_no_rate_meets_says_nothing_of_the_throughput() -> None:
    carries = Capacity(84.0, 84.0, 120.0, is_attainable=False)
    assert looked(Derating(), carries, sample(1.2), 50.0) == 1.0


def followed(derating: Derating, demand: float, latency_s: Callable[[float], float]) -> list[int]:
    """Return the sizes of a day's minutes, of replicas that have `latency_s` at a load."""
    sizes = []
    for minute in range(24 * 60):
        sizes.append(math.ceil(1.05 * demand / (100.0 * derating.factor)))
        load = demand / sizes[-1]
        looked(derating, CARRIES, sample(latency_s(load)), load, 60.0 * minute)
    return sizes


def foreseen(load: float) -> float:
    """Return what the model foresees, and far too much where it foresees nothing."""
    found = CARRIES.latency_at(load)
    assert isinstance(found, float)
    return found if load <= CARRIES.rate else 5.0


@pytest.mark.parametrize("demand", [50.0, 100.0, 150.0, 220.0, 1040.0])
def test_a_slow_spell_is_forgotten_at_any_demand(demand: float) -> None:
    """Latencies are again as the model foresees them, for the replicas that it added."""
    derating = Derating()
    for minute in range(10):
        looked(derating, CARRIES, sample(1.2), 40.0, 60.0 * minute)
    assert derating.factor == 0.5
    assert followed(derating, demand, foreseen)[-1] == math.ceil(1.05 * demand / 100.0)


@pytest.mark.parametrize("demand", [150.0, 220.0, 1040.0])
@pytest.mark.parametrize(
    "latency_s",
    [
        pytest.param(lambda load: 1.2 * foreseen(1.2 * load), id="everything takes 1.2 times as long"),
        pytest.param(lambda load: foreseen(load) if load < 70.0 else 1.2, id="above 70 of 100 rows/s it is slow"),
    ],
)
def test_what_carries_less_than_foreseen_is_left_at_what_it_carries(
    demand: float, latency_s: Callable[[float], float]
) -> None:
    sizes = followed(Derating(), demand, latency_s)
    assert latency_s(demand / sizes[-1]) <= 1.0
    missed = sum(latency_s(demand / size) > 1.0 for size in sizes)
    assert missed <= 10, "minutes of a day"


def test_a_load_that_was_too_much_is_tried_anew_after_six_hours() -> None:
    derating = Derating()
    looked(derating, CARRIES, sample(1.2), 80.0)
    for minute in range(60):
        assert looked(derating, CARRIES, sample(0.1), 50.0, 60.0 * minute) <= 0.9
    for minute in range(60):
        looked(derating, CARRIES, sample(0.1), 50.0, FORGET_S + 60.0 * (minute + 1))
    assert derating.factor == 1.0
