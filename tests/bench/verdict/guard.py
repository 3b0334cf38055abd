"""How often does the detector of the revision in service cry wolf, and how soon does it see a real decay?

Twenty labels per cohort, floor 0.90. A year of a revision that is good on average, at its very floor and above it,
steady and with an accuracy that swings by day, labels late by outcome or not; and a fall from 0.93 to 0.85.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evenkeel_operator.decide.quality.cusum import COHORTS_PER_YEAR
from tests.bench.verdict import twin, worlds
from tests.bench.verdict.worlds import World

LABELS = 20
GOOD_COHORTS = 200
_MOST_COHORTS = 4000


@dataclass(frozen=True)
class Scene:
    """A year: the metric's mean, how far it swings by day, and how late labels are."""

    metric: str
    mean: float
    swing: float
    delay: str


SCENES = tuple(
    Scene(metric, mean, swing, delay)
    for metric in worlds.METRICS
    for mean, swing in ((worlds.FLOOR, 0.0), (worlds.BASE, 0.0), (worlds.BASE, 0.03))
    for delay in ("exponential", "by-outcome")
)


def false_alarms(scene: Scene, years: int, seed: int) -> float:
    """Return false alarms per year; a detector that raised one starts anew."""
    world = World(scene.metric, scene.delay, 1.0, 0.0, "none")
    chances = []
    for t in range(worlds.COHORTS_A_DAY):
        value = scene.mean + scene.swing * math.sin(2 * math.pi * t / worlds.COHORTS_A_DAY)
        chances.append(world.cells_at(value))
    rng = np.random.default_rng(seed)
    detector, alarms = twin.Cusum(twin.Terms.of(world.measure), worlds.FLOOR, years), 0
    for t in range(COHORTS_PER_YEAR):
        cells = chances[t % worlds.COHORTS_A_DAY]
        detector.add(rng.multinomial(rng.binomial(LABELS, cells.sum(), years), cells / cells.sum()))
        is_raised = twin.log_mean_exp(detector.logs) >= math.log(COHORTS_PER_YEAR)
        alarms += int(is_raised.sum())
        detector.logs[is_raised] = 0.0
    return alarms / years


def labels_to_alarm(before: float, after: float, runs: int, seed: int) -> float:
    """Return the median of the labels between the fall of the accuracy and the alarm."""
    world = World("accuracy", "exponential", 1.0, 0.0, "none")
    rng = np.random.default_rng(seed)
    detector = twin.Cusum(twin.Terms.of(world.measure), worlds.FLOOR, runs)
    taken: list[int] = []
    for t in range(GOOD_COHORTS + _MOST_COHORTS):
        value = before if t < GOOD_COHORTS else after
        cells = world.cells_at(value)
        detector.add(rng.multinomial(LABELS, cells / cells.sum(), len(detector.logs)))
        if t < GOOD_COHORTS:
            continue
        is_raised = twin.log_mean_exp(detector.logs) >= math.log(COHORTS_PER_YEAR)
        taken += [LABELS * (t - GOOD_COHORTS + 1)] * int(is_raised.sum())
        detector.keep(np.flatnonzero(~is_raised))
        if not len(detector.logs):
            break
    return float(np.median(taken + [math.inf] * len(detector.logs)))
