"""Error rates first, then power: tables, and one JSON object last. `python -m tests.bench.verdict [--quick]`.

A cell is above its limit if the Holm-adjusted lower bound at 95 % of its rate is: 1 % of rollouts that are not worse
than the margin rolled back, 5 % of those that are worse promoted. The upper bounds are of all such cells pooled.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from itertools import product, repeat

import numpy as np
from scipy import stats

from tests.bench.verdict import guard, others, power, rollouts, worlds
from tests.bench.verdict.rollouts import ALPHA, PROMOTION_ALPHA, Outcome
from tests.bench.verdict.worlds import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.verdict", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twelfth of the cells, 200 rollouts each: to see it run")
    parser.add_argument("--rollouts", type=int, help="rollouts per cell (2000; 200 with --quick)")
    asked = parser.parse_args()
    count = asked.rollouts or (200 if asked.quick else 2000)
    with ProcessPoolExecutor() as pool:
        result = _errors(_outcomes(pool, _cells(asked.quick), count))
        _side_by_side(count)
        result |= _power(200 if asked.quick else 2000)
        result |= _guard(pool, 2 if asked.quick else 40, 200 if asked.quick else 2000)
    print(json.dumps(result))
    return 0


def _cells(is_quick: bool) -> list[World]:
    delays = worlds.DELAYS[2:3] if is_quick else worlds.DELAYS
    drifts = worlds.DRIFTS[:1] if is_quick else worlds.DRIFTS
    coverages = worlds.COVERAGES[:2] if is_quick else worlds.COVERAGES
    return [World(*of) for of in product(worlds.METRICS, delays, coverages, worlds.DIFFERENCES, drifts)]


def _outcomes(pool: Executor, cells: Sequence[World], count: int) -> list[Outcome]:
    """Print and return what came of each cell; a cell's seed is its number, whoever computes it."""
    outcomes = []
    for found in pool.map(rollouts.simulate, cells, repeat(count), range(len(cells))):
        world = found.world
        print(
            f"{world.metric:8} {world.delay:11} {world.coverage:5} {100 * world.difference:5.1f} pt {world.drift:7} "
            f"rolled back {found.rolled_back / count:6.2%} promoted {found.promoted / count:6.2%} "
            f"held {found.held / count:6.2%}",
            flush=True,
        )
        outcomes.append(found)
    return outcomes


def _errors(outcomes: Sequence[Outcome]) -> dict[str, float]:
    backs = [(o.rolled_back, o.rollouts) for o in outcomes if not o.may_roll_back]
    ups = [(o.promoted, o.rollouts) for o in outcomes if o.may_roll_back]
    p_values = [stats.binom.sf(k - 1, n, ALPHA) for k, n in backs]
    p_values += [stats.binom.sf(k - 1, n, PROMOTION_ALPHA) for k, n in ups]
    full = [o for o in outcomes if o.world.coverage == 1.0]
    equal = [o for o in full if o.world.difference == 0.0]
    bad = [o for o in full if o.world.difference == worlds.DIFFERENCES[-1]]
    return {
        "cells": len(outcomes),
        "cells_above": _holm(p_values),
        "false_rollback_upper": _upper(backs),
        "false_promotion_upper": _upper(ups),
        "promoted_equal": sum(o.promoted for o in equal) / sum(o.rollouts for o in equal),
        "rolled_back_5pt": sum(o.rolled_back for o in bad) / sum(o.rollouts for o in bad),
        "held_fraction": sum(o.held for o in outcomes) / sum(o.rollouts for o in outcomes),
    }


def _holm(p_values: Sequence[float], level: float = 0.05) -> int:
    """Return how many hypotheses are rejected (Holm, Scandinavian Journal of Statistics 6 (1979))."""
    for i, p in enumerate(sorted(p_values)):
        if p > level / (len(p_values) - i):
            return i
    return len(p_values)


def _upper(cells: Sequence[tuple[int, int]]) -> float:
    """Return the one-sided bound at 95 % of the pooled rate (Clopper and Pearson, Biometrika 26 (1934))."""
    k, n = (sum(column) for column in zip(*cells, strict=True))
    return float(stats.beta.ppf(0.95, k + 1, n - k)) if k < n else 1.0


def _side_by_side(count: int) -> None:
    print("\naccuracy, labels by outcome, coverage 1: rolled back / promoted")
    for seed, difference in enumerate(worlds.DIFFERENCES):
        world = World("accuracy", "by-outcome", 1.0, difference, "none")
        ours = rollouts.simulate(world, count, seed)
        told = [f"evenkeel {ours.rolled_back / count:6.1%} / {ours.promoted / count:6.1%}"]
        for rule, found in others.simulate(world, count, seed).items():
            told.append(f"{rule} {found.rolled_back:6.1%} / {found.promoted:6.1%}")
        print(f"{100 * difference:5.1f} pt  " + "   ".join(told), flush=True)


def _power(runs: int) -> dict[str, float]:
    print("\nlabels to a rollback, median: fixed sample, split, mirrored")
    found = {}
    for name, difference in (("2pt", -0.02), ("5pt", -0.05)):
        got = power.labels(difference, runs, 1)
        print(f"{100 * difference:5.1f} pt  {got.fixed:8.0f} {got.split:8.0f} {got.mirrored:8.0f}", flush=True)
        found[f"labels_vs_fixed_{name}"] = got.split / got.fixed
        found[f"mirror_vs_split_{name}"] = got.mirrored / got.split
    found["mirror_vs_split"] = max(value for key, value in found.items() if key.startswith("mirror"))
    return found


def _guard(pool: Executor, years: int, runs: int) -> dict[str, float]:
    print("\nfalse alarms of the guard per year")
    rates = []
    numbers = range(len(guard.SCENES))
    for scene, rate in zip(
        guard.SCENES, pool.map(guard.false_alarms, guard.SCENES, repeat(years), numbers), strict=True
    ):
        rates.append(rate)
        print(f"{scene.metric:8} {scene.mean:.2f} ± {scene.swing:.2f} {scene.delay:11} {rates[-1]:.2f}", flush=True)
    labels = guard.labels_to_alarm(worlds.BASE, 0.85, runs, 1)
    return {"guard_false_per_year": float(np.max(rates)), "guard_labels_median": labels}


if __name__ == "__main__":
    sys.exit(main())
