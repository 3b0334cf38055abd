"""Real replicas of 200m CPU follow thirty minutes of a trace, under Evenkeel and then under an HPA; last line JSON.

`python -m tests.bench.trace [--minutes N] [--trace NAME] [--traces FOLDER]`, on the cluster that is up, with the chart
of this checkout. A probe of one replica says what it takes unloaded (the target is five times its p95), how fast it is
under load and how long it starts. Then requests come as in the trace, scaled so that its peak needs 3.2 replicas, to
one replica that may become four; what a client measures counts. The simulator is given the same requests afterwards.

    p95_within_target    share of the minutes after the warm-up whose p95 is within the target
    replicas_within_one  share of the time after it in which the size is within one of the simulator's
    failed_requests      answered by anything but 200, cut, or not at all; nobody retries
    replica_s            seconds of all replicas wanted

Everything is kept in --out, with a page of plots. A bar that Evenkeel misses makes the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from evenkeel_operator.decide.replicas import Scaling
from evenkeel_operator.simulate.load import BadTrace, Floats
from evenkeel_operator.simulate.profile import Profile
from tests.bench.control import demand
from tests.bench.trace import excerpt, expected, figures, pods
from tests.bench.trace.figures import QUANTILE, Result
from tests.bench.trace.model import Model, model
from tests.bench.trace.page import Run, page
from tests.cluster import installation
from tests.cluster.faults import cluster
from tests.cluster.kubectl import Kubectl
from tests.cluster.state import Cluster

TARGET_TIMES = 5.0
PEAK_REPLICAS = 3.2
SEED = 1
WARM_UP, SHORT, WARM_UP_OF_SHORT = 3, 10, 1
"""Minutes that do not count; of runs of fewer than SHORT minutes, fewer."""

UNLOADED, UNLOADED_EVERY_S = 70, 1.5
FIRST = 10
"""Of the unloaded requests, which are left out."""

LOADS, LOAD_S = (0.3, 0.6, 0.9), 20
"""Shares of what the quota allows at most, at which a replica's speed is measured."""

QUOTA_SEEN = 2.0
"""How many times its CPU a request takes at least, for the quota to be there."""

BARS = {"p95_within_target": 0.95, "replicas_within_one": 0.9}


