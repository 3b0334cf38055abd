"""Is the evidence fair, whatever the order and the batches? Expectations are summed over every possible outcome."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel_operator.decide.quality import cohorts, deviations, differences, floors
from evenkeel_operator.decide.quality.cohorts import COHORT, Answers, Cohort, Pairs
from evenkeel_operator.decide.quality.cusum import Cusum
from evenkeel_operator.decide.quality.differences import Arms
from evenkeel_operator.decide.quality.evidence import Evidence, Objective, Trial, gather, moments
from evenkeel_operator.decide.quality.measures import Average, Measure, Metric, classification, regression
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal
from evenkeel_runtime.receipts import Assignment

START = datetime(2026, 1, 5, tzinfo=UTC)
HORIZON = timedelta(hours=1)
LATER = START + timedelta(days=30)
DRAWN = {"old": Assignment.STABLE, "new": Assignment.CANARY}
ACCURACY = classification(Metric.ACCURACY, 2)
F1 = classification(Metric.F1, 2, Average.BINARY)
MACRO = classification(Metric.F1, 2, Average.MACRO)


def at(cohort: int) -> datetime:
    return START + cohort * COHORT


def right(hits: int, of: int) -> tuple[int, int, int, int]:
    return hits, of - hits, 0, 0


def binomial(k: int, n: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


def splits(stable: float, canary: float, n: int) -> Iterator[tuple[float, Arms]]:
    for s, c in product(range(n + 1), range(n + 1)):
        yield binomial(s, n, stable) * binomial(c, n, canary), Arms(START, right(s, n), right(c, n))


@pytest.mark.parametrize("stable", [0.55, 0.9, 0.99])
@pytest.mark.parametrize("prior", [0.6, 0.95])
def test_a_bet_on_two_arms_is_fair_at_its_boundary(stable: float, prior: float) -> None:
    """At D = -m neither "worse" nor "not worse" wins in the mean, wherever both arms are and whatever was expected."""
    worse = not_worse = 0.0
    for chance, arms in splits(stable, stable - 0.05, 12):
        (point,) = differences.split(ACCURACY, 0.05, prior, (0,) * 4, [arms])
        worse += chance * math.exp(point.worse)
        not_worse += chance * math.exp(point.not_worse)
    assert worse <= 1 + 1e-9
    assert not_worse <= 1 + 1e-9


def test_both_bets_win_where_they_should() -> None:
    worse = sum(
        chance * differences.split(ACCURACY, 0.01, 0.9, (0,) * 4, [arms])[0].worse
        for chance, arms in splits(0.9, 0.4, 12)
    )
    not_worse = sum(
        chance * differences.split(ACCURACY, 0.01, 0.5, (0,) * 4, [arms])[0].not_worse
        for chance, arms in splits(0.4, 0.9, 12)
    )
    assert worse > 0.5
    assert not_worse > 0.5


def test_a_bet_on_pairs_is_fair_at_its_boundary() -> None:
    n, only_stable, only_canary = 24, 0.10, 0.06
    worse = not_worse = 0.0
    for s in range(n + 1):
        for c in range(n + 1 - s):
            chance = (
                math.comb(n, s) * math.comb(n - s, c) * only_stable**s * only_canary**c
                * (1 - only_stable - only_canary) ** (n - s - c)
            )  # fmt: skip
            row = Pairs(START, {(0, 1): s, (1, 0): c, (0, 0): n - s - c})
            (point,) = differences.mirrored(ACCURACY, 0.04, 0.9, (0,) * 4, [row])
            worse += chance * math.exp(point.worse)
            not_worse += chance * math.exp(point.not_worse)
    assert worse == pytest.approx(1)
    assert not_worse == pytest.approx(1)


@pytest.mark.parametrize(
    ("measure", "cells", "floor"),
    [
        pytest.param(ACCURACY, (0.9, 0.1, 0.0, 0.0), 0.9, id="accuracy"),
        # TN, FN, FP, TP: F1 = 2·.3 / (2·.3 + .1 + .1) = .75
        pytest.param(F1, (0.5, 0.1, 0.1, 0.3), 0.75, id="F1"),
    ],
)
def test_a_bet_on_a_floor_is_fair_at_the_floor(measure: Measure, cells: tuple[float, ...], floor: float) -> None:
    """One label's expectation is 1 for each stake, so that of any number of labels is."""
    got = 0.0
    for first, second in product(range(4), range(4)):
        labels = [0, 0, 0, 0]
        labels[first] += 1
        labels[second] += 1
        test = floors.Floor(measure, floor)
        test.add(labels)
        got += cells[first] * cells[second] * math.exp(test.log_e)
    assert got == pytest.approx(1)


