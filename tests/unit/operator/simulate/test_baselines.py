"""Do the ports of other autoscalers decide as those projects' own tests say?

Numbers only. kubernetes/kubernetes @00067268967e: pkg/controller/podautoscaler/{replica_calculator,horizontal}_test.go.
knative/serving @01f103ef3c89: pkg/autoscaler/scaling/autoscaler_test.go. ray-project/ray @01624ad4bacd:
python/ray/serve/tests/unit/test_autoscaling_policy.py. KEDA: the documentation of its queue scalers. A vector's name is
that of the test it is from.
"""

from __future__ import annotations

import numpy as np
import pytest

from evenkeel_operator.simulate.baselines import hpa
from evenkeel_operator.simulate.baselines.highest import Highest
from evenkeel_operator.simulate.baselines.hpa import Behaviour
from evenkeel_operator.simulate.baselines.kpa import TICK_S, Decider, Kpa, Limits
from evenkeel_operator.simulate.baselines.ray_serve import PERIOD_S, Delays
from evenkeel_operator.simulate.clients import OpenClients
from evenkeel_operator.simulate.fluid import Fleet, World, run
from evenkeel_operator.simulate.load import Floats
from evenkeel_operator.simulate.profile import REFERENCE

MINUTE_S = 60.0


def one(value: float) -> Floats:
    return np.array([[value]], np.float32)


@pytest.mark.parametrize(
    ("usage", "target", "replicas", "ready", "want"),
    [
        pytest.param(20000, 15000, 3, 3, 4, id="ScaleUpCMObject"),
        pytest.param(50000, 10000, 3, 1, 5, id="ScaleUpCMObjectIgnoresUnreadyPods"),
        pytest.param(8600, 4400, 1, 1, 2, id="ScaleUpCMExternal"),
        pytest.param(8600, 4400, 3, 1, 2, id="ScaleUpCMExternalIgnoresUnreadyPods"),
        pytest.param(12000, 20000, 5, 5, 3, id="ScaleDownCMObject"),
        pytest.param(8600, 14334, 5, 5, 3, id="ScaleDownCMExternal"),
        pytest.param(20666, 20000, 3, 3, 3, id="ToleranceCMObject"),
        pytest.param(8600, 8888, 3, 3, 3, id="ToleranceCMExternal"),
    ],
)
def test_hpa_on_a_value(usage: float, target: float, replicas: int, ready: int, want: int) -> None:
    assert hpa.value(one(usage), one(target), one(replicas), one(ready)) == one(want)


@pytest.mark.parametrize(
    ("total", "target", "replicas", "want"),
    [
        pytest.param(20000, 5000, 3, 4, id="ScaleUpCMPerPodObject"),
        pytest.param(8600, 2150, 3, 4, id="ScaleUpPerPodCMExternal"),
        pytest.param(6000, 2000, 5, 3, id="ScaleDownPerPodCMObject"),
        pytest.param(8600, 2867, 5, 3, id="ScaleDownPerPodCMExternal"),
        pytest.param(20166, 5000, 4, 4, id="TolerancePerPodCMObject"),
        pytest.param(8600, 2900, 3, 3, id="TolerancePerPodCMExternal"),
        pytest.param(30, 10, 1, 3, id="KEDA: 30 messages, of which one pod can handle 10"),
    ],
)
def test_hpa_on_an_average_value(total: float, target: float, replicas: int, want: int) -> None:
    assert hpa.average_value(one(total), one(target), one(replicas)) == one(want)


@pytest.mark.parametrize(
    ("usage", "target", "replicas", "ready", "want"),
    [
        pytest.param(50, 30, 3, 3, 5, id="ScaleUp"),
        pytest.param(60, 30, 3, 2, 4, id="ScaleUpUnreadyLessScale"),
        pytest.param(40, 30, 3, 1, 3, id="ScaleUpUnreadyNoScale"),
        pytest.param(28, 50, 5, 5, 3, id="ScaleDown"),
        pytest.param(30, 50, 5, 3, 2, id="ScaleDownIncludeUnreadyPods"),
        pytest.param(102, 100, 3, 3, 3, id="Tolerance"),
    ],
)
def test_hpa_on_a_resource(usage: float, target: float, replicas: int, ready: int, want: int) -> None:
    assert hpa.pods(one(usage), one(target), one(replicas), one(ready)) == one(want)


