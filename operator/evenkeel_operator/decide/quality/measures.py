"""What does "accuracy" mean here? Each metric as a function of counts, and as scores whose mean it is.

Labelled predictions are counted in cells: of a classifier, (predicted, actual) in row order; of a regression, the
absolute errors of `deviations.edges`. A metric is a weighted sum of ratios E[gain]/E[size] over the cells: one ratio
for accuracy, a class's precision, recall or Fβ, one per class for their averages. F1 is 2·TP/(2·TP + FP + FN), and so
on; with floor f, "ratio ≥ f" is the same as "gain - f·size has a mean ≥ 0", which a bet on counts can test exactly.

Of errors the metric is made to grow with quality: 1 - E|e|/cap for MAE, 1 - E[e²]/cap² for RMSE. That less is better
of them is known here and nowhere else.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

from evenkeel_operator.decide.quality import deviations
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal

Counts = Sequence[float]
"""Labels by cell. Whole numbers of a classifier; an error between two cells counts in part in both."""
Scores = tuple[float, ...]


class Metric(enum.StrEnum):
    """What is measured."""

    ACCURACY = "Accuracy"
    PRECISION = "Precision"
    RECALL = "Recall"
    F1 = "F1"
    MAE = "MAE"
    RMSE = "RMSE"

    @property
    def is_error(self) -> bool:
        """Whether it is of numbers, and less of it is better."""
        return self in ERRORS

    def is_met(self, value: float, bound: float) -> bool:
        """Return whether `value` is at `bound` or better: not below a floor, or not above a ceiling."""
        return value <= bound if self.is_error else value >= bound


ERRORS = frozenset({Metric.MAE, Metric.RMSE})


class Average(enum.StrEnum):
    """How the classes become one number."""

    BINARY = "Binary"
    MACRO = "Macro"
    WEIGHTED = "Weighted"


@dataclass(frozen=True, slots=True)
class Term:
    """One ratio E[gain]/E[size], by cell; `support` marks the cells whose actual class is the term's."""

    gain: Scores
    size: Scores
    support: Scores

    def ratio(self, counts: Counts) -> float | NoSignal:
        """Return the ratio over `counts`, or NoSignal where nothing is of its size."""
        size = dot(self.size, counts)
        return dot(self.gain, counts) / size if size > 0 else NO_SIGNAL


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric over `cells` cells. `by_support`: a term weighs as much as its class is frequent, else all the same.

    `cap` and `is_squared` are of errors: the largest error that counts, and whether its square does.
    """

    name: str
    terms: tuple[Term, ...]
    by_support: bool = False
    cap: float | None = None
    is_squared: bool = False

    def counts(self, errors: deviations.Sums) -> Counts:
        """Return by cell what the sums of a regression's errors count."""
        assert self.cap is not None, "classes are counted in their cells"
        return deviations.parts(errors, self.cap, 2 if self.is_squared else 1)

    @property
    def cells(self) -> int:
        """How many cells its counts have."""
        return len(self.terms[0].gain)

    def limit(self, bound: float) -> str:
        """Return a bound, in the unit of the objective, as it is told."""
        return f"{'floor' if self.cap is None else 'ceiling'} {bound:g}"

    @property
    def is_exact(self) -> bool:
        """Whether a floor is a hypothesis about one mean: of one ratio it is, of a sum of ratios it is not."""
        return len(self.terms) == 1

    @property
    def has_fixed_sizes(self) -> bool:
        """Whether every cell has size 1: the metric is a plain mean, and nothing about it has to be learnt."""
        return self.is_exact and all(size == 1 for size in self.terms[0].size)

    def value(self, counts: Counts) -> float | NoSignal:
        """Return the metric over `counts`; of classes that never occurred nothing is known and nothing counts."""
        found = []
        for term in self.terms:
            ratio = term.ratio(counts)
            if isinstance(ratio, float):
                found.append((dot(term.support, counts) if self.by_support else 1.0, ratio))
        total = sum(weight for weight, _ in found)
        return sum(weight * ratio for weight, ratio in found) / total if total > 0 else NO_SIGNAL

    def shift(self, value: float, margin: float) -> float:
        """Return `margin`, in the unit of the objective, as a step of the metric at `value`."""
        if self.cap is None:
            return margin
        if self.is_squared:
            # (r + m)² - r²: the same step of the root is a larger one of the square where the root is larger.
            return margin * (2 * self.cap * math.sqrt(max(0.0, 1 - value)) + margin) / self.cap**2
        return margin / self.cap

    def from_objective(self, value: float) -> float:
        """Return a floor (of errors: a ceiling) in the unit of the objective as a value of the metric."""
        if self.cap is None:
            return value
        return 1 - (value / self.cap) ** 2 if self.is_squared else 1 - value / self.cap

    def to_objective(self, value: float) -> float:
        """Return a value of the metric in the unit of the objective."""
        if self.cap is None:
            return value
        return self.cap * math.sqrt(max(0.0, 1 - value)) if self.is_squared else self.cap * (1 - value)


def dot(weights: Sequence[float], counts: Counts) -> float:
    """Return Σ weight·count."""
    return float(sum(weight * count for weight, count in zip(weights, counts, strict=True) if count))


def cell(predicted: int, actual: int, classes: int) -> int:
    """Return the number of the cell in which a prediction of class `predicted` counts once it is known as `actual`."""
    return predicted * classes + actual


def classification(
    metric: Metric, classes: int, average: Average = Average.MACRO, positive: int = 1, beta: float = 1.0
) -> Measure:
    """Return `metric` over the `classes`² cells of a confusion matrix.

    Args:
        positive: the class that counts as positive with `Average.BINARY`.
        beta: of F1: recall counts β times as much as precision.
    """
    if metric is Metric.ACCURACY:
        right = tuple(float(p == a) for p in range(classes) for a in range(classes))
        ones = (1.0,) * classes**2
        return Measure(metric.value, (Term(right, ones, ones),))
    if metric.is_error:
        raise ValueError(f"{metric.value} is of numbers, not of classes: use regression()")
    wanted = (positive,) if average is Average.BINARY else range(classes)
    terms = tuple(_term(metric, k, classes, beta**2) for k in wanted)
    return Measure(f"{metric.value}/{average.value}", terms, by_support=average is Average.WEIGHTED)


def regression(metric: Metric, cap: float) -> Measure:
    """Return MAE or RMSE over the absolute errors of `deviations.edges`; larger ones count as `cap`, a power of two."""
    is_squared = metric is Metric.RMSE
    ones = (1.0,) * len(edges := deviations.edges(cap))
    gain = tuple(1 - (edge / cap) ** (2 if is_squared else 1) for edge in edges)
    return Measure(metric.value, (Term(gain, ones, ones),), cap=cap, is_squared=is_squared)


def _term(metric: Metric, k: int, classes: int, beta2: float) -> Term:
    gain, size, support = [], [], []
    for predicted in range(classes):
        for actual in range(classes):
            hit, alarm, miss = predicted == actual == k, predicted == k != actual, actual == k != predicted
            if metric is Metric.PRECISION:
                gain.append(float(hit))
                size.append(float(hit or alarm))
            elif metric is Metric.RECALL:
                gain.append(float(hit))
                size.append(float(hit or miss))
            else:
                gain.append((1 + beta2) * hit)
                size.append((1 + beta2) * hit + beta2 * miss + alarm)
            support.append(float(actual == k))
    return Term(tuple(gain), tuple(size), tuple(support))
