"""`evenkeel simulate TRACE.csv SPEC.yaml`: what would have happened to this demand, under this spec and under others?

The demand is a file, or a range query to Prometheus. The spec names the target and the bounds; how long batches take is
measured (`evenkeel check`, or a replica's /v2/signals) and given as `--batch ROWS=DURATION`. A row for every
autoscaler: late requests, GPU-hours, changes, and below what all that rests on; with `--page`, a page that shows over
time what Evenkeel and one of the others would have done.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import yaml
from pydantic import ValidationError

from evenkeel_operator.api import rules
from evenkeel_operator.api.core import Object, seconds
from evenkeel_operator.api.modeldeployment import MOST_ROWS, LatencyObjective, Spec
from evenkeel_operator.decide import sizing
from evenkeel_operator.decide.capacity import Roofline, fit
from evenkeel_operator.decide.replicas import Scaling
from evenkeel_operator.simulate import demand
from evenkeel_operator.simulate.assumed import sentences
from evenkeel_operator.simulate.load import EXPANSIONS, BadTrace
from evenkeel_operator.simulate.page import page
from evenkeel_operator.simulate.profile import Profile
from evenkeel_operator.simulate.replay import BESIDE, OTHERS, Case, Replayed, replay, worst

MOST_REPLICAS = 255
"""The simulator counts replicas in a byte."""

LEAST_BATCH_S, LONGEST_BATCH_S = 1e-6, 600.0
ODD = 0.1
"""Of a batch time: by how much the fit may differ without a word."""

LONGEST_START_S = 3600.0
"""The simulator keeps every second of a start, for each of its hundreds of configurations."""


class BadInput(Exception):
    """What was given cannot be simulated; the message names the place and the way out."""


def simulate(argv: Sequence[str]) -> int:
    """Print what would have happened; return the exit code, 2 where what was given cannot be simulated."""
    parser = argparse.ArgumentParser(
        prog="evenkeel simulate",
        description="Replay a trace of demand under a ModelDeployment's spec, and under other autoscalers' defaults.",
        epilog=demand.HOW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demand.add_flags(parser)
    parser.add_argument("spec", type=Path, help="ModelDeployment with objectives.latency and scaling")
    parser.add_argument(
        "--batch",
        action="append",
        required=True,
        metavar="ROWS=DURATION",
        help="how long a batch of so many rows takes, on one of the GPUs where a replica has several, such as 1=20ms; "
        "once for each size that was measured: one size alone says nothing about larger ones",
    )
    parser.add_argument("--cold-start", default="60s", help="from a replica's creation until it is ready (60s)")
    parser.add_argument(
        "--expand", choices=EXPANSIONS, default="steps", help="how the seconds of a minute or step are filled"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the arrivals within a second (1)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write one HTML page with plots over time there")
    parser.add_argument("--beside", choices=OTHERS, default=BESIDE, help=f"which other the page shows ({BESIDE})")
    asked = parser.parse_intermixed_args(argv)  # flags may stand between the two files
    try:
        if asked.seed < 0:
            raise BadInput(f"--seed {asked.seed}: must be 0 or more, such as 1")
        if asked.page is not None and not asked.page.parent.is_dir():
            raise BadInput(f"--page {asked.page}: cannot be written: there is no folder {asked.page.parent}; make it")
        scaling, rows, engines, ignored = _scaling(asked.spec)
        roofline, concluded = _roofline(asked.batch, rows)
        roofline = replace(roofline, engines=engines)
        profile = Profile(roofline, scaling.target_s, scaling.quantile)
        cold_s = max(1, round(_duration(asked.cold_start, "--cold-start", 0.0, LONGEST_START_S)))
        if not profile.capacity.is_attainable:
            raise BadInput(
                f"one replica that is nearly idle misses the target of {sizing.duration(scaling.target_s)}: more of "
                "them do not help. Raise spec.objectives.latency's target, or give the --batch times of a faster model"
            )
        found: list[Replayed] = []
        for trace in demand.traces(asked):
            case = Case(trace, scaling, profile, cold_s, asked.expand, asked.seed, (*ignored, *concluded))
            found.append(replay(case, asked.beside))
            _print(found[-1])
        if asked.page is not None:
            _write(asked.page, page(found))
    except (BadTrace, BadInput) as e:
        print(f"error: {_one_line(e)}", file=sys.stderr)
        return 2
    return 0


def _scaling(path: Path) -> tuple[Scaling, int | None, int, list[str]]:
    """Return the bounds and the target of the law, the most rows of a batch where the spec names them, how many batches
    a replica runs at the same time (one on each of its GPUs, where it runs Evenkeel's image), and notes."""
    try:
        spec = Spec.model_validate(_document(path)["spec"])
    except (TypeError, KeyError) as e:
        raise BadInput(f"{path} is no ModelDeployment: it has no spec") from e
    except ValidationError as e:
        told = "; ".join(f"{'.'.join(('spec', *map(str, row['loc'])))}: {row['msg']}" for row in e.errors())
        raise BadInput(f"{path}: {told}") from e
    wanted, bounds = sizing.objective(spec), spec.scaling
    if wanted is None or bounds is None:
        raise BadInput(f"{path}: spec.objectives.latency and spec.scaling have to be there; they are what is simulated")
    _require_valid(path, spec, wanted)
    if bounds.max_replicas > MOST_REPLICAS:
        raise BadInput(f"{path}: spec.scaling.maxReplicas: at most {MOST_REPLICAS} replicas can be simulated")
    scaling = sizing.scaling(spec)
    assert scaling is not None, "there are a latency and bounds"
    engines = 1 if spec.gpu is None or spec.runtime.image is not None else spec.gpu.count
    several = len(spec.objectives.latency)
    notes = [f"of {several} latencies in the spec the first is held, as the operator does"] * (several > 1)
    return scaling, spec.runtime.batching.max_size, engines, notes


def _document(path: Path) -> Object:
    try:
        found: Object = yaml.safe_load(path.read_text())
    except (OSError, ValueError, OverflowError, RecursionError, LookupError, AttributeError, yaml.YAMLError) as e:
        # Beside its own errors, PyYAML lets those through that come of a value which its tag does not fit.
        raise BadInput(f"{path} cannot be read: {e}") from e
    return found


def _require_valid(path: Path, spec: Spec, wanted: LatencyObjective) -> None:
    """Refuse what is simulated where the API server would refuse it: a spec is read leniently, as stored ones are."""
    field = f"spec.objectives.latency.{spec.objectives.latency.index(wanted)}"
    try:
        target_s = seconds(wanted.target)
    except ValueError as e:
        raise BadInput(f"{path}: {field}.target: {e}") from e
    bounds = spec.scaling
    for holds, name, rule in (
        (0.5 <= wanted.quantile <= 0.999, f"{field}.quantile", rules.QUANTILE),
        (0.001 <= target_s <= 600.0, f"{field}.target", rules.DURATION),
        (bounds is None or bounds.min_replicas <= bounds.max_replicas, "spec.scaling.maxReplicas", rules.SCALING),
    ):
        if not holds:
            raise BadInput(f"{path}: {name}: {rule['x-kubernetes-validations'][0]['message']}")


def _roofline(batches: Sequence[str], max_rows: int | None) -> tuple[Roofline, list[str]]:
    """Return how long every batch takes, and what of that was not measured."""
    times: dict[int, float] = {}
    for text in batches:
        rows, is_split, duration = text.partition("=")
        is_number = rows.isdecimal() and len(rows) <= len(str(MOST_ROWS))
        if not is_split or not is_number or not 1 <= int(rows) <= MOST_ROWS:
            raise BadInput(f"--batch {text}: give the rows, 1 to {MOST_ROWS}, and how long they take, such as 8=35ms")
        if int(rows) in times:
            raise BadInput(f"--batch {text}: there is another time for {rows} rows; give one for each size")
        times[int(rows)] = _duration(duration, f"--batch {text}", LEAST_BATCH_S, LONGEST_BATCH_S)
    largest = max(times)
    most = max_rows or largest
    if len(times) == 1 and most > largest:
        raise BadInput(
            f"--batch {batches[0]} alone does not tell how long a batch of {most} rows takes, which the spec's "
            f"runtime.batching.maxSize allows; measure that as well: --batch {most}=…"
        )
    found = fit({rows: (1.0, took) for rows, took in times.items()}, most)
    assert isinstance(found, Roofline), "every time is more than none"
    return found, list(_concluded(found, times, is_bounded=max_rows is not None))


def _concluded(found: Roofline, times: Mapping[int, float], *, is_bounded: bool) -> Iterator[str]:
    """Yield what the fit says beyond the `times` that were measured."""
    largest, most = max(times), found.max_rows
    if not is_bounded:
        yield (
            f"batches have {most} row{'s' * (most != 1)} at most, the largest --batch: the spec has no "
            "runtime.batching.maxSize, and a replica would measure what pays"
        )
    if most > largest:
        beyond = sizing.duration(found.seconds(most))
        yield f"batches of more than {largest} rows follow the line through those measured: {beyond} for {most} rows"
    if len(times) == 1 and most > 1:
        yield f"batches of fewer than {largest} rows take as long as one of {largest}, the only --batch"
    for rows, took in sorted(times.items()):
        if abs(found.seconds(rows) / took - 1.0) > ODD:
            fitted = sizing.duration(found.seconds(rows))
            yield (
                f"a batch of {rows} takes {fitted}, not {sizing.duration(took)}: a curve that is flat and then a line "
                "does not meet every --batch"
            )


def _duration(text: str, name: str, least_s: float, most_s: float) -> float:
    try:
        found = seconds(text)
    except ValueError as e:
        raise BadInput(f"{name}: {e}") from e
    if not least_s <= found <= most_s:
        raise BadInput(f"{name}: must be from {1000 * least_s:g}ms to {most_s / 60:g}m")
    return found


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _print(replayed: Replayed) -> None:
    case = replayed.case
    scaling, target = case.scaling, sizing.duration(case.scaling.target_s)
    print(
        f"{case.trace.name}: {replayed.seconds / 3600:.1f} h, {replayed.requests:.0f} requests, "
        f"p{100 * scaling.quantile:g} within {target}, {scaling.least} to {scaling.most} replicas of "
        f"{case.profile.capacity.rate:.1f} requests/s each"
    )
    print(f"{'':22}{'above ' + target:>14} {'worst 5 min':>12} {'GPU-hours':>10} {'changes':>8}")
    for row in replayed.rows:
        print(f"{row.name:22}{row.late:>14.2%} {worst(row):>12} {row.gpu_hours:>10.2f} {row.changes:>8}")
    print("assumed:", *sentences(case), sep="\n  - ")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        raise BadInput(f"--page {path}: cannot be written: {e.strerror}; name another file") from e
    print(path)
