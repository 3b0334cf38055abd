"""What would other tools have said to the same labels? Their rules, looked at once per cohort.

threshold      the canary's metric over the last interval against stable's minus the margin; three failed intervals in a
               row roll back, and the last cohort promotes (Argo Rollouts' `failureLimit`, Flagger's `threshold`)
Mann-Whitney   the labels of the last interval, right or wrong, of both revisions; rolled back where a one-sided test at
               1 % says worse (Kayenta's default classifier), and promoted after the last cohort
naive z        a two-sample z-test of all labels so far at 1 %, looked at every time; promoted at 5 % against the margin

All three know accuracy only: that is what they are given here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.bench.verdict import worlds
from tests.bench.verdict.rollouts import Draws
from tests.bench.verdict.worlds import World

RULES = ("threshold", "mann-whitney", "naive-z")
FAILED_INTERVALS = 3
INTERVAL = 4
"""Cohorts of an interval: an hour."""

_Z_99 = 2.3263
_Z_95 = 1.6449


@dataclass(frozen=True)
class Shares:
    """Which share of the rollouts a rule rolled back, and promoted."""

    rolled_back: float
    promoted: float


def simulate(world: World, rollouts: int, seed: int) -> dict[str, Shares]:
    """Return how the same draws as those of `rollouts.simulate` with this seed end by each rule.

    The draws are the same up to the first decided rollout there; from then on only their distribution is.
    """
    if world.metric != "accuracy":
        raise ValueError("the rules compare accuracy: give a world whose metric is accuracy")
    draws = Draws(world, rollouts, seed)
    right = np.eye(2).ravel()
    hits, sizes = np.zeros((2, rollouts)), np.zeros((2, rollouts))
    recent_hits, recent_sizes = np.zeros((2, rollouts)), np.zeros((2, rollouts))
    failed = np.zeros(rollouts)
    ended = {rule: np.zeros(rollouts, dtype=np.int64) for rule in RULES}

    def end(rule: str, which: np.ndarray, how: int) -> None:
        ended[rule] = np.where((ended[rule] == 0) & which, how, ended[rule])

    for t in range(worlds.COHORTS):
        for arm, labels in enumerate(draws.cohort(t, rollouts)):
            recent_hits[arm] += labels @ right
            recent_sizes[arm] += labels.sum(axis=1)
            hits[arm] += labels @ right
            sizes[arm] += labels.sum(axis=1)
        is_known = sizes.min(axis=0) >= 50
        z = _z(hits, sizes, 0.0)
        end("naive-z", is_known & (z < -_Z_99), -1)
        if worlds.WEIGHTS[t] == worlds.WEIGHTS[-1]:
            end("naive-z", is_known & (_z(hits, sizes, worlds.MARGIN) > _Z_95), 1)
        if (t + 1) % INTERVAL:
            continue
        is_known = recent_sizes.min(axis=0) > 0
        stable, canary = recent_hits / np.maximum(recent_sizes, 1)
        failed = np.where(is_known & (canary < stable - worlds.MARGIN), failed + 1, 0)
        end("threshold", failed >= FAILED_INTERVALS, -1)
        # Of answers that are right or wrong the rank test is the test of two shares.
        end("mann-whitney", is_known & (_z(recent_hits, recent_sizes, 0.0) < -_Z_99), -1)
        recent_hits, recent_sizes = np.zeros((2, rollouts)), np.zeros((2, rollouts))
    for rule in ("threshold", "mann-whitney"):
        end(rule, np.ones(rollouts, dtype=bool), 1)
    return {rule: Shares(float((how < 0).mean()), float((how > 0).mean())) for rule, how in ended.items()}


def _z(hits: np.ndarray, sizes: np.ndarray, margin: float) -> np.ndarray:
    n = np.maximum(sizes, 1)
    share = hits.sum(axis=0) / n.sum(axis=0)
    spread = np.sqrt(np.maximum(share * (1 - share) * (1 / n[0] + 1 / n[1]), 1e-12))
    found: np.ndarray = (hits[1] / n[1] - hits[0] / n[0] + margin) / spread
    return found
