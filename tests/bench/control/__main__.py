"""Cost and late requests of the scaling law beside a grid of other autoscalers, on traces; last line JSON.

`python -m tests.bench.control [--quick] [FOLDER]`: FOLDER holds CSV files of counts per second or minute, else
EVENKEEL_TRACES names it. Evenkeel has one setting for all traces; minutes are filled as steps and as a line, and the
worse of the two counts, as does the worse of the times of a start.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evenkeel_operator.decide.replicas import Scaling
from evenkeel_operator.simulate.baselines.grid import Family, defaults, families
from evenkeel_operator.simulate.clients import ClosedClients, OpenClients
from evenkeel_operator.simulate.fluid import Fleet, Outcome, World, run
from evenkeel_operator.simulate.law import Law, Setting
from evenkeel_operator.simulate.load import EXPANSIONS, BadTrace, Expansion, Floats, arrivals
from evenkeel_operator.simulate.profile import REFERENCE, Profile
from tests.bench.control import constant, demand, figures
from tests.bench.control.demand import PEAK_REPLICAS, Demand
from tests.bench.control.figures import Numbers, Result

COLD_STARTS_S = (60, 180)
SEEDS = 10
MOST = 2 * PEAK_REPLICAS
ONE_SPIKE = "single_spike"
"""Left out of the frontier: what comes once in a day is learnt by nobody."""

KNOWN = ("HPA rps", "HPA latency", "KPA", "KPA rps")
"""Whose defaults may not be better in both."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.control", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="of traces; without: EVENKEEL_TRACES")
    parser.add_argument(
        "--quick", action="store_true", help="the busiest two hours of each trace, one seed, starts of 60 s"
    )
    parser.add_argument("--seeds", type=int, help=f"runs of each trace ({SEEDS}; 1 with --quick)")
    asked = parser.parse_args()
    named = os.environ.get("EVENKEEL_TRACES")
    try:
        found = demand.traces(asked.folder or (Path(named) if named else None))
    except BadTrace as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    demands = demand.demands(found, REFERENCE.capacity.rate, is_quick=asked.quick)
    seeds = asked.seeds or (1 if asked.quick else SEEDS)
    figured: list[dict[str, float]] = []
    dominated: set[str] = set()
    for cold_s in COLD_STARTS_S[:1] if asked.quick else COLD_STARTS_S:
        for client in ("open",) if asked.quick else ("open", "closed"):
            by_way, grid = _replayed(demands, cold_s, seeds, client)
            for way, results in by_way.items():
                print(f"\nstarts of {cold_s} s, minutes as {way}, {client} clients, {seeds} seeds")
                figured.append(_table(results, grid))
                if client == "open":
                    dominated |= set(figures.dominated(results, _defaults(grid, KNOWN)))
    moved, beyond = constant.changes(REFERENCE, is_quick=asked.quick)
    print(f"\nconstant load: {moved} changes after ten minutes at most, {beyond} replicas beyond the need in the end")
    worst = {key: max(row[key] for row in figured) for key in figured[0]}
    print(
        json.dumps(
            {key: round(value, 3) for key, value in worst.items()}
            | {
                "dominated_traces": len(dominated),
                "max_changes_constant_load": moved,
                "beyond_need_constant_load": beyond,
                "traces": len(found),
                "seeds": seeds,
                "quick": asked.quick,
            }
        )
    )
    return 0


