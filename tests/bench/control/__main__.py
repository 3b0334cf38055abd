"""Cost and late requests of the scaling law beside a grid of other autoscalers, on traces; last line JSON.

`python -m tests.bench.control [--quick] [FOLDER]`: FOLDER holds CSV files of counts per second or minute, else
EVENKEEL_TRACES names it. Evenkeel has one setting for all traces; minutes are filled as steps and as a line, and the
worse of the two counts, as does the worse of the times of a start. What is finished is kept in --kept: a run that was
cut off goes on from there, and a page with the frontier as a plot is written there. A bar that is missed is named, and
makes the exit code 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from evenkeel_operator.simulate.baselines.grid import Family, defaults, families
from evenkeel_operator.simulate.load import BadTrace, Expansion
from evenkeel_operator.simulate.profile import REFERENCE
from tests.bench.control import bars, constant, demand, engines, faults, figures, worlds
from tests.bench.control.demand import PEAK_REPLICAS, Demand
from tests.bench.control.figures import Numbers, Result
from tests.bench.control.page import Cell, page
from tests.bench.control.replay import MOST, Client, Replay, finish

COLD_STARTS_S = (60, 180)
CLIENTS: tuple[Client, ...] = ("open", "closed")
SEEDS = 10
KEPT = Path("out/control")
ONE_SPIKE = "single_spike"
"""Left out of the frontier: what comes once in a day is learnt by nobody."""

KNOWN = ("HPA rps", "HPA latency", "KPA", "KPA rps")
"""Whose defaults may not be better in both."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.control", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="of traces; without: EVENKEEL_TRACES")
    parser.add_argument(
        "--quick", action="store_true", help="the first day of each trace, one seed, starts of 60 s, open clients"
    )
    parser.add_argument("--seeds", type=int, help=f"runs of each trace ({SEEDS}; 1 with --quick)")
    parser.add_argument(
        "--jobs", type=int, default=len(os.sched_getaffinity(0)), help="pieces done at a time (%(default)s)"
    )
    parser.add_argument("--kept", type=Path, default=KEPT, help=f"folder of what is finished ({KEPT})")
    asked = parser.parse_args()
    named = os.environ.get("EVENKEEL_TRACES")
    try:
        found = demand.traces(asked.folder or (Path(named) if named else None))
    except BadTrace as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    demands = demand.demands(found, REFERENCE.capacity.rate, is_quick=asked.quick)
    seeds = asked.seeds or (1 if asked.quick else SEEDS)
    grid = list(families(REFERENCE, PEAK_REPLICAS, MOST))
    labels = ["Evenkeel", *(f"{family.name} {label}" for family in grid for label in family.labels)]
    cells: list[Cell] = []
    dominated: set[str] = set()
    replays = [
        Replay(cold_s, client, asked.kept)
        for cold_s in (COLD_STARTS_S[:1] if asked.quick else COLD_STARTS_S)
        for client in (CLIENTS[:1] if asked.quick else CLIENTS)
    ]
    if asked.jobs > 1:
        finish(replays, demands, seeds, asked.jobs)
    for each in replays:
        for way, runs in _replayed(each, demands, seeds).items():
            title = f"starts of {each.cold_s} s, minutes as {way}, {each.client} clients, {seeds} seeds"
            mean = figures.mean(runs)
            late, cost = figures.means([r for r in mean if r.trace != ONE_SPIKE])
            print(f"\n{title}")
            _table(mean, labels, _defaults(grid, ("HPA rps",))[0])
            _frontier(labels, late, cost)
            cells.append(Cell(title.capitalize(), labels, late, cost, _figures(runs)))
            dominated |= set(figures.dominated(mean, _defaults(grid, KNOWN)))
    moved, beyond = constant.changes(REFERENCE, is_quick=asked.quick)
    print(f"\nconstant load: {moved} changes after ten minutes at most, {beyond} replicas beyond the need in the end")
    differ = _engines(demands, is_quick=asked.quick)
    fault = _faults(demands, is_quick=asked.quick)
    steps = worlds.STEPS // 10 if asked.quick else worlds.STEPS
    broken = worlds.broken(steps, 1)
    print(f"\n{steps} steps of random worlds: {len(broken)} sizes out of their bounds", *broken[:5], sep="\n  ")
    worst = {key: max(cell.found[key] for cell in cells) for key in cells[0].found}
    told = {key: round(value, 3) for key, value in worst.items()} | {
        "dominated_traces": len(dominated),
        "max_changes_constant_load": moved,
        "beyond_need_constant_load": beyond,
        "sizes_out_of_bounds": len(broken),
        "random_steps": steps,
        "fault_seconds_below": max(row.below_s for row in fault),
        "fault_replicas_below": max(row.below for row in fault),
        "fault_off_after_10_min": max(row.off_after for row in fault),
        "engines_differ": round(differ, 3),
        "traces": len(found),
        "seeds": seeds,
        "quick": asked.quick,
    }
    where = asked.kept / "frontier.html"
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(page(cells, told, fault), encoding="utf-8")
    print(f"\n{where}")
    return bars.concluded(told, {"fault_exceptions": _exceptions(fault)})


