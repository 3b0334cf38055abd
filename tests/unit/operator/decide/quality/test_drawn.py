"""Is a split canary compared with what was drawn beside it, however different the requests are that never were?"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel_operator.decide.quality import cohorts, verdict
from evenkeel_operator.decide.quality.cohorts import COHORT, Cohort
from evenkeel_operator.decide.quality.evidence import Objective, Trial, arms_of, drawn_of, gather, moments
from evenkeel_operator.decide.quality.measures import Metric, classification
from evenkeel_runtime.receipts import Assignment

START = datetime(2026, 1, 5, tzinfo=UTC)
LATER = START + timedelta(days=30)
HORIZON = timedelta(hours=1)
ACCURACY = classification(Metric.ACCURACY, 2)
STABLE, CANARY, UNASSIGNED = Assignment.STABLE, Assignment.CANARY, Assignment.UNASSIGNED
COUNT = 40


def row(revision: str, assignment: Assignment, hits: int, misses: int, cohort: int = 0) -> Cohort:
    labels = (hits, misses, 0, 0)
    return Cohort(revision, START + cohort * COHORT, (hits + misses, 0), labels, assignment)


def trial(*rows: Cohort) -> Trial:
    return Trial("old", "new", START, START + timedelta(days=7), cohorts=rows)


def objective(floor: float = 0.5, margin: float = 0.01) -> Objective:
    return Objective(ACCURACY, floor, margin, HORIZON)


def difference(found: Trial, *, is_drawn: bool = True) -> float:
    """Return the canary's accuracy minus the stable revision's."""
    arms = (drawn_of if is_drawn else arms_of)(found, HORIZON, 4, LATER)
    right = sum(a.canary[0] for a in arms), sum(a.stable[0] for a in arms)
    return right[0] / sum(sum(a.canary) for a in arms) - right[1] / sum(sum(a.stable) for a in arms)


def drawn_by_lot(rng: random.Random, share: float = 0.25) -> list[Cohort]:
    """Return labels of requests of which both get 0.8 right, each drawn by itself."""
    counts = {(i, is_canary): [0, 0] for i in range(COUNT) for is_canary in (False, True)}
    for i in range(COUNT):
        for _ in range(100):
            counts[i, rng.random() < share][rng.random() >= 0.8] += 1
    sides = {False: ("old", STABLE), True: ("new", CANARY)}
    return [row(*sides[is_canary], hits, misses, i) for (i, is_canary), (hits, misses) in counts.items()]


def easy(assignment: Assignment) -> list[Cohort]:
    """Return labels of as many requests by gRPC, all of which stable gets right."""
    return [row("old", assignment, 100, 0, cohort=i) for i in range(COUNT)]


def test_easier_requests_that_were_in_no_draw_say_nothing_against_an_equal_canary() -> None:
    """An earlier runtime says Stable of them: there every canary is taken for worse by what they are easier."""
    found, before, refused, refused_before = [], [], 0, 0
    for seed in range(60):
        of_lot = drawn_by_lot(random.Random(seed))
        now, then = trial(*of_lot, *easy(UNASSIGNED)), trial(*of_lot, *easy(STABLE))
        found.append(difference(now))
        before.append(difference(then))
        refused += gather((objective(),), now, LATER, 0.01, 0.05).refused_at is not None
        refused_before += gather((objective(),), then, LATER, 0.01, 0.05).refused_at is not None
    # One world's difference is spread by sqrt(0.16 / 1000 + 0.16 / 3000), 0.0146; that of the mean of 60 by 0.0019.
    assert abs(sum(found) / len(found)) < 0.008
    assert sum(before) / len(before) == pytest.approx(-0.2 * 4 / 7, abs=0.008)
    assert (refused, refused_before) == (0, 60)


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=COUNT, max_size=COUNT),
    st.sampled_from(["old", "new"]),
    st.integers(0, 1000),
)
@settings(max_examples=15)
def test_the_difference_does_not_hang_on_what_was_in_no_draw(
    others: list[tuple[int, int]], revision: str, seed: int
) -> None:
    of_lot = drawn_by_lot(random.Random(seed))
    more = [row(revision, UNASSIGNED, *counts, cohort=i) for i, counts in enumerate(others)]

    def told(*rows: Cohort) -> list[tuple[datetime, float, float]]:
        found = moments((objective(),), trial(*rows), LATER)
        return [(m.at, next(f.log_e for f in m.against if f.test == "worse"), m.shown[0]) for m in found]

    assert told(*of_lot, *more) == told(*of_lot)


@pytest.mark.parametrize("revision", ["old", "new"])
def test_nor_does_what_stands_for_it_while_there_are_no_labels(revision: str) -> None:
    """The classes that both predict: those of the requests that were in no draw are others."""
    of_lot = [replace(row(*side, 0, 0), predictions=(50, 50)) for side in (("old", STABLE), ("new", CANARY))]
    others = replace(row(revision, UNASSIGNED, 0, 0), predictions=(0, 900))
    assert verdict.stability_index(trial(*of_lot, others)) == verdict.stability_index(trial(*of_lot)) == 0.0


def test_a_canary_that_fails_at_what_is_hard_is_not_better_for_it() -> None:
    """One request in twenty is hard: the canary fails at it, and stable, which answers, gets every second right."""
    of_stable = row("old", STABLE, 19 * 45 + 25, 19 * 5 + 25)
    answered, in_its_place = row("new", CANARY, 19 * 45, 19 * 5), row("old", CANARY, 25, 25)
    assert difference(trial(of_stable, answered, in_its_place)) == 0.0
    assert difference(trial(of_stable, answered)) == pytest.approx(0.02), "left out"
    as_stable = row("old", STABLE, 25, 25)
    assert difference(trial(of_stable, answered, as_stable)) > 0.02, "counted for who answered"


def test_the_floor_that_stable_meets_beside_the_canary_is_of_what_was_drawn() -> None:
    """By gRPC it gets 0.97, and so meets a floor that it misses, as the canary does, where they can be compared."""
    drawn = [row(*side, 88, 12, cohort=i) for i in range(COUNT) for side in (("old", STABLE), ("new", CANARY))]
    for assignment, want in ((UNASSIGNED, False), (STABLE, True)):
        others = [row("old", assignment, 97, 3, cohort=i) for i in range(COUNT)]
        got = gather((objective(0.9, margin=0.4),), trial(*drawn, *others), LATER, 0.01, 0.05)
        assert (got.refused_at is not None, got.is_drift_suspected) == (want, not want), assignment


def test_what_a_revision_says_of_itself_is_of_all_that_it_has_answered() -> None:
    rows = [row("old", assignment, 1, 2) for assignment in Assignment]
    (got,) = cohorts.cohorts(rows, "old")
    assert (got.predictions, got.labels) == ((9, 0), (3, 6, 0, 0))


@pytest.mark.parametrize(
    ("revision", "assignment", "want"),
    [
        pytest.param("old", STABLE, "stable", id="drew stable"),
        pytest.param("new", CANARY, "canary", id="drew the canary"),
        pytest.param("old", CANARY, "canary", id="drew the canary and was answered in its place"),
        pytest.param("new", STABLE, "canary", id="passed on to a canary of an earlier runtime"),
        pytest.param("old", UNASSIGNED, None, id="was in no draw"),
        pytest.param("new", UNASSIGNED, None, id="came to the canary by another way"),
        pytest.param("older", CANARY, None, id="fell to another canary"),
    ],
)
def test_a_label_counts_for(revision: str, assignment: Assignment, want: str | None) -> None:
    arms = drawn_of(trial(row(revision, assignment, 1, 0)), HORIZON, 4, LATER)
    got = {side for a in arms for side, counts in (("stable", a.stable), ("canary", a.canary)) if any(counts)}
    assert got == ({want} if want else set())
