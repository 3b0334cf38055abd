"""Does one revision meet its floor, and between which bounds does its metric lie?

Of a single ratio (accuracy, a class's precision, recall, Fβ) "at least f" is a hypothesis about the mean of
gain - f·size, and the evidence a function of the counts: exact, for any order and any stopping. An average over classes
is no ratio: its floor is tested by its linearisation, stratum by stratum (`linearised`); the smallest class against f
would be another hypothesis.

An interval holds every value that neither side's test refuses: a confidence sequence, right at all times at once with
the stated probability (Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence
sequences", Annals of Statistics 49 (2021)). For an average over classes it is the average of the classes' own bounds,
each at its part of α: wider than need be, and right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from evenkeel_operator.decide.quality import linearised
from evenkeel_operator.decide.quality.betting import FLOOR_STAKES, by_score, log_mean_exp, log_wealth
from evenkeel_operator.decide.quality.measures import Counts, Measure, Term, dot
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal

LEAST_LABELS = 20
"""Labels that make a stratum where a stratum is needed."""

LEAST_DECIMAL = 0.1
"""From here on four decimals are as many digits."""

CLOSE = 1e-9
"""A bound is known to this much of a metric, or to `CLOSE_EVIDENCE` of the root of the evidence."""
CLOSE_EVIDENCE = 1e-7


@dataclass(frozen=True, slots=True)
class Interval:
    """A metric over `labels` labels, in the unit of the objective, and between which bounds it lies."""

    value: float
    lower: float
    upper: float
    labels: int


def as_text(value: float) -> str:
    """Return a metric's value as it is told: to four decimals, or of less than 0.1 to four digits, as errors may be in
    any unit."""
    return f"{value:.4f}" if abs(value) >= LEAST_DECIMAL or not value else f"{value:.4g}"


class Floor:
    """The evidence that a revision is below its floor, fed cohort by cohort.

    `log_e` is the logarithm of the wealth of whoever bets against "the metric is at least the floor".
    """

    def __init__(self, measure: Measure, floor: float, history: Counts | None = None) -> None:
        """`floor` is in the unit of the objective; `history` teaches an average's plug-ins and is not bet on."""
        self._measure = measure
        self._floor = measure.from_objective(floor)
        self._known: list[float] = list(history or (0,) * measure.cells)
        self._open: list[float] = [0] * measure.cells
        self._before = 0.0
        self._logs = [0.0] * len(FLOOR_STAKES)
        if measure.is_exact:
            scores = _against(measure.terms[0], self._floor)
            most = max(scores)
            self._exact = scores, most

    @property
    def log_e(self) -> float:
        """How much speaks for "below the floor", as a logarithm."""
        return log_mean_exp(self._logs)

    def add(self, labels: Counts) -> None:
        """Take one cohort's labels into account."""
        if self._measure.is_exact:
            self._bet(labels, *self._exact)
            return
        for i, count in enumerate(labels):
            self._open[i] += count
        if not linearised.is_full(sum(self._open), self._before, LEAST_LABELS):
            return
        if (scores := floor_scores(self._measure, self._known, self._floor)) is not None:
            self._bet(self._open, scores, max(scores))
        self._before += sum(self._open)
        self._known = [a + b for a, b in zip(self._known, self._open, strict=True)]
        self._open = [0] * self._measure.cells

    def _bet(self, labels: Counts, scores: tuple[float, ...], most: float) -> None:
        bets = by_score(labels, scores)
        for k, stake in enumerate(FLOOR_STAKES):
            self._logs[k] += log_wealth(*bets, stake / most)


def floor_scores(measure: Measure, known: Counts, floor: float) -> tuple[float, ...] | None:
    """Return each cell's score, of mean at least 0 where the metric is at least `floor`; None during the burn-in.

    `floor` is a value of the metric.
    """
    if measure.is_exact:
        return _against(measure.terms[0], floor)
    plugin = linearised.learnt(measure, known, known, floor)
    if plugin is None:
        return None
    found = linearised.scores(measure, plugin, plugin.stable_sizes, 0.0)
    return tuple(score + plugin.value - floor for score in found)


