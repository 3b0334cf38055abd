"""Are errors of numbers judged as rightly as classes are, though nobody has kept a single one of them?"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel_operator.decide.quality import deviations, differences, floors
from evenkeel_operator.decide.quality.betting import FLOOR_STAKES, log_wealth
from evenkeel_operator.decide.quality.cohorts import Answers
from evenkeel_operator.decide.quality.counted import objectives, read
from evenkeel_operator.decide.quality.cusum import Cusum
from evenkeel_operator.decide.quality.differences import Arms
from evenkeel_operator.decide.quality.measures import Counts, Measure, Metric, regression
from evenkeel_operator.decide.quality.story import sentences
from evenkeel_operator.decide.quality.verdict import Progress, Rows, Rules, State, Step, Why, judge
from evenkeel_operator.decide.snapshot import NoSignal
from evenkeel_runtime.receipts import Assignment
from tests.unit.operator.decide.quality.test_counted import body, series, wanted
from tests.unit.operator.decide.quality.test_evidence import at

MAE = regression(Metric.MAE, 8.0)
RMSE = regression(Metric.RMSE, 8.0)
ROLLOUTS = 2000
OF_NORMAL = math.sqrt(2 / math.pi)
"""The mean absolute error of normal errors, in standard deviations; their RMSE is one."""


def summed(errors: Sequence[float]) -> deviations.Sums:
    """Return what the store keeps of errors."""
    return deviations.sums((math.frexp(e)[1] if e else deviations.ZERO, 1, e, e * e) for e in errors)


def of_normal(rng: random.Random, measure: Measure, spread: float, count: int) -> Counts:
    """Return the labels of one cohort whose errors are normal."""
    return measure.counts(summed([abs(rng.gauss(0.0, spread)) for _ in range(count)]))


def truth(measure: Measure, spread: float) -> float:
    return spread * (1.0 if measure.is_squared else OF_NORMAL)


@given(
    errors=st.lists(st.one_of(st.just(0.0), st.floats(1e-12, 60.0)), min_size=1, max_size=20),
    metric=st.sampled_from([Metric.MAE, Metric.RMSE]),
    cap=st.sampled_from([0.25, 0.5, 1.0, 8.0]),
    ceiling=st.floats(0.02, 0.98),
    sign=st.sampled_from([-1.0, 1.0]),
)
@settings(max_examples=200)
def test_sums_make_never_more_wealth_than_the_errors_themselves(
    errors: list[float], metric: Metric, cap: float, ceiling: float, sign: float
) -> None:
    """What the error rates rest on: either way that is bet, at every stake."""
    measure = regression(metric, cap)
    assert measure.cap is not None
    power = 2 if measure.is_squared else 1
    floor = measure.from_objective(ceiling * cap)
    of_cells = [sign * (gain - floor) for gain in measure.terms[0].gain]
    own = [sign * (1 - (min(e, measure.cap) / measure.cap) ** power - floor) for e in errors]
    counts = measure.counts(summed(errors))
    for stake in (share / max(abs(score) for score in of_cells) for share in FLOOR_STAKES):
        most = log_wealth([1] * len(errors), own, stake)
        assert log_wealth(counts, of_cells, stake) <= most + 1e-9


@given(
    errors=st.lists(st.floats(0.0, 100.0), min_size=1, max_size=30),
    metric=st.sampled_from([Metric.MAE, Metric.RMSE]),
    cap=st.sampled_from([0.25, 0.5, 1.0, 8.0]),
)
def test_sums_have_the_mean_of_the_errors_cut_off(errors: list[float], metric: Metric, cap: float) -> None:
    measure, capped = regression(metric, cap), [min(e, cap) for e in errors]
    mean = sum(e * e if measure.is_squared else e for e in capped) / len(errors)
    got = measure.value(measure.counts(summed(errors)))
    assert isinstance(got, float)
    assert measure.to_objective(got) == pytest.approx(math.sqrt(mean) if measure.is_squared else mean, abs=1e-6)
    assert sum(measure.counts(summed(errors))) == pytest.approx(len(errors))


@pytest.mark.parametrize(
    ("largest", "want"),
    [
        pytest.param(20.0, 32.0, id="is taken up to a power of two"),
        pytest.param(8.0, 8.0, id="is one already"),
        pytest.param(0.3, 0.5, id="is below one"),
    ],
)
def test_largest_error(largest: float, want: float) -> None:
    assert deviations.capped(largest) == want


@pytest.mark.parametrize("of_zero", [0, deviations.ZERO], ids=["by an earlier service", "by this one"])
@pytest.mark.parametrize(("zeros", "others"), [(9, 0), (0, 9)])
def test_a_perfect_prediction_is_none_that_is_off_by_more_than_the_largest_error(
    of_zero: int, zeros: int, others: int
) -> None:
    """The largest error is 0.5 at most: errors of 0 and those of a whole octave above it may have one exponent."""
    got = regression(Metric.MAE, 0.5).counts(
        deviations.sums([(of_zero, zeros, 0.0, 0.0), (0, others, 0.7 * others, 0.49 * others)])
    )
    assert (got[0], got[-1]) == pytest.approx((zeros, others))


def test_an_error_as_large_as_any_counts_as_the_largest() -> None:
    got = MAE.counts(deviations.sums([(54, 3, 4e16, 5e32), (-60, 2, 1e-18, 1e-36)]))
    assert got[-1] == 3
    assert sum(got[:2]) == pytest.approx(2)


@pytest.mark.parametrize("metric", list(Metric))
def test_less_is_better_of_errors_alone(metric: Metric) -> None:
    assert metric.is_met(0.5, 0.5)
    assert metric.is_met(0.4, 0.5) is metric.is_error
    assert metric.is_met(0.6, 0.5) is not metric.is_error


@pytest.mark.parametrize("measure", [MAE, RMSE], ids=lambda m: m.name)
def test_a_revision_at_its_ceiling_is_hardly_ever_refused(measure: Measure) -> None:
    """Looked at after each of 8 cohorts, with α 1 %, of a revision that is exactly as bad as it may be."""
    rng, refused = random.Random(7), 0
    ceiling = truth(measure, 1.0)
    for _ in range(ROLLOUTS):
        floor = floors.Floor(measure, ceiling)
        is_refused = False
        for _ in range(8):
            floor.add(of_normal(rng, measure, 1.0, 20))
            is_refused |= floor.log_e >= -math.log(0.01)
        refused += is_refused
    assert refused / ROLLOUTS <= 0.01


@pytest.mark.parametrize(
    ("measure", "of_mean"),
    [
        pytest.param(regression(Metric.MAE, 4.0), 1.0, id="MAE"),
        pytest.param(regression(Metric.RMSE, 4.0), math.sqrt(4 / 3), id="RMSE"),
    ],
)
def test_a_split_at_the_margin_is_hardly_ever_decided_wrongly(measure: Measure, of_mean: float) -> None:
    """A canary that is worse by exactly the margin: neither shown to be worse (1 %) nor to be not worse (5 %).

    Errors are uniform, their metric `of_mean` times their mean. Of MAE, what is asked is hard in every other cohort.
    """
    rng, margin = random.Random(11), 0.3

    def of_uniform(value: float, count: int) -> Counts:
        """Return labels of which the metric is `value`."""
        most = 2 * value / of_mean
        return measure.counts(summed([rng.uniform(0.0, most) for _ in range(count)]))

    worse = not_worse = 0
    history = of_uniform(1.0, 400)
    for _ in range(ROLLOUTS):
        arms = []
        for k in range(6):
            # RMSE is over all cohorts together, and a step of it another step of each cohort's squares.
            value = 1.0 if measure.is_squared or k % 2 else 1.5
            arms.append(Arms(at(k), of_uniform(value, 60), of_uniform(value + margin, 60)))
        points = differences.split(measure, margin, measure.from_objective(2.0), history, arms)
        worse += any(point.worse >= -math.log(0.01) for point in points)
        not_worse += any(point.not_worse >= -math.log(0.05) for point in points)
    assert worse / ROLLOUTS <= 0.01
    assert not_worse / ROLLOUTS <= 0.05


@pytest.mark.parametrize("measure", [MAE, regression(Metric.RMSE, 4.0)], ids=lambda m: m.name)
def test_what_is_clearly_so_is_shown(measure: Measure) -> None:
    """Of 60 cohorts of 20 labels in each arm: a canary 1.7 times as bad is worse, one that is alike is not worse.

    Where squares count, the largest error has to be near: eight times the spread, and most bets are too small.
    """
    rng, rollouts = random.Random(13), 20
    found = {"worse": 0, "not worse": 0, "ceiling": 0}
    for _ in range(rollouts):
        for spread, word in ((1.7, "worse"), (1.0, "not worse")):
            arms = [
                Arms(at(k), of_normal(rng, measure, 1.0, 20), of_normal(rng, measure, spread, 20)) for k in range(60)
            ]
            points = differences.split(measure, 0.25, measure.from_objective(1.5), (0,) * measure.cells, arms)
            if word == "worse":
                found[word] += any(point.worse >= -math.log(0.01) for point in points)
            else:
                found[word] += any(point.not_worse >= -math.log(0.05) for point in points)
        floor = floors.Floor(measure, truth(measure, 1.0))
        for _ in range(60):
            floor.add(of_normal(rng, measure, 1.3, 20))
        found["ceiling"] += floor.log_e >= -math.log(0.01)
    assert all(count >= 0.95 * rollouts for count in found.values()), found


@pytest.mark.parametrize("measure", [MAE, RMSE], ids=lambda m: m.name)
def test_interval_holds_the_truth_at_every_look(measure: Measure) -> None:
    rng, missed, rollouts = random.Random(17), 0, 100
    for _ in range(rollouts):
        counts: Counts = (0,) * measure.cells
        is_missed = False
        for _ in range(10):
            counts = [a + b for a, b in zip(counts, of_normal(rng, measure, 1.0, 30), strict=True)]
            found = floors.interval(measure, counts)
            assert not isinstance(found, NoSignal)
            is_missed |= not found.lower <= truth(measure, 1.0) <= found.upper
        missed += is_missed
    assert missed / rollouts <= 0.05


@pytest.mark.parametrize(
    ("stable", "canary", "ceiling", "margin", "state", "why"),
    [
        pytest.param(1.0, 1.0, 2.0, 0.4, State.PROMOTED, Why.NOT_WORSE, id="one that is alike is promoted"),
        pytest.param(1.0, 1.8, 3.0, 0.1, State.ROLLED_BACK, Why.WORSE, id="one with larger errors goes back"),
        pytest.param(1.8, 1.0, 3.0, 0.4, State.PROMOTED, Why.NOT_WORSE, id="one with smaller errors is promoted"),
        pytest.param(1.5, 2.1, 1.75, 0.6, State.ROLLED_BACK, Why.BELOW_FLOOR, id="one above its ceiling goes back"),
        pytest.param(1.9, 1.9, 1.5, 0.02, State.HELD, Why.DRIFT_SUSPECTED, id="like the stable one it is held"),
    ],
)
@pytest.mark.parametrize("measure", [MAE, RMSE], ids=lambda m: m.name)
def test_a_canary_is_judged_from_what_the_service_tells(
    measure: Measure, stable: float, canary: float, ceiling: float, margin: float, state: State, why: Why
) -> None:
    """Half a day of 80 labels a cohort; all in units of the metric of normal errors of spread one."""
    rng, unit = random.Random(23), truth(measure, 1.0)
    spreads = {"digits-old": (Assignment.STABLE, stable), "digits-new": (Assignment.CANARY, canary)}
    told = [
        series(
            revision,
            classes=0,
            assignment=drew,
            deviations={round(at(k).timestamp()): by_exponent(rng, spread) for k in range(48)},
        )
        for revision, (drew, spread) in spreads.items()
    ]
    known = read(body(*told))
    row = {"metric": measure.name, "ceiling": ceiling * unit, "maxError": 8, "margin": margin * unit, "horizon": "1h"}
    rules = Rules((Step(50, min_samples=1),), objectives(wanted(row), known, *spreads))
    minutes = [at(0) + timedelta(minutes=n) for n in range(60)]
    answers = tuple(Answers(revision, minute, 5, 0, 0) for revision in spreads for minute in minutes)
    rows = Rows("digits-old", "digits-new", known.cohorts(*spreads), None, answers)
    got = judge(rules, Progress(True, True, (at(0),)), rows, at(56))
    assert (got.state, got.why) == (state, why)
    assert any(f"ceiling {ceiling * unit:g}" in sentence for sentence in sentences(got))


def by_exponent(rng: random.Random, spread: float) -> list[tuple[int, int, float, float]]:
    """Return the sums of 40 normal errors, as the service tells them."""
    found: dict[int, list[float]] = {}
    for _ in range(40):
        error = abs(rng.gauss(0.0, spread))
        found.setdefault(math.frexp(error)[1], []).append(error)
    return [(exponent, len(some), sum(some), sum(e * e for e in some)) for exponent, some in found.items()]


def test_a_stable_revision_whose_error_grows_is_noticed() -> None:
    rng, detector = random.Random(19), Cusum(MAE, 1.0)
    for _ in range(200):
        detector.add(of_normal(rng, MAE, 1.0, 20))
    assert detector.log_e < math.log(20)
    for _ in range(60):
        detector.add(of_normal(rng, MAE, 1.6, 20))
    assert detector.log_e > math.log(35_040)