def test_a_swing_by_the_hour_is_not_taken_for_a_difference() -> None:
    """Simpson's paradox: good hours with little of the canary, bad ones with much; within each hour both are alike."""
    arms = [
        Arms(at(0), right(950, 1000), right(95, 100)),
        Arms(at(1), right(70, 100), right(700, 1000)),
    ]
    (*_, last) = differences.split(ACCURACY, 0.01, 0.9, (0,) * 4, arms, changes=[at(1)])
    assert last.worse < 0
    pooled = [Arms(at(0), right(1020, 1100), right(795, 1100))]
    assert differences.split(ACCURACY, 0.01, 0.9, (0,) * 4, pooled)[0].worse > 20, "which a pooled test would do"


def test_a_cohort_in_which_the_share_changes_compares_nothing() -> None:
    arms = [Arms(at(i), right(90, 100), right(50, 100)) for i in range(3)]
    got = differences.split(ACCURACY, 0.01, 0.9, (0,) * 4, arms, changes=[at(1) + COHORT / 2])
    assert [point.start for point in got] == [at(0), at(2)]


def test_f1_is_compared_and_not_accuracy() -> None:
    """Accuracy .950 -> .945 while F1 rises from .706 to .744: a canary that is better must not be called worse."""
    stable, canary = (890, 40, 10, 60), (865, 20, 35, 80)
    assert isinstance(F1.value(stable), float)
    arms = [Arms(at(i), stable, canary) for i in range(40)]
    (*_, by_f1) = differences.split(F1, 0.0, 0.7, (0,) * 4, arms)
    (*_, by_accuracy) = differences.split(ACCURACY, 0.0, 0.9, (0,) * 4, arms)
    assert by_f1.not_worse > 3
    assert by_f1.worse < 0
    assert by_accuracy.worse > 0


@pytest.mark.parametrize("measure", [ACCURACY, F1, MACRO, classification(Metric.F1, 2, Average.WEIGHTED)])
def test_interval_holds_the_value_and_narrows(measure: Measure) -> None:
    before = 1.0
    for scale in (1, 10, 100):
        got = floors.interval(measure, [50 * scale, 4 * scale, 6 * scale, 40 * scale])
        assert not isinstance(got, NoSignal)
        assert got.lower < got.value < got.upper
        assert got.upper - got.lower < before
        before = got.upper - got.lower


@pytest.mark.parametrize(
    ("counts", "want"), [pytest.param((60, 0, 0, 40), 1.0, id="all"), pytest.param((0, 60, 40, 0), 0.0, id="none")]
)
def test_interval_of_a_ratio_at_its_end_ends_there(counts: tuple[int, ...], want: float) -> None:
    got = floors.interval(ACCURACY, counts)
    assert not isinstance(got, NoSignal)
    assert want in (got.lower, got.upper)
    assert 0 < got.upper - got.lower < 0.2


@given(hits=st.integers(0, 10**6), misses=st.integers(1, 10**6))
def test_interval_ends_where_the_test_of_a_floor_refuses(hits: int, misses: int) -> None:
    got = floors.interval(ACCURACY, right(hits, hits + misses), alpha=0.05)
    assert not isinstance(got, NoSignal)
    near = (got.upper - got.value) * 1e-4 + 1e-8
    for floor, is_refused in ((got.upper - near, False), (got.upper + near, True)):
        if floor < 1:
            test = floors.Floor(ACCURACY, floor)
            test.add(right(hits, hits + misses))
            assert (test.log_e >= math.log(2 / 0.05)) == is_refused


