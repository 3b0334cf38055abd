"""Do single requests and their flow agree, do replicas answer as real ones do, and does the law stay within bounds?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evenkeel_operator.decide.capacity import Roofline
from evenkeel_operator.decide.replicas import Scaling
from evenkeel_operator.simulate import fluid
from evenkeel_operator.simulate.baselines.static import Static
from evenkeel_operator.simulate.clients import OpenClients
from evenkeel_operator.simulate.load import Floats, arrivals
from evenkeel_operator.simulate.operated import Faults, Operated
from evenkeel_operator.simulate.profile import Profile
from evenkeel_operator.simulate.requests import Outcome, Pod, Service, Slow
from tests.bench.control import worlds

PROFILE = Profile(Roofline(0.16, 0.04, 0.05, 8), target_s=2.0, quantile=0.95, arrivals=2400)
RATE = PROFILE.capacity.max_rate
SCALING = Scaling(1, 6, PROFILE.target_s, PROFILE.quantile)


def burst(height: float) -> Floats:
    """Return four minutes of 60 % of two replicas' rate, with 40 s of `height` times it."""
    shares = np.concatenate([np.full(60, 0.6), np.full(40, height), np.full(140, 0.6)])
    return arrivals((2.0 * RATE * shares).astype(np.float32), 1)


@pytest.mark.parametrize("height", [0.7, 1.2, 1.5, 2.0])
def test_a_burst_is_late_as_often_request_by_request_as_in_the_flow(height: float) -> None:
    counts = burst(height)
    single = Service(PROFILE, 60, 2).run(counts, Static([2]), 1)
    world = fluid.World(PROFILE, np.array([2.0], np.float32))
    flow = fluid.run(world, [fluid.Fleet(Static([2]), 60)], OpenClients(counts[:, None]), len(counts))
    assert single.requests == int(counts.sum())
    assert single.violation == pytest.approx(float(flow.violation[0, 0]), rel=0.1, abs=0.005)
    assert single.gpu_s == float(flow.gpu_s[0, 0])


def test_a_slow_replica_is_late_where_others_are_not() -> None:
    counts = burst(0.7)
    assert Service(PROFILE, 60, 2).run(counts, Static([2]), 1).violation < 0.01
    assert Service(PROFILE, 60, 2, slow={0: Slow(1.5)}).run(counts, Static([2]), 1).violation > 0.03


def test_a_device_is_slow_for_as_long_as_it_is() -> None:
    pod = Pod("a", PROFILE, 0.0, 0.0, Slow(1.5, 10.0, 20.0))
    for at in (5.0, 15.0, 25.0):
        pod.arrive(at)
    pod.advance(30.0)
    reading = pod.reading(30.0)
    assert reading.batches[0][3] == pytest.approx(0.16 + 0.24 + 0.16)
    assert reading.profile[0] == (1, 0.16), "measured at load, before"


def test_a_replica_counts_what_it_has_done() -> None:
    pod = Pod("a", PROFILE, 0.0, 0.0)
    for at in (0.0, 0.01, 0.02):
        pod.arrive(at)
    pod.advance(0.05)
    reading = pod.reading(0.05)
    assert (reading.arrivals, reading.queued, reading.in_flight, sum(reading.latencies.counts)) == (3, 2, 3, 1)
    pod.advance(1.0)
    reading = pod.reading(1.0)
    assert (reading.queued, reading.in_flight, sum(reading.latencies.counts)) == (0, 0, 3)
    assert reading.batches == ((1, 1, 1, 0.16), (2, 1, 2, 0.16))
    assert pod.late == 0


def test_a_replica_of_two_engines_runs_two_batches_at_a_time() -> None:
    pod = Pod("a", replace(PROFILE, roofline=replace(PROFILE.roofline, engines=2)), 0.0, 0.0)
    for at in (0.0, 0.01, 0.02, 0.03):
        pod.arrive(at)
    pod.advance(0.05)
    reading = pod.reading(0.05)
    assert (reading.engines, reading.queued, reading.in_flight) == (2, 2, 4)
    assert sum(reading.latencies.counts) == 2
    assert pod.empty_at() == pytest.approx(0.32), "the two that waited share what the first engine begins at 0.16"


def step() -> Floats:
    """Return a step from half a replica's rate to 2.5 of them, after two minutes."""
    return arrivals(np.concatenate([np.full(120, 0.5 * RATE), np.full(300, 2.5 * RATE)]).astype(np.float32), 2)


def run(faults: Faults) -> Outcome:
    return Service(PROFILE, 20, 1, most=6).run(step(), Operated(SCALING, 20.0, faults, 1, model_arrivals=2400), 1)


@pytest.fixture(scope="module")
def plain() -> Outcome:
    return run(Faults())


def test_the_operator_follows_a_step_by_what_replicas_answer(plain: Outcome) -> None:
    assert set(plain.asked[60:115].tolist()) <= {1, 2}
    assert plain.asked[150] >= 3
    assert plain.asked[-1] in (3, 4)


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(Faults(200, 350, silent=True), id="half the replicas say nothing"),
        pytest.param(Faults(200, 350, lost=0.3), id="answers get lost"),
        pytest.param(Faults(200, 350, down=True), id="the operator is away and comes back"),
        pytest.param(Faults(200, 350, step_s=-60.0), id="its clock is set back"),
        pytest.param(Faults(200, 350, step_s=60.0), id="its clock is set forward"),
    ],
)
def test_a_fault_does_not_take_replicas_away(plain: Outcome, faults: Faults) -> None:
    got = run(faults)
    assert (got.asked[:200] == plain.asked[:200]).all()
    assert (got.asked[200:] >= plain.asked[200:].min()).all()


def test_the_size_stays_within_its_bounds_in_random_worlds() -> None:
    assert worlds.broken(1500, 1) == []
