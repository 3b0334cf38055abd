"""How do many rollouts fare at once? The decision code's split test, floor and detector, in arrays over rollouts.

Each function here is the arithmetic of one in `decide/quality/`, rollout by rollout; `test_twin.py` beside the unit
tests of those holds them against each other on random worlds. Only what the simulation needs is here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from evenkeel_operator.decide.quality import differences, linearised
from evenkeel_operator.decide.quality.betting import DIFFERENCE_STAKES, FLOOR_STAKES
from evenkeel_operator.decide.quality.floors import LEAST_LABELS
from evenkeel_operator.decide.quality.measures import Measure
from tests.bench.verdict.worlds import Counts, Floats

_DIFFERENCE = np.array(DIFFERENCE_STAKES)
_FLOOR = np.array(FLOOR_STAKES)


@dataclass(frozen=True)
class Terms:
    """A measure as arrays: terms × cells."""

    measure: Measure
    gain: Floats
    size: Floats

    @classmethod
    def of(cls, measure: Measure) -> Terms:
        """Return the arrays of `measure`, which has to be of equal weights."""
        assert not measure.by_support
        return cls(
            measure,
            np.array([term.gain for term in measure.terms]),
            np.array([term.size for term in measure.terms]),
        )

    def value(self, counts: Counts) -> Floats:
        """Return the metric per rollout; not a number where nothing is known."""
        size = counts @ self.size.T
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = (counts @ self.gain.T) / size
        seen = size > 0
        total = seen.sum(axis=1)
        summed = np.where(seen, ratio, 0.0).sum(axis=1)
        return np.where(total > 0, summed / np.maximum(total, 1), np.nan)

    def learnt(self, stable: Counts, canary: Counts, prior: float) -> tuple[Floats, ...]:
        """Return weights, ratios and both arms' sizes, rollouts × terms; where nothing is learnt the weights are 0."""
        total, size = stable.sum(axis=1, keepdims=True), stable @ self.size.T
        ratios = (stable @ self.gain.T + linearised.PRIOR_LABELS * prior) / (size + linearised.PRIOR_LABELS)
        if self.measure.has_fixed_sizes:
            known, is_learnt = np.ones_like(ratios), np.ones_like(total, dtype=bool)
        else:
            known, is_learnt = size / np.maximum(total, 1), total >= linearised.BURN_IN_LABELS
        borrowed = linearised.BORROWED_LABELS
        canary_sizes = (canary @ self.size.T + borrowed * known) / (canary.sum(axis=1, keepdims=True) + borrowed)
        raw = ((known > 0) & is_learnt).astype(float)
        return raw / np.maximum(raw.sum(axis=1, keepdims=True), 1), ratios, known, canary_sizes

    def scores(self, weights: Floats, ratios: Floats, sizes: Floats, shift: float) -> Floats:
        """Return the scores, rollouts × cells."""
        scale = np.where(weights > 0, weights / np.where(sizes > 0, sizes, 1.0), 0.0)
        found: Floats = scale @ self.gain - (scale * (ratios - shift)) @ self.size
        return found


def log_mean_exp(logs: Floats) -> Floats:
    """Return the logarithm of the mean over the last axis."""
    most = logs.max(axis=-1, keepdims=True)
    found: Floats = most[..., 0] + np.log(np.exp(logs - most).mean(axis=-1))
    return found


@dataclass
class Split:
    """`differences.split`, for `rollouts` at once and without history."""

    terms: Terms
    margin: float
    prior: float
    rollouts: int
    worse: Floats = field(init=False)
    not_worse: Floats = field(init=False)

    def __post_init__(self) -> None:
        cells = self.terms.measure.cells
        self.stable, self.canary, self.open_stable, self.open_canary = (
            np.zeros((self.rollouts, cells), dtype=np.int64) for _ in range(4)
        )
        self.worse, self.not_worse = (np.zeros((self.rollouts, len(_DIFFERENCE))) for _ in range(2))

    def keep(self, rows: np.ndarray) -> None:
        """Go on with these rollouts only."""
        for name in ("stable", "canary", "open_stable", "open_canary", "worse", "not_worse"):
            setattr(self, name, getattr(self, name)[rows])

    def add(self, stable: Counts, canary: Counts) -> None:
        """Take one cohort's labels, rollouts × cells."""
        self.open_stable += stable
        self.open_canary += canary
        full = _is_full(self.open_stable, self.stable, differences.LEAST_SPLIT)
        self._close(np.flatnonzero(full & _is_full(self.open_canary, self.canary, differences.LEAST_SPLIT)))

    def change(self) -> None:
        """The share of the traffic changes."""
        self._close(np.arange(len(self.stable)))

    def _close(self, rows: np.ndarray) -> None:
        stable, canary = self.open_stable[rows], self.open_canary[rows]
        bets = rows[(stable.sum(axis=1) > 0) & (canary.sum(axis=1) > 0)]
        if len(bets):
            self._bet(bets)
        self.stable[rows] += stable
        self.canary[rows] += canary
        self.open_stable[rows] = 0
        self.open_canary[rows] = 0

    def _bet(self, rows: np.ndarray) -> None:
        weights, ratios, sizes, canary_sizes = self.terms.learnt(self.stable[rows], self.canary[rows], self.prior)
        rows, weights, ratios, sizes, canary_sizes = (
            found[weights.sum(axis=1) > 0] for found in (rows, weights, ratios, sizes, canary_sizes)
        )
        if not len(rows):
            return
        of_stable = self.terms.scores(weights, ratios, sizes, 0.0)
        of_canary = self.terms.scores(weights, ratios, canary_sizes, self.margin)
        scale = np.maximum(np.abs(of_stable).max(axis=1), np.abs(of_canary).max(axis=1))[:, None]
        stable, canary = self.open_stable[rows], self.open_canary[rows]
        n_canary = canary.sum(axis=1, keepdims=True)
        share = n_canary / (n_canary + stable.sum(axis=1, keepdims=True))
        up, down = _DIFFERENCE / scale * (1 - share), _DIFFERENCE / scale * share
        self.worse[rows] += log_wealth(canary, of_canary, up) + log_wealth(stable, of_stable, -down)
        self.not_worse[rows] += log_wealth(canary, of_canary, -up) + log_wealth(stable, of_stable, down)