def interval(measure: Measure, labels: Counts, alpha: float = 0.05) -> Interval | NoSignal:
    """Return the metric over `labels` and its bounds, right at all times at once with probability 1 - `alpha`."""
    value = measure.value(labels)
    if isinstance(value, NoSignal):
        return NO_SIGNAL
    seen = [term for term in measure.terms if dot(term.size, labels) > 0]
    weights = [dot(term.support, labels) if measure.by_support else 1.0 for term in seen]
    total = sum(weights)
    lower = upper = 0.0
    for term, weight in zip(seen, weights, strict=True):
        low, high = _bounds(term, labels, alpha / len(seen))
        lower += weight / total * low
        upper += weight / total * high
    ends = sorted((measure.to_objective(lower), measure.to_objective(upper)))
    return Interval(measure.to_objective(value), ends[0], ends[1], round(sum(labels)))


def _bounds(term: Term, labels: Counts, alpha: float) -> tuple[float, float]:
    """Return what the ratio of `term` lies between: the values that neither side refuses at `alpha`/2."""
    outcomes: dict[tuple[float, float], float] = {}
    for outcome, count in zip(zip(term.gain, term.size, strict=True), labels, strict=True):
        outcomes[outcome] = outcomes.get(outcome, 0) + count
    seen = tuple((gain, size, outcomes[gain, size]) for gain, size in sorted(outcomes))
    return _bound(seen, 0.0, alpha / 2), _bound(seen, 1.0, alpha / 2)


@lru_cache(maxsize=4096)
def _bound(outcomes: tuple[tuple[float, float, float], ...], end: float, alpha: float) -> float:
    """Return the value nearest to `end`, 0 or 1, that is not refused; evidence grows with the distance from the ratio.

    `outcomes` are (gain, size, count), a few where there are hundreds of cells: most cells of a class's ratio are one
    outcome. Remembered, since of many classes few have a label more than at the last look.

    By false position, and where one end stays, half of what it lacks (the Illinois algorithm: Dowell and Jarratt, "A
    modified regula falsi method for computing the root of an equation", BIT 11 (1971)): evidence is about the square
    of the distance, so its root about a line, and eight looks do what bisection needs thirty for.
    """
    ratio = sum(gain * count for gain, _, count in outcomes) / sum(size * count for _, size, count in outcomes)
    if ratio == end:
        return end  # nothing lies between, and no label could speak against it
    goal = math.sqrt(-math.log(alpha))
    kept, lacks = ratio, goal
    refused = (ratio + end) / 2
    while (spare := _evidence_root(outcomes, refused, is_below=end > 0) - goal) < 0:
        kept, lacks = refused, -spare
        refused = (refused + end) / 2
        if abs(end - refused) < CLOSE:
            return kept
    was_refused: bool | None = None
    while abs(refused - kept) > CLOSE:
        middle = kept + (refused - kept) * lacks / (lacks + spare)
        found = _evidence_root(outcomes, middle, is_below=end > 0) - goal
        if abs(found) < CLOSE_EVIDENCE:
            return middle
        is_refused = found > 0
        if is_refused:
            refused, spare = middle, found
            lacks /= 2 if was_refused is True else 1
        else:
            kept, lacks = middle, -found
            spare /= 2 if was_refused is False else 1
        was_refused = is_refused
    return kept


def _evidence_root(outcomes: Sequence[tuple[float, float, float]], value: float, *, is_below: bool) -> float:
    """Return the root of how much speaks against "the ratio is at least `value`" (`is_below`), or "at most"."""
    sign = 1.0 if is_below else -1.0
    scores = [sign * (gain - value * size) for gain, size, _ in outcomes]
    counts = [count for _, _, count in outcomes]
    most = max(scores)
    log_e = log_mean_exp([log_wealth(counts, scores, stake / most) for stake in FLOOR_STAKES])
    return math.sqrt(max(0.0, log_e))


def _against(term: Term, floor: float) -> tuple[float, ...]:
    return tuple(gain - floor * size for gain, size in zip(term.gain, term.size, strict=True))
