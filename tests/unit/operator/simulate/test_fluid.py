"""Is the flow of requests served, delayed and paid for as arithmetic says, and does the law run in it unchanged?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from evenkeel_operator.decide.capacity import Roofline, latency_s, unit_gaps
from evenkeel_operator.decide.replicas import Scaling
from evenkeel_operator.simulate.baselines.grid import defaults, families
from evenkeel_operator.simulate.baselines.static import Static
from evenkeel_operator.simulate.clients import THINK_S, ClosedClients, OpenClients
from evenkeel_operator.simulate.fluid import DRAIN_S, Fleet, Outcome, State, Trailing, World, run
from evenkeel_operator.simulate.law import Law, Setting
from evenkeel_operator.simulate.load import Floats, arrivals
from evenkeel_operator.simulate.profile import Profile

PROFILE = Profile(Roofline(0.083, 0.020, 0.0155, 16), target_s=1.0, quantile=0.95, arrivals=2400)
RATE = PROFILE.capacity.max_rate


@dataclass
class Steps:
    """Sizes that were decided on before: {second: size}."""

    sizes: dict[int, float]
    width: int = 1
    every_s: int = 1

    def observe(self, state: State) -> Floats | None:
        size = self.sizes.get(state.second)
        return None if size is None else np.full(state.asked.shape, size, np.float32)


def one(rates: list[float], steps: dict[int, float], first: float = 1.0, cold_start_s: int = 60) -> Outcome:
    """Return what happens to `rates` a second when the sizes are `steps`, looked at every second."""
    world = World(PROFILE, np.array([first], np.float32))
    counts = np.array(rates, np.float32)[:, None]
    return run(world, [Fleet(Steps(steps), cold_start_s)], OpenClients(counts), len(rates), keep_every_s=1)


def test_a_load_within_the_capacity_is_late_as_often_as_the_model_of_one_replica_says() -> None:
    rate = 0.8 * RATE
    got = one([rate] * 900, {})
    gaps = unit_gaps(6000, 1.0)
    assert latency_s(PROFILE.roofline, rate, 0.95, gaps) < PROFILE.target_s
    assert float(got.violation[0, 0]) < 0.05
    assert got.requests[0, 0] == pytest.approx(900 * rate, rel=1e-4)


def test_a_queue_grows_by_what_is_not_served_and_is_late_once_it_takes_the_target() -> None:
    got = one([2.0 * RATE] * 20, {})
    assert got.kept is not None
    waits = got.kept.latency_s[:, 0, 0]
    assert np.diff(waits)[8:] == pytest.approx(np.ones(11), abs=0.02), "a second of arrivals is two of service"
    assert float(got.violation[0, 0]) > 0.85
    assert got.worst is None, "five minutes are not over"


def test_the_worst_five_minutes_are_the_worst_of_whole_ones() -> None:
    got = one([2.0 * RATE] * 100 + [1.0] * 250, {})
    assert got.worst is not None
    assert float(got.worst[0, 0]) == pytest.approx(float(got.violation[0, 0]), rel=0.1)


@pytest.mark.parametrize("every_s", [1, 7, 60])
def test_what_is_kept_adds_up_whatever_its_intervals(every_s: int) -> None:
    counts = np.array([2.0 * RATE] * 100, np.float32)[:, None]
    world = World(PROFILE, np.array([1.0], np.float32))
    got = run(world, [Fleet(Steps({}), 60)], OpenClients(counts), 100, keep_every_s=every_s)
    assert got.kept is not None
    assert len(got.kept.requests) == len(got.kept.late) == len(got.kept.asked) == -(-100 // every_s)
    assert got.kept.requests.sum() == pytest.approx(float(got.requests[0, 0]), rel=1e-4)
    assert got.kept.late.sum() == pytest.approx(float(got.late[0, 0]), rel=1e-4)


@pytest.mark.parametrize("cold_start_s", [1, 7, 60])
def test_a_replica_is_ready_after_its_start_and_paid_for_from_its_creation(cold_start_s: int) -> None:
    got = one([10.0] * 200, {20: 3.0}, cold_start_s=cold_start_s)
    assert got.kept is not None
    ready = got.kept.ready[:, 0, 0]
    first = int(np.argmax(ready == 3.0))
    assert first == 21 + cold_start_s
    assert set(ready[:first]) == {1.0}
    assert float(got.gpu_s[0, 0]) == 21 + 3 * 179
    assert float(got.changes[0, 0]) == 1


def test_one_that_is_removed_drains_and_one_that_was_starting_does_not() -> None:
    drained = one([10.0] * 100, {10: 1.0}, first=3.0)
    assert float(drained.gpu_s[0, 0]) == 3 * 11 + 89 + 2 * DRAIN_S
    cancelled = one([10.0] * 100, {10: 3.0, 20: 1.0})
    assert float(cancelled.gpu_s[0, 0]) == 11 + 3 * 10 + 79
    assert cancelled.kept is not None
    assert set(cancelled.kept.ready[:, 0, 0]) == {1.0}


def test_bounds_hold_whatever_is_asked_for() -> None:
    world = World(PROFILE, np.array([2.0], np.float32), least=2, most=5)
    counts = np.full((50, 1), 5.0, np.float32)
    got = run(world, [Fleet(Steps({5: 0.0, 20: 99.0}), 1)], OpenClients(counts), 50, keep_every_s=1)
    assert got.kept is not None
    assert set(got.kept.asked[:, 0, 0]) == {2.0, 5.0}


def test_columns_and_rows_do_not_touch_each_other() -> None:
    """Every static size and every run gives what it gives alone, whatever is simulated beside it."""
    source = np.random.default_rng(5)
    counts = source.poisson(1.5 * RATE, (300, 2)).astype(np.float32)
    first = np.ones(2, np.float32)
    together = run(World(PROFILE, first), [Fleet(Static([1, 2, 4]), 30)], OpenClients(counts), 300)
    for row in range(2):
        for column, size in enumerate((1, 2, 4)):
            alone = run(
                World(PROFILE, first[:1]), [Fleet(Static([size]), 30)], OpenClients(counts[:, row : row + 1]), 300
            )
            for name in ("late", "requests", "gpu_s", "changes"):
                assert getattr(alone, name)[0, 0] == pytest.approx(getattr(together, name)[row, column])


def test_people_who_wait_for_their_answers_ask_a_slow_service_less_often() -> None:
    world = World(PROFILE, np.ones(1, np.float32))
    counts = np.full((400, 1), 2.0 * RATE, np.float32)
    got = run(world, [Fleet(Static([1]), 30)], ClosedClients(counts), 400)
    users = 2.0 * RATE * THINK_S
    assert float(got.requests[0, 0]) / 400 < 1.15 * RATE
    assert float(got.requests[0, 0]) * THINK_S < 400 * users


def test_means_of_the_past_are_those_of_its_seconds() -> None:
    trailing = Trailing((1, 1))
    values = np.arange(1.0, 301.0)
    for value in values:
        trailing.add(np.full((1, 1), value, np.float32))
    every = slice(0, 1)
    assert trailing.mean(every, 15)[0, 0] == pytest.approx(values[-15:].mean())
    assert trailing.mean(every, 30, 10)[0, 0] == pytest.approx(values[-40:-10].mean())


def test_the_operators_law_follows_a_step_and_keeps_still_after() -> None:
    expected = np.concatenate([np.full(600, 0.8 * RATE), np.full(1800, 3.6 * RATE)]).astype(np.float32)
    counts = arrivals(expected, 1)[:, None]
    setting = Setting(Scaling(1, 12, PROFILE.target_s, PROFILE.quantile), PROFILE.capacity, 60.0)
    got = run(
        World(PROFILE, np.ones(1, np.float32)), [Fleet(Law(setting, 1), 60)], OpenClients(counts), 2400, keep_every_s=5
    )
    assert got.kept is not None
    asked = got.kept.asked[:, 0, 0]
    assert set(asked[60:120]) <= {1.0, 2.0}
    assert asked[120:125].max() >= 4.0, "within half a minute"
    assert asked[-1] >= 4.0
    assert len(set(asked[-120:])) <= 2


def test_every_baseline_of_the_grid_follows_a_load_and_its_default_is_in_the_grid() -> None:
    grid = families(PROFILE, 12, 12)
    counts = np.full((900, 1), 2.5 * RATE, np.float32)
    fleets = [Fleet(family.autoscaler, 30) for family in grid]
    got = run(World(PROFILE, np.ones(1, np.float32), most=12), fleets, OpenClients(counts), 900, keep_every_s=60)
    assert got.kept is not None
    begin = 0
    for family in grid:
        assert len(family.labels) == family.autoscaler.width
        if family.name != "static":
            last = got.kept.asked[-1, 0, begin : begin + family.autoscaler.width]
            assert last.max() >= 3.0, family.name
            assert family.column(defaults()[family.name]) >= 0
        begin += family.autoscaler.width
    assert begin == got.late.shape[1]