def log_wealth(counts: Counts, scores: Floats, stakes: Floats) -> Floats:
    """Return the logarithms of the wealth, rollouts × stakes."""
    logs = np.log1p(-stakes[:, :, None] * scores[:, None, :])
    found: Floats = np.einsum("rkc,rc->rk", logs, counts.astype(float))
    return found


@dataclass
class Floor:
    """`floors.Floor`, for `rollouts` at once and without history."""

    terms: Terms
    floor: float
    rollouts: int
    logs: Floats = field(init=False)

    def __post_init__(self) -> None:
        cells = self.terms.measure.cells
        self.logs = np.zeros((self.rollouts, len(_FLOOR)))
        self.known, self.open = (np.zeros((self.rollouts, cells), dtype=np.int64) for _ in range(2))

    def keep(self, rows: np.ndarray) -> None:
        """Go on with these rollouts only."""
        self.logs, self.known, self.open = self.logs[rows], self.known[rows], self.open[rows]

    def add(self, labels: Counts) -> None:
        """Take one cohort's labels, rollouts × cells."""
        if self.terms.measure.is_exact:
            self.logs += exact_steps(self.terms, self.floor, labels)
            return
        self.open += labels
        rows = np.flatnonzero(_is_full(self.open, self.known, LEAST_LABELS))
        if len(rows):
            self.logs[rows] += linear_steps(self.terms, self.known[rows], self.floor, self.open[rows])
            self.known[rows] += self.open[rows]
            self.open[rows] = 0


@dataclass
class Cusum:
    """`cusum.Cusum`, for `rollouts` at once."""

    terms: Terms
    floor: float
    rollouts: int
    logs: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.logs = np.zeros((self.rollouts, len(_FLOOR)))
        self.known = np.zeros((self.rollouts, self.terms.measure.cells), dtype=np.int64)

    def keep(self, rows: np.ndarray) -> None:
        """Go on with these rollouts only."""
        self.logs, self.known = self.logs[rows], self.known[rows]

    def add(self, labels: Counts) -> None:
        """Take one cohort's labels, rollouts × cells."""
        if self.terms.measure.is_exact:
            steps, is_bet = exact_steps(self.terms, self.floor, labels), labels.sum(axis=1) > 0
        else:
            steps = linear_steps(self.terms, self.known, self.floor, labels)
            is_bet = (labels.sum(axis=1) > 0) & (self.known.sum(axis=1) >= linearised.BURN_IN_LABELS)
            self.known += labels
        self.logs = np.where(is_bet[:, None], np.maximum(self.logs, 0) + steps, self.logs)


def exact_steps(terms: Terms, floor: float, labels: Counts) -> Floats:
    """Return what these labels add to the logarithms, rollouts × stakes, of a single ratio."""
    scores = terms.gain[0] - floor * terms.size[0]
    found: Floats = labels @ np.log1p(-_FLOOR[None, :] / scores.max() * scores[:, None])
    return found


def linear_steps(terms: Terms, known: Counts, floor: float, labels: Counts) -> Floats:
    """Return what these labels add to the logarithms, rollouts × stakes, of an average; 0 during the burn-in."""
    weights, ratios, sizes, _ = terms.learnt(known, known, floor)
    is_learnt = weights.sum(axis=1) > 0
    scores = terms.scores(weights, ratios, sizes, 0.0) + ((weights * ratios).sum(axis=1) - floor)[:, None]
    scores[~is_learnt] = 0.0
    most = np.where(is_learnt, scores.max(axis=1), 1.0)[:, None]
    return log_wealth(labels, scores, _FLOOR / most)


def _is_full(labels: Counts, before: Counts, least: int) -> np.ndarray:
    found: np.ndarray = labels.sum(axis=1) >= np.maximum(least, linearised.GROWTH * before.sum(axis=1))
    return found
