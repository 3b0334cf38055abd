"""How many labels does a verdict take, against a sample whose size had been fixed beforehand?

The fixed sample knows the variance, is looked at once, and tests the same hypothesis: D ≥ -m, one-sided at 1 %, with
power 0.9. Half the traffic goes to either revision. Mirrored, both answer each request and disagree on 6 % of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evenkeel_operator.decide.quality.betting import DIFFERENCE_STAKES
from evenkeel_operator.decide.quality.evidence import DIFFERENCE_SHARE
from tests.bench.verdict import twin, worlds
from tests.bench.verdict.rollouts import ALPHA
from tests.bench.verdict.worlds import World

DISAGREEMENT = 0.06
_Z = 2.3263 + 1.2816
_BATCH = 40
_MOST = 400_000


@dataclass(frozen=True)
class Labels:
    """Labels to a rollback: of the fixed sample, and the medians of a split and a mirrored test."""

    fixed: float
    split: float
    mirrored: float


def labels(difference: float, runs: int, seed: int) -> Labels:
    """Return how many labels it takes to show a canary to be worse by `difference` (below minus the margin)."""
    stable, canary = worlds.BASE, worlds.BASE + difference
    gap = -difference - worlds.MARGIN
    fixed = 2 * (_Z / gap) ** 2 * (stable * (1 - stable) + canary * (1 - canary))
    rng = np.random.default_rng(seed)
    return Labels(fixed, _split(stable, canary, runs, rng), _mirrored(difference, runs, rng))


def _threshold() -> float:
    return -float(np.log(ALPHA * DIFFERENCE_SHARE / (DIFFERENCE_SHARE + 0.2 + 0.15)))


def _split(stable: float, canary: float, runs: int, rng: np.random.Generator) -> float:
    measure = World("accuracy", "exponential", 1.0, 0.0, "none").measure
    test = twin.Split(twin.Terms.of(measure), worlds.MARGIN, worlds.FLOOR, runs)
    taken, seen = [], 0
    while len(test.stable) and seen < _MOST:
        seen += 2 * _BATCH
        arms = []
        for value in (stable, canary):
            hits = rng.binomial(_BATCH, value, len(test.stable))
            none = np.zeros_like(hits)
            arms.append(np.stack([hits, _BATCH - hits, none, none], axis=1))
        test.add(*arms)
        is_shown = twin.log_mean_exp(test.worse) >= _threshold()
        taken += [seen] * int(is_shown.sum())
        test.keep(np.flatnonzero(~is_shown))
    return float(np.median(taken + [np.inf] * len(test.stable)))


def _mirrored(difference: float, runs: int, rng: np.random.Generator) -> float:
    only_stable, only_canary = (DISAGREEMENT - difference) / 2, (DISAGREEMENT + difference) / 2
    chances = [only_stable, 1 - DISAGREEMENT, only_canary]
    scores = np.array([-1.0, 0.0, 1.0]) + worlds.MARGIN
    steps = np.log1p(-np.array(DIFFERENCE_STAKES)[None, :] / (1 + worlds.MARGIN) * scores[:, None])
    logs, taken, seen = np.zeros((runs, len(DIFFERENCE_STAKES))), [], 0
    while len(logs) and seen < _MOST:
        seen += _BATCH
        logs += rng.multinomial(_BATCH, chances, len(logs)) @ steps
        is_shown = twin.log_mean_exp(logs) >= _threshold()
        taken += [seen] * int(is_shown.sum())
        logs = logs[~is_shown]
    return float(np.median(taken + [np.inf] * len(logs)))