@pytest.mark.parametrize(
    ("before", "proposal", "want"),
    [
        pytest.param([], 5, 5, id="NormalizeDesiredReplicas: empty log"),
        pytest.param([(4, 2.0), (5, 1.0)], 3, 5, id="NormalizeDesiredReplicas: stabilize"),
        pytest.param([(1, 2.0), (2, 1.0)], 3, 3, id="NormalizeDesiredReplicas: no stabilize"),
        pytest.param([(10, 10.0), (9, 9.0)], 3, 3, id="NormalizeDesiredReplicas: old recommendations"),
    ],
)
def test_hpa_stabilises_removals(before: list[tuple[int, float]], proposal: int, want: int) -> None:
    """`before` are recommendations and how many minutes ago; a lower one stands in between, as one comes each sync."""
    behaviour = Behaviour(np.array([hpa.STABILISATION_S]))
    size = one(10)
    by_sync = {round(ago * MINUTE_S / hpa.SYNC_S): value for value, ago in before}
    for ago in range(max(by_sync, default=0), 0, -1):
        behaviour.apply(one(by_sync.get(ago, 1)), size)
    assert behaviour.apply(one(proposal), size) == one(want)


@pytest.mark.parametrize(("replicas", "want"), [(1, 5), (3, 7), (4, 8), (10, 20)])
def test_hpa_adds_four_pods_or_doubles_in_a_period(replicas: int, want: int) -> None:
    """The default policies of autoscaling/v2: the larger of 4 pods and 100 % in 15 s."""
    assert Behaviour(np.array([0])).apply(one(1000), one(replicas)) == one(want)


def kpa(target: float, ready: int = 1, panic: float = 2.0, up: float = 10.0, down: float = 10.0) -> Decider:
    return Decider([target], [60.0], [0.0], Limits(panic, up, down), first_ready=ready)


@pytest.mark.parametrize(
    ("decider", "story"),
    [
        pytest.param(kpa(10), [(0, 50, 10, 1, 5), (0, 100, 10, 1, 10)], id="StableModeIncreaseWithConcurrencyDefault"),
        pytest.param(kpa(10), [(0, 50, 50, 1, 5), (0, 100, 99, 1, 10)], id="StableModeIncreaseWithRPS"),
        pytest.param(
            kpa(1),
            [(0, 11, 25, 10, 25), (30, 30, 41, 40, 41), (62, 50, 56, 55, 50)],
            id="UnpanicAfterSlowIncrease",
        ),
        pytest.param(kpa(1), [(0, 11, 25, 10, 25), (30, 30, 80, 40, 80)], id="ExtendPanicWindow"),
        pytest.param(kpa(10), [(0, 100, 100, 8, 10), (0, 50, 50, 8, 5)], id="StableModeDecrease"),
        pytest.param(kpa(10), [(0, 1, 0, 1, 1), (0, 0, 0, 1, 0)], id="StableModeNoTrafficScaleToZero"),
        pytest.param(
            kpa(1),
            [(0, 6, 6, 1, 6), (0, 36, 36, 6, 36), (1, 216, 216, 36, 216), (1, 1296, 1296, 216, 1296)],
            id="PanicModeExponentialTrackAndStabilize",
        ),
        pytest.param(kpa(10), [(0, 50, 100, 1, 10)], id="PanicModeDoublePodCount"),
        pytest.param(kpa(1, up=1.1), [(0, 3, 3.1, 2, 3)], id="StableModeIncreaseWithSmallScaleUpRate"),
        pytest.param(kpa(10, down=1.1), [(0, 1, 1, 100, 90)], id="StableModeDecreaseWithSmallScaleDownRate"),
        pytest.param(
            kpa(10),
            [(0, 100, 100, 1, 10), (0, 100, 1000, 10, 100), (30, 1, 1, 10, 100), (61, 1, 1, 10, 1)],
            id="PanicThenUnPanicScaleDown",
        ),
        pytest.param(kpa(10), [(0, 1000, 1001, 1, 10), (0, 1000, 1001, 10, 100)], id="RateLimitScaleUp"),
        pytest.param(kpa(10), [(0, 1, 1, 100, 10), (0, 1, 1, 10, 1)], id="RateLimitScaleDown"),
        pytest.param(kpa(10), [(0, 1000, 888, 0, 10)], id="UseOnePodAsMinimumIfEndpointsNotFound"),
        pytest.param(kpa(1, ready=5), [(0, 50, 30, 5, 50)], id="PanicStableLargerThanPanic"),
        pytest.param(kpa(1, ready=5), [(0, 20, 30, 5, 30)], id="PanicStableLessThanPanic"),
    ],
)
def test_kpa(decider: Decider, story: list[tuple[float, float, float, int, int]]) -> None:
    """Seconds, the means of the stable and of the panic window, pods that are ready; pods wanted."""
    for now, stable, panic, ready, want in story:
        assert decider.decide(one(stable), one(panic), one(ready), now) == one(want), f"at {now} s"


