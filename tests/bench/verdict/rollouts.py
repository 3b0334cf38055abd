"""How often is a verdict wrong? Rollouts of one world, each decided as `evidence.gather` and `verdict.judge` decide.

Evidence changes when a cohort is mature and at no other time, so looking once per cohort is looking every minute.
Decided rollouts leave, the others go on: a rollout that is still undecided after the last cohort is held.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evenkeel_operator.decide.quality.evidence import DIFFERENCE_SHARE, FAILED_SHARE, FLOOR_SHARE, QUIET_LOG_E
from tests.bench.verdict import twin, worlds
from tests.bench.verdict.worlds import Counts, Floats, World

ALPHA = 0.01
PROMOTION_ALPHA = 0.05
_TOTAL = DIFFERENCE_SHARE + FLOOR_SHARE + FAILED_SHARE


@dataclass(frozen=True)
class Outcome:
    """How many rollouts of a cell ended how, and how many labels each took until it was decided."""

    world: World
    rollouts: int
    promoted: int
    rolled_back: int
    labels: Floats

    @property
    def held(self) -> int:
        """Rollouts without a verdict."""
        return self.rollouts - self.promoted - self.rolled_back

    @property
    def may_roll_back(self) -> bool:
        """Whether the canary is worse than the margin."""
        return self.world.difference < -worlds.MARGIN - 1e-9


class Draws:
    """The labels of all rollouts of a world, cohort by cohort, for whoever decides on them."""

    def __init__(self, world: World, rollouts: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._volume = world.volume
        self._rollouts = rollouts
        self._cells = [_with_rest(world.outcomes(is_canary)) for is_canary in (False, True)]

    def cohort(self, t: int, rollouts: int) -> tuple[Counts, Counts]:
        """Return cohort `t`'s labels of the stable and the canary revision, rollouts × cells."""
        share = worlds.WEIGHTS[t]
        found = []
        for of_arm, volume in zip(self._cells, (self._volume * (1 - share), self._volume * share), strict=True):
            n = self._rng.poisson(volume * of_arm[t, :-1].sum(), rollouts)
            found.append(self._rng.multinomial(n, of_arm[t, :-1] / of_arm[t, :-1].sum()))
        return found[0], found[1]


def _with_rest(outcomes: Floats) -> Floats:
    return np.concatenate([outcomes, 1 - outcomes.sum(axis=1, keepdims=True)], axis=1)


def simulate(world: World, rollouts: int, seed: int) -> Outcome:
    """Return how `rollouts` of this world end."""
    draws, terms = Draws(world, rollouts, seed), twin.Terms.of(world.measure)
    split = twin.Split(terms, worlds.MARGIN, worlds.FLOOR, rollouts)
    floor = twin.Floor(terms, worlds.FLOOR, rollouts)
    guard, decline = (twin.Cusum(terms, worlds.FLOOR, rollouts) for _ in range(2))
    stable = np.zeros((rollouts, world.measure.cells), dtype=np.int64)
    seen = np.zeros(rollouts)
    promoted = rolled_back = 0
    labels = []
    for t in range(worlds.COHORTS):
        if len(seen) == 0:
            break
        if t > 0 and worlds.WEIGHTS[t] != worlds.WEIGHTS[t - 1]:
            split.change()
        of_stable, of_canary = draws.cohort(t, len(seen))
        split.add(of_stable, of_canary)
        floor.add(of_canary)
        guard.add(of_stable)
        decline.add(of_canary)
        stable = np.where((twin.log_mean_exp(decline.logs) > 0.0)[:, None], stable + of_stable, 0)
        seen += of_stable.sum(axis=1) + of_canary.sum(axis=1)

        with np.errstate(invalid="ignore"):
            is_met = (terms.value(stable) >= worlds.FLOOR) & (twin.log_mean_exp(guard.logs) < QUIET_LOG_E)
        worse = twin.log_mean_exp(split.worse) + math.log(DIFFERENCE_SHARE / _TOTAL)
        below = np.where(is_met, twin.log_mean_exp(floor.logs), 0.0) + math.log(FLOOR_SHARE / _TOTAL)
        against = np.logaddexp(np.logaddexp(worse, below), math.log(FAILED_SHARE / _TOTAL))
        is_back = against >= -math.log(ALPHA)
        is_last = worlds.WEIGHTS[t] == worlds.WEIGHTS[-1]
        is_shown = twin.log_mean_exp(split.not_worse) >= -math.log(PROMOTION_ALPHA)
        is_promoted = ~is_back & is_shown & is_last
        rolled_back += int(is_back.sum())
        promoted += int(is_promoted.sum())
        is_decided = is_back | is_promoted
        if is_decided.any():
            labels.append(seen[is_decided])
            rows = np.flatnonzero(~is_decided)
            for part in (split, floor, guard, decline):
                part.keep(rows)
            stable, seen = stable[rows], seen[rows]
    return Outcome(world, rollouts, promoted, rolled_back, np.concatenate(labels) if labels else np.zeros(0))