@dataclass(frozen=True)
class Bench:
    """Where, with which model, and where to keep what comes of it."""

    found: Cluster
    kubectl: Kubectl
    model: Model
    out: Path
    folder: Path

    def probed(self) -> tuple[Profile, float]:
        """Return how fast one replica is, with the target that follows from it, and how long it starts."""
        with pods.served(self.found, self.kubectl, self.model, self.folder) as probe:
            alone = probe.follow(_now_and_then(), is_watched=False)
            _require_answered(alone.requests)
            unloaded_s = figures.quantile([r.latency_s for r in alone.requests[FIRST:]])
            target_s = round(TARGET_TIMES * unloaded_s, 3)
            assert unloaded_s > QUOTA_SEEN * self.model.cost_s, (
                f"p95 of {unloaded_s:.3f} s: the pods' quota does not hold"
            )
            readings = [(0.0, probe.reading())]
            for number, load in enumerate(LOADS):
                rates = excerpt.flat(load * pods.CPUS / self.model.cost_s, LOAD_S)
                _require_answered(probe.follow(excerpt.schedule(rates, SEED + number), is_watched=False).requests)
                readings.append((float(LOAD_S * (number + 1)), probe.reading()))
            profile = Profile(expected.roofline(readings), target_s, QUANTILE)
            cold_start_s = probe.cold_start_s()
        batch_s = profile.roofline.seconds(1)
        print(
            f"one replica: {1000 * self.model.cost_s:.0f} ms of CPU for a request, p95 unloaded "
            f"{1000 * unloaded_s:.0f} ms, so the target is {1000 * target_s:.0f} ms; "
            f"a batch takes {1000 * batch_s:.0f} ms under load, "
            f"{profile.capacity.rate:.2f} requests/s are carried; ready after {cold_start_s:.0f} s",
            flush=True,
        )
        assert profile.capacity.is_attainable, "one replica that is nearly idle misses the target"
        return profile, cold_start_s

    def run(self, name: str, schedule: Sequence[float], seconds: int, profile: Profile, cold_start_s: float) -> Run:
        """Follow the trace under Evenkeel, or under an HPA; return what came of it."""
        is_ours = name == "Evenkeel"
        latency = {"latency": [{"quantile": QUANTILE, "target": f"{round(1000 * profile.target_s)}ms"}]}
        spec = {"scaling": {"minReplicas": 1, "maxReplicas": pods.MOST}, "objectives": latency} if is_ours else {}
        with pods.served(self.found, self.kubectl, self.model, self.folder, **spec) as deployment:
            if not is_ours:
                deployment.autoscale_on_cpu()
            seen = deployment.follow(schedule)
            status = deployment.deployment.get().get("status")
        kept = {
            "requests": [[r.due, r.sent, r.answered, r.failure] for r in seen.requests],
            "samples": [asdict(sample) for sample in seen.samples], "starts_s": seen.starts_s, "status": status,
        }  # fmt: skip
        where = self.out / f"{name.lower()}.json"
        where.write_text(json.dumps(kept))
        starts_s = list(seen.starts_s.values())
        took_s = statistics.median(starts_s) if starts_s else cold_start_s
        counts = figures.arrived(seen.requests, seconds)
        replicas = expected.Replicas(profile, took_s, Scaling(1, pods.MOST, profile.target_s, QUANTILE))
        predicted = replicas.under_evenkeel(counts) if is_ours else replicas.under_hpa(counts)
        came = figures.result(seen.requests, seen.samples, predicted, profile.target_s, _warm_up(seconds // 60))
        where.write_text(json.dumps({**kept, "predicted": predicted.tolist(), "result": asdict(came)}))
        print(f"{name}: {len(seen.requests)} requests, starts of {took_s:.0f} s in the median, {came}", flush=True)
        if kinds := Counter(request.failure for request in seen.requests if request.failure):
            print(f"{name}: failures {dict(kinds)}", flush=True)
        minutes = figures.by_minute(seen.requests, seconds // 60)
        print(f"{name}: p95 in ms by minute: {' '.join(_ms(value) for value in minutes)}", flush=True)
        return Run(name, counts, minutes, seen.samples, predicted, came)


def _now_and_then() -> list[float]:
    """Return when unloaded requests are sent: at any phase of the quota's period, which even gaps would stay at."""
    chance = random.Random(SEED)
    return [UNLOADED_EVERY_S * (n + chance.random() / 2) for n in range(UNLOADED)]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{1000 * value:.0f}"


def _warm_up(minutes: int) -> int:
    return WARM_UP if minutes >= SHORT else WARM_UP_OF_SHORT


def _require_answered(requests: Sequence[figures.Request]) -> None:
    failed = [request.failure for request in requests if request.failure]
    assert not failed, f"the probe did not answer {len(failed)} of {len(requests)} requests: {failed[0]}"


def _summary(runs: Sequence[Run]) -> dict[str, float]:
    ours, other = (asdict(run.result) for run in runs)
    return {**ours, **{f"hpa_{key}": value for key, value in other.items()}}


def _passes(ours: Result) -> bool:
    got = asdict(ours)
    return all(got[key] >= bar for key, bar in BARS.items()) and ours.failed_requests == 0


def _chosen(asked: argparse.Namespace) -> tuple[excerpt.Excerpt, str]:
    named = os.environ.get("EVENKEEL_TRACES")
    found = excerpt.excerpt(demand.traces(asked.traces or (Path(named) if named else None)), asked.minutes, asked.trace)
    return found, f"minutes {found.begin} to {found.begin + asked.minutes - 1} of {found.trace}"


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.trace", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=int, default=excerpt.MINUTES, help="of the trace (%(default)s; 4: a try)")
    parser.add_argument("--trace", metavar="NAME", help="which to follow; without: the one that the rule chooses")
    parser.add_argument("--traces", type=Path, metavar="FOLDER", help="of CSV files; without: EVENKEEL_TRACES")
    parser.add_argument("--out", type=Path, default=Path("out/trace"), help="folder of what is kept (%(default)s)")
    asked = parser.parse_args()
    if asked.minutes < 2:
        parser.error(f"--minutes {asked.minutes}: the first does not count, so 2 or more")
    try:
        chosen, where = _chosen(asked)
    except BadTrace as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    asked.out.mkdir(parents=True, exist_ok=True)
    print(where, flush=True)
    found = cluster.of_environment()
    kubectl = Kubectl.of(found.kubeconfig)
    installation.install(found)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(found, kubectl, model(), asked.out, Path(folder))
        profile, cold_start_s = bench.probed()
        rate = profile.capacity.rate
        rates: Floats = excerpt.scaled(chosen.expected, PEAK_REPLICAS * rate)
        schedule = excerpt.schedule(rates, SEED)
        runs = [bench.run(name, schedule, len(rates), profile, cold_start_s) for name in ("Evenkeel", "HPA")]
    about = (
        f"{where}, scaled to a peak of {PEAK_REPLICAS} replicas that carry {rate:.2f} requests/s each, p95 within "
        f"{1000 * profile.target_s:.0f} ms; pods of {pods.CPU} CPU, 1 to {pods.MOST}; one run after the other."
    )
    (asked.out / "trace.html").write_text(page("A trace on the cluster", about, runs, profile.target_s, rate))
    print(asked.out / "trace.html")
    for key, value in _summary(runs).items():
        print(f"{key:26} {value:10.4f}" + (f"  >= {BARS[key]}" if key in BARS else ""))
    settings = {
        "trace": chosen.trace, "begin": chosen.begin, "minutes": asked.minutes, "target_ms": 1000 * profile.target_s,
        "capacity_rps": round(rate, 3), "cold_start_s": cold_start_s, "requests": len(schedule),
    }  # fmt: skip
    print(json.dumps({**_summary(runs), **settings}))
    return 0 if _passes(runs[0].result) else 1


if __name__ == "__main__":
    sys.exit(main())