def test_kpa_delays_removals() -> None:
    """ScaleDownDelay, the simple story: 40 in flight at 2 s, none later; a delay of five minutes."""
    decider = Decider([10.0], [60.0], [300.0], Limits(100.0, 10.0, 10.0))
    found = {}
    for now in range(TICK_S, 310, TICK_S):
        load = one(40.0 if now == TICK_S else 0.0)
        # Pods are counted as none throughout, which that test does too.
        found[now] = float(decider.decide(load, load, one(0), now)[0, 0])
    assert (found[2], found[300], found[302]) == (4, 4, 0)


def test_kpa_without_a_delay_removes_at_once() -> None:
    decider = Decider([10.0], [60.0], [0.0], Limits(100.0, 10.0, 10.0))
    assert decider.decide(one(40), one(40), one(0), 0.0) == one(4)
    assert decider.decide(one(20), one(20), one(0), 0.5) == one(2)


@pytest.mark.parametrize(
    ("share", "is_steady"),
    [
        pytest.param(0.5, True, id="half of the capacity: E is 1.3"),
        pytest.param(0.7, True, id="the default: E is 1.8"),
        pytest.param(0.9, False, id="nine tenths: E is 3.6, as in Knative itself"),
    ],
)
def test_kpa_on_concurrency_stands_where_the_elasticity_is_below_two(share: float, is_steady: bool) -> None:
    rate = REFERENCE.capacity.rate
    around = [REFERENCE.outstanding(x * share * rate) for x in (0.93, 1.07)]
    elasticity = np.log(around[1] / around[0]) / np.log(1.07 / 0.93)
    assert (elasticity < 2.0) == is_steady
    counts = np.full((2400, 1), 6.3 * rate, np.float32)
    kpa_of = Kpa([REFERENCE.outstanding(share * rate)], [60], [0])
    got = run(
        World(REFERENCE, np.array([10.0], np.float32)), [Fleet(kpa_of, 60)], OpenClients(counts), 2400, keep_every_s=2
    )
    assert got.kept is not None
    sizes = got.kept.asked[600:, 0, 0]
    assert (float(sizes.max() - sizes.min()) <= 1.0) == is_steady


def test_ray_serve_waits_for_both_delays_without_a_break() -> None:
    """test_upscale_downscale_delay: up after 30 s, down after 600 s, each begun anew after the opposite was wanted."""
    up, down = round(30.0 / PERIOD_S), round(600.0 / PERIOD_S)
    delays = Delays([30.0], [600.0])
    high, low, target = one(2), one(1), one(1)
    assert [float(delays.apply(high, target)[0, 0]) for _ in range(up + 1)] == [1.0] * up + [2.0]
    assert [float(delays.apply(low, high)[0, 0]) for _ in range(down + 1)] == [2.0] * down + [1.0]
    for _ in range(up // 2):
        assert delays.apply(high, target) == one(1)
    delays.apply(one(0), target)
    assert [float(delays.apply(high, target)[0, 0]) for _ in range(up + 1)] == [1.0] * up + [2.0]


@pytest.mark.parametrize("delay_s", [30.0, 0.0])
def test_ray_serve_on_fluctuating_requests(delay_s: float) -> None:
    """test_fluctuating_ongoing_requests: 100 and 40 by turns, 50 wanted of a replica."""
    delays = Delays([delay_s], [delay_s])
    for _ in range(50):
        assert delays.apply(one(2), one(1)) == one(1 if delay_s else 2)
        assert delays.apply(one(1), one(2)) == one(2 if delay_s else 1)


def test_ray_serve_does_not_shrink_before_its_delay() -> None:
    """test_replicas_delayed_startup: 100, then 123 wanted at once; 10 wanted while the delay is 100,000 s."""
    delays = Delays([0.0], [100_000.0])
    assert delays.apply(one(100), one(1)) == one(100)
    assert delays.apply(one(100), one(100)) == one(100)
    assert delays.apply(one(123), one(100)) == one(123)
    assert delays.apply(one(10), one(123)) == one(123)


def test_the_highest_of_a_window_is_that_of_its_values() -> None:
    windows = np.array([1, 2, 5, 5, 16])
    source = np.random.default_rng(3)
    values = source.integers(0, 50, (80, 2, len(windows))).astype(np.float32)
    highest = Highest(windows)
    for at in range(len(values)):
        got = highest.add(values[at])
        for column, window in enumerate(windows):
            want = values[max(0, at + 1 - window) : at + 1, :, column].max(axis=0)
            assert (got[:, column] == want).all()