def test_interval_of_an_error_has_its_ends_in_order() -> None:
    rmse = regression(Metric.RMSE, 2.0)
    got = floors.interval(rmse, rmse.counts(deviations.sums([(-2, 90, 18.0, 3.6), (1, 10, 12.0, 14.4)])))
    assert not isinstance(got, NoSignal)
    assert got.lower < got.value < got.upper
    assert got.value == pytest.approx(math.sqrt(0.18))
    assert got.labels == 100
    assert floors.interval(ACCURACY, (0, 0, 0, 0)) is NO_SIGNAL


def test_detector_has_no_inertia() -> None:
    detector, test = Cusum(ACCURACY, 0.9), floors.Floor(ACCURACY, 0.9)
    for _ in range(500):
        detector.add(right(19, 20))
        test.add(right(19, 20))
    for _ in range(60):
        detector.add(right(16, 20))
        test.add(right(16, 20))
    assert detector.log_e > math.log(35_040)
    assert test.log_e < 0


def objective(measure: Measure = ACCURACY, floor: float = 0.5) -> Objective:
    return Objective(measure, floor, 0.01, HORIZON)


def rows(seed: int, count: int, stable: float, canary: float) -> list[Cohort]:
    rng = random.Random(seed)
    found = []
    for i in range(count):
        for name, p in (("old", stable), ("new", canary)):
            hits = sum(rng.random() < p for _ in range(40))
            found.append(Cohort(name, at(i), (20, 20), (hits // 2, 40 - hits, 0, hits - hits // 2), DRAWN[name]))
    return found


def trial(found: list[Cohort], **more: object) -> Trial:
    return Trial("old", "new", START, START + timedelta(days=7), cohorts=tuple(found), **more)  # type: ignore[arg-type]


def gathered(found: list[Cohort], now: datetime = LATER, measure: Measure = ACCURACY) -> Evidence:
    return gather((objective(measure),), trial(found), now, 0.01, 0.05)


def halved(row: Cohort, rng: random.Random) -> list[Cohort]:
    predictions = tuple(rng.randint(0, n) for n in row.predictions)
    labels = tuple(rng.randint(0, int(n)) for n in row.labels)
    rest = replace(
        row,
        predictions=tuple(a - b for a, b in zip(row.predictions, predictions, strict=True)),
        labels=tuple(a - b for a, b in zip(row.labels, labels, strict=True)),
    )
    return [replace(row, predictions=predictions, labels=labels), rest]


@given(seed=st.integers(0, 10**6), measure=st.sampled_from([ACCURACY, F1, MACRO]))
@settings(max_examples=10)
def test_rows_in_any_order_and_any_pieces_give_the_same_evidence(seed: int, measure: Measure) -> None:
    rng = random.Random(seed)
    found = rows(seed, 12, 0.9, 0.8)
    pieces = [piece for row in found for piece in halved(row, rng)]
    rng.shuffle(pieces)
    assert gathered(pieces, measure=measure) == gathered(found, measure=measure)


def test_who_slept_decides_as_who_looked_each_time() -> None:
    """A refusal that was reached once stands, though later labels speak for the canary: it is a matter of the rows."""
    found = rows(3, 16, 0.95, 0.55) + [replace(r, start=r.start + 16 * COHORT) for r in rows(4, 16, 0.55, 0.95)]
    looked = [gathered(found, at(i) + HORIZON) for i in range(1, 40)]
    first = next(e for e in looked if e.refused_at is not None)
    assert first.refused_at is not None
    assert first.refused_at < at(16) + HORIZON
    assert gathered(found) == first


def test_the_way_of_the_evidence_is_what_was_gathered_at_each_time() -> None:
    """It goes on beyond the threshold, where the decision stands still."""
    found = rows(3, 16, 0.95, 0.55) + [replace(r, start=r.start + 16 * COHORT) for r in rows(4, 16, 0.55, 0.95)]
    way = list(moments((objective(),), trial(found), LATER))
    refused_at = gathered(found).refused_at
    assert [moment.at for moment in way] == sorted({moment.at for moment in way})
    assert refused_at is not None
    assert way[-1].at > refused_at
    for moment in way:
        got = gathered(found, moment.at)
        if moment.at <= refused_at:
            assert (got.against, got.log_e, got.shown) == (moment.against, moment.log_e, moment.shown)


def test_a_label_counts_once_its_cohort_is_mature() -> None:
    found = rows(1, 1, 0.9, 0.9)
    assert gathered(found, cohorts.mature_at(START, HORIZON) - timedelta(seconds=1)).labels == 0
    assert gathered(found, cohorts.mature_at(START, HORIZON)).labels == 40


def test_a_floor_that_the_stable_revision_misses_too_is_drift() -> None:
    found = rows(5, 40, 0.7, 0.7)
    got = gather((objective(floor=0.9),), trial(found), LATER, 0.01, 0.05)
    assert got.refused_at is None
    assert got.is_drift_suspected


def test_a_floor_that_the_stable_revision_meets_is_refused() -> None:
    found = rows(5, 60, 0.95, 0.7)
    wide = Objective(ACCURACY, 0.9, 0.5, HORIZON)
    got = gather((wide,), trial(found), LATER, 0.01, 0.05)
    assert got.refused_at is not None
    assert got.strongest.test == "floor"


def test_a_good_day_before_the_data_changed_does_not_vouch_for_the_stable_revision() -> None:
    found = []
    for i in range(90):
        for name, hits in {"old": 38, "new": 36}.items() if i < 60 else {"old": 35, "new": 32}.items():
            found.append(Cohort(name, at(i), (20, 20), (hits // 2, 40 - hits, 0, hits - hits // 2), DRAWN[name]))
    assert (60 * 38 + 30 * 35) / (90 * 40) > 0.92, "over all, the stable one meets the floor"
    wide = Objective(ACCURACY, 0.9, 0.5, HORIZON)
    got = gather((wide,), trial(found), LATER, 0.01, 0.05)
    assert got.refused_at is None
    assert got.is_drift_suspected


def test_all_tests_share_one_alpha() -> None:
    got = gather((objective(), objective(F1)), trial([], slow_budget=0.01), LATER, 0.01, 0.05)
    assert len(got.against) == 7
    assert sum(finding.share for finding in got.against) == pytest.approx(1)


@pytest.mark.parametrize(
    ("slow", "failed", "want"),
    [
        pytest.param(0, 60, "failing", id="every sample fails"),
        pytest.param(40, 0, "slow", id="two in three samples are slow"),
        pytest.param(0, 0, None, id="every sample is good"),
    ],
)
def test_answers_are_judged_at_once(slow: int, failed: int, want: str | None) -> None:
    found = []
    for minute in range(5):
        start = START + timedelta(minutes=minute)
        found += [Answers("old", start, 540, 3, 0), Answers("new", start, 60, slow, failed)]
    known = trial([], answers=tuple(found), slow_budget=0.01)
    got = gather((objective(),), known, START + timedelta(minutes=5), 0.01, 0.05)
    assert (got.refused_at is not None) == (want is not None)
    if want is not None:
        assert got.strongest.test.startswith(want)
        assert got.refused_at is not None
        assert got.refused_at <= START + timedelta(minutes=2)


def test_coverage_that_differs_between_classes_is_told_and_weighted() -> None:
    row = Cohort("old", START, (100, 100), (9, 1, 24, 56))
    got = cohorts.coverage([row], 2)
    assert got.by_class == {0: 0.1, 1: 0.8}
    assert got.total == pytest.approx(0.45)
    assert got.is_skewed
    # Class 0's ten labels stand for eight times as many, of which five are believed.
    assert cohorts.weighted_value(ACCURACY, [row], 2) == pytest.approx((9 * 5 + 56) / (10 * 5 + 80))
    assert cohorts.weighted_value(ACCURACY, [], 2) is NO_SIGNAL
    assert cohorts.coverage([], 2).total is NO_SIGNAL
    few = cohorts.coverage([Cohort("old", START, (100, 3), (50, 0, 0, 0))], 2)
    assert few.by_class == {0: 0.5, 1: 0.0}
    assert not few.is_skewed, "none of three is no skew"