def _replayed(
    demands: Sequence[Demand], cold_s: int, seeds: int, client: str
) -> tuple[dict[Expansion, list[Result]], list[Family]]:
    """Return what came of every trace, by the way minutes are filled, and the grid in the order of its columns."""
    sums: dict[tuple[Expansion, str], list[tuple[Numbers, float]]] = {}
    grid: list[Family] = []
    for length in sorted({len(d.expected) for d in demands}):
        alike = [d for d in demands if len(d.expected) == length]
        for seed in range(seeds):
            began = time.monotonic()
            counts = np.stack([arrivals(d.expected, 1000 * seed + i) for i, d in enumerate(alike)], axis=1)
            grid = list(families(REFERENCE, PEAK_REPLICAS, MOST))
            got = _run(REFERENCE, grid, counts, cold_s, client)
            for row, each in enumerate(alike):
                ahead = figures.clairvoyant_s(counts[:, row], REFERENCE.capacity.rate, cold_s)
                part = np.stack([got.late[row], got.requests[row], got.gpu_s[row], got.changes[row]]).astype(np.float64)
                for way in each.ways:
                    sums.setdefault((way, each.trace), []).append((part, ahead))
            took = time.monotonic() - began
            print(f"{len(alike)} stretches of {length} s, seed {seed}: {took:.0f} s", file=sys.stderr, flush=True)
    by_way: dict[Expansion, list[Result]] = {way: [] for way in EXPANSIONS}
    for (way, trace), parts in sums.items():
        late, requests, gpu_s, changes = np.sum([part for part, _ in parts], axis=0)
        ahead = sum(each for _, each in parts)
        by_way[way].append(Result(trace, late / np.maximum(requests, 1.0), gpu_s, changes, ahead))
    return by_way, grid


def _run(profile: Profile, grid: Sequence[Family], counts: Floats, cold_s: int, client: str) -> Outcome:
    seconds, runs = counts.shape
    scaling = Scaling(1, MOST, profile.target_s, profile.quantile)
    ours = Law(Setting(scaling, profile.capacity, float(cold_s)), runs)
    fleets = [Fleet(ours, cold_s), *(Fleet(family.autoscaler, cold_s) for family in grid)]
    first = np.clip(np.ceil(counts[:60].mean(axis=0) / profile.capacity.rate), 1, MOST).astype(np.float32)
    clients = ClosedClients(counts) if client == "closed" else OpenClients(counts)
    return run(World(profile, first, most=MOST), fleets, clients, seconds)


def _table(results: Sequence[Result], grid: Sequence[Family]) -> dict[str, float]:
    labels = ["Evenkeel", *(f"{family.name} {label}" for family in grid for label in family.labels)]
    (hpa,) = _defaults(grid, ("HPA rps",))
    print(
        f"{'trace':26} {'late':>7} {'GPU-h':>7} {'changes':>7} {'/clairv.':>8}   {'HPA late':>8} {'GPU-h':>7}   oracle"
    )
    for r in results:
        best = figures.oracle(r)
        print(
            f"{r.trace[:26]:26} {r.late[0]:7.2%} {r.gpu_s[0] / 3600:7.1f} {r.changes[0]:7.0f} "
            f"{r.gpu_s[0] / r.clairvoyant_s:8.2f}   {r.late[hpa]:8.2%} {r.gpu_s[hpa] / 3600:7.1f}   "
            f"{labels[best]}: {r.late[best]:.2%}, {r.gpu_s[best] / 3600:.1f}"
        )
    kept = [r for r in results if r.trace != ONE_SPIKE]
    late = np.mean([r.late for r in kept], axis=0)
    cost = np.exp(np.mean([np.log(r.gpu_s / r.clairvoyant_s) for r in kept], axis=0))
    print(
        f"all but {ONE_SPIKE}: late {late[0]:.2%}, GPU-hours {cost[0]:.2f} × clairvoyant; the frontier of the others:"
    )
    for x, _ in figures.frontier(late[1:], cost[1:]):
        column = int(np.flatnonzero(late[1:] == x)[0]) + 1
        print(f"  {labels[column]:30} late {late[column]:7.2%}, GPU-hours {cost[column]:.2f} × clairvoyant")
    figured = {
        "gpu_hours_vs_frontier": figures.against_frontier(kept),
        "gpu_hours_vs_oracle": figures.against_oracle(results),
        "clairvoyant_ratio_median": figures.clairvoyant_ratio_median(results),
        "late_mean": float(late[0]),
    }
    print(", ".join(f"{key} {value:.3f}" for key, value in figured.items()), flush=True)
    return figured


def _defaults(grid: Sequence[Family], names: Sequence[str]) -> list[int]:
    """Return the columns of the defaults of the named autoscalers."""
    found, begin = [], 1
    for family in grid:
        if family.name in names:
            found.append(begin + family.column(defaults()[family.name]))
        begin += family.autoscaler.width
    return found


if __name__ == "__main__":
    sys.exit(main())
