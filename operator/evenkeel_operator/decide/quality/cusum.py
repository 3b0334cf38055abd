"""Has the revision in service become worse than its floor? A detector without inertia, for as long as it serves.

A test that starts with the revision would be carried by its good history: a model at 0.93 that falls to 0.85 is noticed
only when the average is below the floor. The detector here starts anew at every cohort at once:

    M_k ← max(1, M_k) · Π (1 - λ_k·g),   alarm when the mean over k of M_k reaches the threshold.

M_k is an e-CUSUM, never larger than the sum over all starts of the wealth since then, so the mean over k is an
e-detector: while g has a conditional mean of at least 0 in every cohort, and each cohort updates once, the average time
to a false alarm is at least as many cohorts as the threshold says (Shin, Ramdas and Rinaldo, "E-detectors: a
nonparametric framework for sequential change detection", NEJSDS 2 (2024)). The threshold is one year of cohorts.

What breaks that assumption is a metric that dips below its floor for hours and makes up for it later, as by day and
night: then the promise holds no longer, and what remains is that the evidence of one dip has to reach the threshold.
Half a day of 960 labels with an average two points below the floor does not (`tests/bench/verdict` measures it).
"""

from __future__ import annotations

from datetime import timedelta

from evenkeel_operator.decide.quality.betting import FLOOR_STAKES, by_score, log_mean_exp, log_wealth
from evenkeel_operator.decide.quality.cohorts import COHORT
from evenkeel_operator.decide.quality.floors import floor_scores
from evenkeel_operator.decide.quality.measures import Counts, Measure

COHORTS_PER_YEAR = round(timedelta(days=365) / COHORT)


class Cusum:
    """The detector for one metric, fed cohort by cohort in order of time."""

    def __init__(self, measure: Measure, floor: float, *, is_above: bool = False) -> None:
        """`floor` is in the unit of the objective. With `is_above` it detects that the metric has come to be above the
        floor: the same bets on the other side, which lose while it is at or below."""
        self._measure = measure
        self._sign = -1.0 if is_above else 1.0
        self._floor = measure.from_objective(floor)
        self._known: list[float] = [0] * measure.cells
        self._logs = [0.0] * len(FLOOR_STAKES)
        self._exact = self._scores() if measure.is_exact else None

    @property
    def log_e(self) -> float:
        """How much speaks for "below the floor since some cohort", or above it, as a logarithm."""
        return log_mean_exp(self._logs)

    def add(self, labels: Counts) -> None:
        """Take one cohort's labels into account; a cohort without any changes nothing."""
        if not any(labels):
            return
        scores = self._exact or self._scores()
        if scores is not None:
            most, bets = max(scores), by_score(labels, scores)
            for k, stake in enumerate(FLOOR_STAKES if most > 0 else ()):
                self._logs[k] = max(0.0, self._logs[k]) + log_wealth(*bets, stake / most)
        if not self._measure.is_exact:
            self._known = [a + b for a, b in zip(self._known, labels, strict=True)]

    def _scores(self) -> tuple[float, ...] | None:
        scores = floor_scores(self._measure, self._known, self._floor)
        return None if scores is None else tuple(self._sign * score for score in scores)