def _replayed(replay: Replay, demands: Sequence[Demand], seeds: int) -> dict[Expansion, list[list[Result]]]:
    """Return the results of every trace, a list for each seed, by the way minutes are filled."""
    by_way: dict[Expansion, list[list[Result]]] = {}
    for seed in range(seeds):
        for way, results in replay.results(demands, seed).items():
            by_way.setdefault(way, []).append(results)
    return by_way


def _table(results: Sequence[Result], labels: Sequence[str], hpa: int) -> None:
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


def _frontier(labels: Sequence[str], late: Numbers, cost: Numbers) -> None:
    print(
        f"all but {ONE_SPIKE}: late {late[0]:.2%}, GPU-hours {cost[0]:.2f} × clairvoyant; the frontier of the others:"
    )
    for x, _ in figures.frontier(late[1:], cost[1:]):
        column = int(np.flatnonzero(late[1:] == x)[0]) + 1
        print(f"  {labels[column]:30} late {late[column]:7.2%}, GPU-hours {cost[column]:.2f} × clairvoyant")


def _engines(demands: Sequence[Demand], *, is_quick: bool) -> float:
    """Print both engines side by side and return by which part shares of late requests differ at most."""
    named = {each.trace: each for each in reversed(demands)}
    chosen = [named[trace] for trace in sorted(named)][:: max(1, len(named) // (1 if is_quick else 5))]
    print(f"\n{'the busiest hour of':26} {'under':10} {'late':>7} {'flow':>7} {'GPU-h':>7} {'flow':>7}")
    found = engines.rows(chosen, 1)
    for row in found:
        print(
            f"{row.trace[:26]:26} {row.autoscaler:10} {row.late[0]:7.2%} {row.late[1]:7.2%} "
            f"{row.gpu_s[0] / 3600:7.2f} {row.gpu_s[1] / 3600:7.2f}",
            flush=True,
        )
    return max(row.differ for row in found)


def _faults(demands: Sequence[Demand], *, is_quick: bool) -> list[faults.Row]:
    """Print what every fault does to each hour, and return it."""
    print(
        f"\n{'fault':26} {'in the hour of':26} {'late':>7} {'GPU-h':>7} {'changes':>7} "
        f"{'s below':>8} {'by':>3} {'s back':>7} {'off after':>9}"
    )
    found: list[faults.Row] = []
    foreseeable = [each for each in demands if each.trace != ONE_SPIKE]
    for hour in faults.hours(foreseeable)[: 1 if is_quick else faults.HOURS]:
        for row in faults.rows(hour, 1):
            found.append(row)
            print(
                f"{row.fault:26} {row.trace[:26]:26} {row.outcome.violation:7.2%} {row.outcome.gpu_s / 3600:7.2f} "
                f"{row.outcome.changes:7} {row.below_s:8} {row.below:3} {row.back_s:7} {row.off_after:9}",
                flush=True,
            )
    print(
        "below: than without the fault in the same second, while it lasts; back: likewise in the five minutes in which "
        "the operator decides again; after: ten minutes"
    )
    return found


def _exceptions(fault: Sequence[faults.Row]) -> dict[str, list[int]]:
    """Return, of each fault under which a size was too low or did not come back: seconds below, by, off after."""
    worst: dict[str, list[int]] = {}
    for row in fault:
        before = worst.get(row.fault, [0, 0, 0])
        worst[row.fault] = [max(pair) for pair in zip(before, (row.below_s, row.below, row.off_after), strict=True)]
    return {name: row for name, row in worst.items() if row[0] or row[2] > bars.BARS["fault_off_after_10_min"]}


def _figures(runs: Sequence[Sequence[Result]]) -> dict[str, float]:
    """Print each figure with its interval at 95 % over the seeds, and return the means."""
    found: dict[str, list[float]] = {}
    for results in runs:
        kept = [r for r in results if r.trace != ONE_SPIKE]
        for key, value in (
            ("gpu_hours_vs_frontier", figures.against_frontier(kept)),
            ("gpu_hours_vs_oracle", figures.against_oracle(results)),
            ("clairvoyant_ratio_median", figures.clairvoyant_ratio_median(results)),
            ("late_mean", float(np.mean([r.late[0] for r in kept]))),
        ):
            found.setdefault(key, []).append(value)
    told = []
    for key, values in found.items():
        text = f"{key} {np.mean(values):.3f}"
        if len(values) > 1:
            half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
            text += f" ± {half:.3f}"
        told.append(text)
    print(", ".join(told), flush=True)
    return {key: float(np.mean(values)) for key, values in found.items()}


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
