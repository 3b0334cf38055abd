"""Does the simulation judge rollouts exactly as the decision code does?"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from evenkeel_operator.decide.quality import differences
from evenkeel_operator.decide.quality.cohorts import COHORT
from evenkeel_operator.decide.quality.cusum import Cusum
from evenkeel_operator.decide.quality.differences import Arms
from evenkeel_operator.decide.quality.floors import Floor
from tests.bench.verdict import twin
from tests.bench.verdict.rollouts import Draws
from tests.bench.verdict.worlds import FLOOR, MARGIN, WEIGHTS, World

START = datetime(2026, 1, 5, tzinfo=UTC)
ROLLOUTS = 3
COHORTS = 24


@pytest.mark.parametrize("metric", ["accuracy", "f1", "macro"])
@pytest.mark.parametrize("coverage", [1.0, 0.02])
def test_twin_is_the_decision_code(metric: str, coverage: float) -> None:
    world = World(metric, "exponential", coverage, -0.05, "none")
    draws = Draws(world, ROLLOUTS, 7)
    labels = [draws.cohort(t, ROLLOUTS) for t in range(COHORTS)]
    terms = twin.Terms.of(world.measure)
    split = twin.Split(terms, MARGIN, FLOOR, ROLLOUTS)
    floor, guard = twin.Floor(terms, FLOOR, ROLLOUTS), twin.Cusum(terms, FLOOR, ROLLOUTS)
    for t, (stable, canary) in enumerate(labels):
        if t > 0 and WEIGHTS[t] != WEIGHTS[t - 1]:
            split.change()
        split.add(stable, canary)
        floor.add(canary)
        guard.add(stable)
    worse, not_worse = twin.log_mean_exp(split.worse), twin.log_mean_exp(split.not_worse)
    below, decayed = twin.log_mean_exp(floor.logs), twin.log_mean_exp(guard.logs)

    changes = [START + t * COHORT for t in range(1, COHORTS) if WEIGHTS[t] != WEIGHTS[t - 1]]
    for r in range(ROLLOUTS):
        arms = [
            Arms(START + t * COHORT, stable[r].tolist(), canary[r].tolist())
            for t, (stable, canary) in enumerate(labels)
        ]
        (*_, last) = differences.split(world.measure, MARGIN, FLOOR, (0,) * world.measure.cells, arms, changes)
        pure_floor, pure_guard = Floor(world.measure, FLOOR), Cusum(world.measure, FLOOR)
        for cohort in arms:
            pure_floor.add(cohort.canary)
            pure_guard.add(cohort.stable)
        assert worse[r] == pytest.approx(last.worse)
        assert not_worse[r] == pytest.approx(last.not_worse)
        assert below[r] == pytest.approx(pure_floor.log_e)
        assert decayed[r] == pytest.approx(pure_guard.log_e)
