"""What happens to a canary in the simulation? Probabilities of the labelled outcomes, cohort by cohort.

The stable revision's metric is 0.93 and the canary's differs by the same amount at every hour; drift moves both. Binary
F1 has 40 % positives, and a canary that errs more by false alarms than by misses, so that the two revisions' terms
have different sizes. Macro F1 has three classes of 50, 30 and 20 %.

A label that comes later than the horizon, or never, is not drawn: which outcomes that hits is the delay's matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenkeel_operator.decide.quality.measures import Average, Measure, Metric, classification

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

BASE = 0.93
FLOOR = 0.90
MARGIN = 0.01
HORIZON_H = 24.0
COHORTS = 288
COHORTS_A_DAY = 96
WEIGHTS = (0.10,) * 4 + (0.25,) * 4 + (0.50,) * (COHORTS - 8)
"""Share of the canary: an hour of 10 %, an hour of 25 %, and then half, for three days."""

METRICS = ("accuracy", "f1", "macro")
DELAYS = ("exponential", "heavy", "by-outcome", "never-30")
COVERAGES = (1.0, 0.1, 0.01)
DIFFERENCES = (0.0, -0.005, -0.01, -0.02, -0.05)
DRIFTS = ("none", "abrupt", "ramp", "diurnal")

_PREVALENCE = 0.4
_SHARES = (0.5, 0.3, 0.2)
_FALSE_ALARMS = 1.5
"""Of the canary's errors in the binary world: false alarms relative to half of them."""


@dataclass(frozen=True)
class World:
    """One cell of the table."""

    metric: str
    delay: str
    coverage: float
    difference: float
    drift: str
    labels: int = 100_000

    @property
    def measure(self) -> Measure:
        """The measure that is decided on."""
        if self.metric == "accuracy":
            return classification(Metric.ACCURACY, 2)
        if self.metric == "f1":
            return classification(Metric.F1, 2, Average.BINARY)
        return classification(Metric.F1, 3, Average.MACRO)

    @property
    def volume(self) -> float:
        """Mean predictions per cohort, of both revisions."""
        return self.labels / COHORTS

    def outcomes(self, is_canary: bool) -> Floats:
        """Return the probability of each cell with a label in time, per cohort: shape (COHORTS, cells)."""
        value = BASE + self.shift() + (self.difference if is_canary else 0.0)
        return _cells(self.metric, value, is_canary) * self.labelled()[None, :] * self.coverage

    def cells_at(self, value: float) -> Floats:
        """Return the probability of each cell with a label in time where the stable revision's metric is `value`."""
        found: Floats = _cells(self.metric, np.array([value]), False)[0] * self.labelled() * self.coverage
        return found

    def shift(self) -> Floats:
        """Return what drift adds to both revisions' metric, per cohort."""
        t = np.arange(COHORTS)
        if self.drift == "abrupt":
            return np.where(t < COHORTS // 3, 0.0, -0.05)
        if self.drift == "ramp":
            return -0.05 * np.clip((t - COHORTS / 4) / COHORTS_A_DAY, 0, 1)
        if self.drift == "diurnal":
            return 0.03 * np.sin(2 * math.pi * t / COHORTS_A_DAY)
        return np.zeros(COHORTS)

    def labelled(self) -> Floats:
        """Return the probability that a label comes within the horizon, per cell."""
        classes = math.isqrt(self.measure.cells)
        is_right = np.eye(classes).ravel() > 0
        if self.delay == "heavy":
            # Log-normal, an hour in the median, with σ = 2.5: one in ten comes after the horizon.
            return np.full(classes**2, 0.5 * (1 + math.erf(math.log(HORIZON_H) / 2.5 / math.sqrt(2))))
        if self.delay == "by-outcome":
            # Wrong answers are noticed after an hour, right ones confirmed after four.
            return np.where(is_right, 1 - math.exp(-HORIZON_H / 4), 1 - math.exp(-HORIZON_H))
        if self.delay == "never-30":
            return np.full(classes**2, 0.7)
        return np.full(classes**2, 1 - math.exp(-HORIZON_H))


def _cells(metric: str, value: Floats, is_canary: bool) -> Floats:
    """Return the probabilities of the cells at which the metric has `value`, per cohort."""
    if metric == "accuracy":
        return np.stack([value / 2, (1 - value) / 2, (1 - value) / 2, value / 2], axis=1)
    if metric == "f1":
        # With x errors of either kind in the mean, F1 = 2·TP/(2·TP + 2·x) and TP = prevalence - misses.
        misses = 2 - _FALSE_ALARMS if is_canary else 1.0
        x = _PREVALENCE * (1 - value) / (1 - (1 - misses) * (1 - value))
        miss, alarm = misses * x, (2 - misses) * x
        # In row order of (predicted, actual): TN, FN, FP, TP.
        return np.stack([1 - _PREVALENCE - alarm, miss, alarm, _PREVALENCE - miss], axis=1)
    return np.stack([_three_classes(v) for v in value])


def _three_classes(value: float) -> Floats:
    """Return nine probabilities of macro F1 `value`: the rarer a class, the more often it is missed."""
    difficulty = np.array([0.7, 1.0, 1.6])
    shares = np.array(_SHARES)

    def at(scale: float) -> Floats:
        wrong = shares * difficulty * scale
        table = np.diag(shares - wrong)
        for actual in range(3):
            others = [k for k in range(3) if k != actual]
            for k in others:
                table[k, actual] = wrong[actual] * shares[k] / shares[others].sum()
        return table

    def macro(table: Floats) -> float:
        hits = np.diag(table)
        return float(np.mean(2 * hits / (table.sum(axis=0) + table.sum(axis=1))))

    low, high = 0.0, 0.6
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if macro(at(middle)) > value else (low, middle)
    return at(low).ravel()
