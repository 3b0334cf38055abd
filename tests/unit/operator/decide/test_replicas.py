"""Is the size what the demand needs, whatever is missing, and does it stand still where the demand does?"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel_operator.decide.capacity import Capacity
from evenkeel_operator.decide.memory import Memory
from evenkeel_operator.decide.replicas import (
    TICK_S,
    Decision,
    Fleet,
    Fresh,
    Limit,
    Measurement,
    NoMetrics,
    NoTraffic,
    Scaling,
    Signals,
    Stale,
    decide,
)
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal
from evenkeel_operator.decide.window import Rates

CARRIES = Capacity(rate=10.0, shrink_rate=9.0, max_rate=15.0)
BOUNDS = Scaling(least=1, most=12, target_s=0.2, quantile=0.95)
QUIET = Signals(Fresh(35.0), Fresh(0.0), Fresh(0.1), ready=4, heard=4)


@dataclass
class Deployment:
    """One that is decided for every five seconds, and has been for long; replicas are ready at once."""

    size: int = 4
    bounds: Scaling = BOUNDS
    carries: Capacity | NoSignal = CARRIES
    free: int | NoSignal | None = None
    waiting: int = 0
    cold_start_s: float = 60.0
    now: float = 1000.0
    dispersion: float = 1.0
    memory: Memory = field(default_factory=lambda: Memory(Rates(-math.inf)))

    def tick(self, signals: Signals) -> Decision:
        self.now += TICK_S
        fleet = Fleet(self.size, signals.ready, self.free, self.cold_start_s, self.waiting)
        decision, self.memory = decide(signals, fleet, self.bounds, self.carries, self.memory, self.now)
        self.size = decision.size
        return decision

    def at(self, rate: float, queued: float = 0.0) -> Decision:
        demand: Measurement = Fresh(rate) if rate > 0.0 else NoTraffic()
        signals = Signals(demand, Fresh(queued), NoMetrics(), self.size, self.size, dispersion=self.dispersion)
        return self.tick(signals)


NOW = [
    pytest.param(QUIET, {}, 4, Limit.DEMAND, id="as many as the demand needs"),
    pytest.param(replace(QUIET, demand=Fresh(75.0)), {}, 8, Limit.DEMAND, id="more where it needs more, at once"),
    pytest.param(replace(QUIET, demand=NoTraffic()), {}, 1, Limit.DEMAND, id="the least where nothing comes"),
    pytest.param(replace(QUIET, queued=Fresh(40_000.0)), {}, 12, Limit.MAX_REPLICAS, id="more where many wait"),
    pytest.param(replace(QUIET, queued=Fresh(4000.0)), {}, 5, Limit.QUEUE, id="as many as empty the queue in time"),
    pytest.param(replace(QUIET, demand=Fresh(900.0)), {}, 12, Limit.MAX_REPLICAS, id="never above the maximum"),
    pytest.param(
        replace(QUIET, demand=NoTraffic()),
        {"bounds": replace(BOUNDS, least=3)},
        3,
        Limit.MIN_REPLICAS,
        id="never below the minimum",
    ),
    pytest.param(
        QUIET, {"bounds": replace(BOUNDS, most=2), "size": 4}, 2, Limit.MAX_REPLICAS, id="a maximum that was lowered"
    ),
    pytest.param(
        replace(QUIET, demand=NoMetrics()),
        {"bounds": replace(BOUNDS, least=6)},
        6,
        Limit.MIN_REPLICAS,
        id="a minimum that was raised, also where nothing is known",
    ),
    pytest.param(replace(QUIET, demand=Fresh(75.0)), {"free": 2}, 6, Limit.FREE_GPUS, id="no more than have GPUs"),
    pytest.param(replace(QUIET, demand=Fresh(75.0)), {"free": 0}, 4, Limit.FREE_GPUS, id="none without free GPUs"),
    pytest.param(replace(QUIET, demand=Fresh(75.0)), {"free": -1}, 4, Limit.FREE_GPUS, id="nor where one is lost"),
    pytest.param(
        replace(QUIET, demand=Fresh(75.0)),
        {"free": NO_SIGNAL},
        8,
        Limit.DEMAND,
        id="as many as are needed where nodes are unknown",
    ),
    pytest.param(
        replace(QUIET, demand=Fresh(75.0)),
        {"free": NO_SIGNAL, "waiting": 1},
        4,
        Limit.FREE_GPUS,
        id="none where nodes are unknown and one waits for its own",
    ),
    pytest.param(
        QUIET, {"free": NO_SIGNAL, "waiting": 3, "size": 6}, 4, Limit.DEMAND, id="fewer also where one waits for a node"
    ),
    pytest.param(QUIET, {"free": 0, "size": 6}, 4, Limit.DEMAND, id="fewer also where no GPU is free"),
    pytest.param(replace(QUIET, demand=NoMetrics()), {}, 4, Limit.NO_METRICS, id="held where nothing is known"),
    pytest.param(
        replace(QUIET, demand=Stale(1.0, 60.0)), {}, 4, Limit.STALE_METRICS, id="held where what is known is old"
    ),
    pytest.param(replace(QUIET, demand=Fresh(math.nan)), {}, 4, Limit.NO_METRICS, id="held on NaN"),
    pytest.param(replace(QUIET, demand=Fresh(math.inf)), {}, 4, Limit.NO_METRICS, id="held on infinity"),
    pytest.param(replace(QUIET, demand=Fresh(-3.0)), {}, 4, Limit.NO_METRICS, id="held on a negative rate"),
    pytest.param(QUIET, {"carries": NO_SIGNAL, "size": 9}, 9, Limit.NO_METRICS, id="held without a capacity"),
    pytest.param(
        replace(QUIET, demand=Fresh(5.0), ready=8, heard=3),
        {"size": 8},
        8,
        Limit.SILENT_REPLICAS,
        id="held down where more than half are silent",
    ),
    pytest.param(
        replace(QUIET, demand=Fresh(5.0), ready=8, heard=6),
        {"size": 8},
        8,
        Limit.SILENT_REPLICAS,
        id="also where a quarter are",
    ),
    pytest.param(
        replace(QUIET, demand=Fresh(5.0), ready=8, heard=7), {"size": 8}, 1, Limit.DEMAND, id="but not for one"
    ),
    pytest.param(
        replace(QUIET, demand=Fresh(18.0), ready=4, heard=2),
        {},
        5,
        Limit.DEMAND,
        id="for the silent ones as much as they may have by chance",
    ),
    pytest.param(
        replace(QUIET, demand=Fresh(5.0), queued=Fresh(8000.0), ready=4, heard=1),
        {"bounds": replace(BOUNDS, most=20)},
        16,
        Limit.QUEUE,
        id="what waits in the silent ones is emptied, too",
    ),
    pytest.param(
        replace(QUIET, demand=Fresh(75.0), ready=8, heard=3),
        {"size": 8},
        12,
        Limit.MAX_REPLICAS,
        id="but not up: the silent ones get as much as the others",
    ),
    pytest.param(
        replace(QUIET, demand=Fresh(5.0), queued=NoMetrics()),
        {"size": 8},
        8,
        Limit.NO_METRICS,
        id="held down where nobody knows what waits",
    ),
    pytest.param(
        replace(QUIET, demand=Fresh(36.5)), {"size": 5}, 5, Limit.SURVIVORS, id="one is kept that the others would miss"
    ),
    pytest.param(
        replace(QUIET, demand=Fresh(38.0)),
        {"size": 5, "carries": replace(CARRIES, shrink_rate=5.0)},
        5,
        Limit.SURVIVORS,
        id="also where not even all of them have the margin",
    ),
]


@pytest.mark.parametrize(("signals", "change", "want", "limit"), NOW)
def test_the_first_decision(signals: Signals, change: dict[str, object], want: int, limit: Limit) -> None:
    got = replace(Deployment(), **change).tick(signals)  # type: ignore[arg-type]
    assert (got.size, got.limit) == (want, limit), got.message
    assert got.message


def test_a_decision_names_what_it_was_made_from() -> None:
    signals = Signals(Fresh(35.0, 2.0), Stale(3.0, 20.0), NoTraffic(1.0), ready=4, heard=3, capacity_age_s=40.0)
    rows = {row.name: (row.value, row.state, row.age_s) for row in Deployment().tick(signals).inputs}
    assert rows == {
        "demand": (35.0, "Fresh", 2.0),
        "queued": (3.0, "Stale", 20.0),
        "latency": (None, "NoTraffic", 1.0),
        "ready replicas": (4.0, "Fresh", 0.0),
        "heard replicas": (3.0, "Fresh", 0.0),
        "cold start": (60.0, "Fresh", 0.0),
        "capacity of a replica": (10.0, "Fresh", 40.0),
    }


@pytest.mark.parametrize(
    ("free", "want"),
    [
        pytest.param(2, [(2.0, "Fresh", 0.0)], id="as many as get their GPUs"),
        pytest.param(NO_SIGNAL, [(None, "NoMetrics", None)], id="where nodes are unknown, nothing"),
        pytest.param(None, [], id="where none is needed, no such row"),
    ],
)
def test_a_decision_names_the_free_gpus(free: int | NoSignal | None, want: list[tuple[object, ...]]) -> None:
    rows = Deployment(free=free).tick(QUIET).inputs
    assert [(r.value, r.state, r.age_s) for r in rows if r.name == "replicas with a free GPU"] == want


@pytest.mark.parametrize(
    ("waiting", "want"),
    [
        pytest.param(
            0, "which GPUs are free is not known, as nodes may not be read, the scheduler decides", id="it grows"
        ),
        pytest.param(
            2,
            "8 wanted, but for 2 of 4 there is no node yet, and which GPUs are free is not known, as nodes may not be "
            "read",
            id="it waits",
        ),
    ],
)
def test_a_decision_on_unknown_gpus_says_so(waiting: int, want: str) -> None:
    got = Deployment(free=NO_SIGNAL, waiting=waiting).tick(replace(QUIET, demand=Fresh(75.0))).message
    assert got.endswith(f"; {want}")


def test_a_decision_says_how_much_comes_and_what_a_replica_carries() -> None:
    got = Deployment().tick(replace(QUIET, demand=Fresh(75.0))).message
    assert got.startswith("75.0 requests/s now")
    assert got.endswith("at 10.0 for a replica")


def test_a_burst_is_held_over() -> None:
    found = Deployment(size=2)
    assert [found.at(15.0).size for _ in range(12)] == [2] * 12
    assert found.at(75.0).size >= 8, "up at once"
    for _ in range(5):
        found.at(75.0)
    sizes = [found.at(15.0).size for _ in range(240)]
    assert sizes[60] >= 7, "five minutes after"
    assert 2 <= sizes[-1] < 7, "twenty minutes after"
    assert sizes == sorted(sizes, reverse=True)


def test_a_minute_without_measurements_is_no_burst() -> None:
    found = Deployment()
    for _ in range(24):
        found.at(35.0)
    for _ in range(12):
        assert found.tick(Signals(NoMetrics(), NoMetrics(), NoMetrics(), 4, 0)).size == 4
    assert [found.at(35.0).size for _ in range(12)] == [4] * 12


def test_nothing_is_removed_before_the_last_minute_has_been_seen() -> None:
    """Half of what was asked for is there because demand rose, and nobody sees it rise yet."""
    found = Deployment(size=2)
    for rate in (15.0, 15.0, 15.0, 15.0, 15.0, 15.0, 30.0, 35.0, 40.0, 45.0, 50.0):
        found.at(rate)
    size = found.size
    assert size >= 9
    found.memory = Memory.from_json(found.memory.to_json())
    found.tick(Signals(NoMetrics(), NoMetrics(), NoMetrics(), size, 0))
    assert [found.at(50.0).size for _ in range(12)] == [size] * 12


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("rate", [pytest.param(0.0, id="idle"), pytest.param(15.0, id="with little to do")])
def test_what_stands_at_first_sight_is_held_for_ten_minutes(rate: float, is_restarted: bool) -> None:
    deployment = Deployment(memory=Memory())
    assert (deployment.at(rate).size, deployment.at(rate).limit) == (4, Limit.HOLD)
    for second in range(10, 600, int(TICK_S)):
        assert deployment.at(rate).size == 4, second
        if is_restarted and second == 300:
            deployment.memory = Memory.from_json(deployment.memory.to_json())
    assert deployment.at(rate).size < 4


def test_what_was_added_since_first_sight_may_go_at_once() -> None:
    deployment = Deployment(memory=Memory())
    for _ in range(30):
        deployment.at(15.0)
    assert deployment.at(15.0, queued=8000.0).size > 4
    assert deployment.at(15.0).size == 4


@pytest.mark.parametrize("step_s", [60.0, -60.0, 86400.0, -86400.0, 1e9])
def test_a_clock_that_is_set_changes_nothing(step_s: float) -> None:
    sizes = []
    for step in (0.0, step_s):
        found = Deployment(size=2)
        for tick in range(150):
            if tick == 40:
                found.now += step
            found.at(75.0 if 20 <= tick < 30 else 15.0)
            sizes.append(found.size)
    plain, stepped = sizes[:150], sizes[150:]
    # A level looks for its best expert at every 24th tick; one that has no time to pass puts that off.
    assert sum(a != b for a, b in zip(plain, stepped, strict=True)) <= 27


def test_tokens_are_a_demand_like_any_other() -> None:
    requests, tokens = Deployment(size=2), Deployment(size=2, carries=Capacity(10_000.0, 9000.0, 15_000.0))
    for rate in [15.0] * 20 + [75.0] * 20 + [15.0] * 150:
        requests.at(rate)
        tokens.at(1000.0 * rate)
        assert tokens.size >= math.ceil(rate / 10.0)


@pytest.mark.parametrize(
    ("most", "over"),
    [
        pytest.param(49, 0.0, id="a level for each replica beyond the first"),
        pytest.param(96, 0.05, id="twice as many replicas as levels"),
        pytest.param(1000, 0.125, id="the most that the API takes"),
    ],
)
def test_a_group_of_replicas_is_little_beside_what_the_demand_needs(most: int, over: float) -> None:
    for need in (1, 2, 3, 4, 10, most // 2, most - 1, most):
        found = Deployment(size=1, bounds=replace(BOUNDS, most=most))
        for _ in range(3):
            found.at(10.0 * (need - 0.2) / 1.05)
        assert need <= found.size <= need * (1.0 + over), f"{need} of {most} are needed"


@pytest.mark.parametrize("cold_start_s", [10.0, 60.0, 180.0])
def test_constant_load_keeps_a_constant_size(cold_start_s: float) -> None:
    for level in (0.2, 1.0, 2.5, 3.0, 4.9, 7.5):
        found = Deployment(size=1, carries=Capacity(50.0, 48.0, 60.0), cold_start_s=cold_start_s)
        source = random.Random(level)
        sizes = []
        for _ in range(240):
            sizes.append(found.at(_poisson(source, 50.0 * level * TICK_S) / TICK_S).size)
        settled = sizes[120:]
        assert sum(a != b for a, b in pairwise(settled)) <= 1, f"at {level} replicas' load"
        assert math.ceil(level) <= settled[-1] <= math.ceil(1.05 * level) + 1, f"at {level} replicas' load"


def test_what_rises_within_the_noise_of_large_requests_is_no_rise() -> None:
    """300 rows/s and then 400: of one row each that is a rise; of 32 rows each, 9 requests a second and then 12."""
    sizes = []
    for dispersion in (1.0, 32.0):
        found = Deployment(carries=Capacity(100.0, 96.0, 120.0), dispersion=dispersion)
        for rate in (*[300.0] * 20, *[400.0] * 5):
            found.at(rate)
        sizes.append(found.size)
    assert sizes[0] > sizes[1]


def _poisson(source: random.Random, mean: float) -> int:
    """Return a count of `mean` and of that variance, by the normal distribution where there are many."""
    return max(0, round(source.gauss(mean, math.sqrt(mean))))


measurements = st.one_of(
    st.builds(Fresh, st.floats(0.0, 200.0) | st.sampled_from([math.nan, math.inf, -1.0]), st.floats(0.0, 15.0)),
    st.builds(Stale, st.floats(0.0, 200.0), st.floats(15.0, 600.0)),
    st.builds(NoTraffic),
    st.builds(NoMetrics),
)
worlds = st.lists(
    st.tuples(
        st.builds(Signals, measurements, measurements, measurements, st.integers(0, 12), st.integers(0, 12)),
        st.none() | st.just(NO_SIGNAL) | st.integers(0, 8),
        st.integers(0, 2),
        st.sampled_from([CARRIES, CARRIES, CARRIES.derated(0.6), NO_SIGNAL]),
        st.sampled_from([0.0, 5.0, 5.0, 65.0, -60.0, 600.0]),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(worlds, st.integers(1, 4), st.integers(0, 9))
def test_bounds_hold_in_any_world(
    world: Iterable[tuple[Signals, int | NoSignal | None, int, Capacity | NoSignal, float]], least: int, more: int
) -> None:
    found = Deployment(size=least, bounds=Scaling(least, least + more, 0.2, 0.95))
    for signals, free, waiting, carries, step_s in world:
        signals = replace(signals, heard=min(signals.heard, signals.ready))
        found.free, found.waiting, found.carries, found.now = free, waiting, carries, found.now + step_s
        before = found.size
        got = found.tick(signals)
        assert least <= got.size <= least + more
        room = (0 if found.waiting else None) if isinstance(free, NoSignal) else free
        assert room is None or got.size <= before + room
        demand = signals.demand
        is_known = isinstance(demand, NoTraffic) or (isinstance(demand, Fresh) and 0.0 <= demand.value < math.inf)
        if (
            not is_known
            or isinstance(carries, NoSignal)
            or 4 * (signals.ready - signals.heard) >= max(1, signals.ready)
        ):
            assert got.size >= before, "nothing is removed on missing data"
        if got.size < before:
            assert isinstance(carries, Capacity)
            assert found.memory.rates.mean(15.0) <= got.size * carries.shrink_rate + 1e-6, "the survivors carry it"
