"""What does it cost to follow a thousand ModelDeployments by their latency, and how soon is a decision there?

The real operator process, against the protocol fake of the API server and three replicas of each ModelDeployment that
answer over real HTTP, a loopback address each; the fakes run in this process, whose CPU is not counted. Every
ModelDeployment's replicas are differently fast, so that each has a capacity of its own to be computed, and its load
moves it between sizes.

    decision_ms         mean time of one decision of the law
    poll_1000_cores     CPU of the operator per second, all of it: polling, capacities, decisions, writes
    decision_lag_p95_s  from when a round was due to its decision: an upper edge of the histogram's bucket

The last line is one JSON object. A bar that is missed makes the exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.system.operator.fakeapi.actors import Actors
from tests.system.operator.fakeapi.server import FakeApi
from tests.system.operator.harness import Operator, eventually, modeldeployment
from tests.system.operator.replicas import FakeReplicas

REPLICAS = 3
RATE = 5.0
"""Requests per second and replica."""
BARS = {"decision_ms": 1.0, "poll_1000_cores": 0.5, "decision_lag_p95_s": 1.0}


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def series(page: str, name: str) -> dict[str, float]:
    """Return the samples of one family without labels but `le`, by that."""
    found = re.findall(rf'^{name}(?:{{le="([^"]+)"}})? (\S+)$', page, re.M)
    return {label: float(value) for label, value in found}


def quantile(before: Mapping[str, float], after: Mapping[str, float], share: float) -> float:
    """Return the upper edge of the bucket that holds the `share`-quantile of what came between two pages."""
    counts = {float(edge.replace("+Inf", "inf")): after[edge] - before.get(edge, 0.0) for edge in after}
    total = max(counts.values())
    return min(edge for edge, count in counts.items() if count >= share * total)


async def measured(count: int, seconds: float) -> dict[str, float]:
    """Return the figures of `count` ModelDeployments over so many seconds."""
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        async with FakeApi() as api, FakeReplicas() as replicas:
            Actors(api.store, replicas=replicas)
            async with Operator(api, Path(folder), f"--signals-port={replicas.port}") as operator:
                for number in range(count):
                    api.store.create(
                        modeldeployment(
                            f"m{number}",
                            replicas=REPLICAS,
                            scaling={"minReplicas": REPLICAS, "maxReplicas": REPLICAS + 1},
                            objectives={"latency": [{"quantile": 0.95, "target": f"{80 + number % 40}ms"}]},
                        )
                    )
                await eventually(lambda: len(replicas.known) >= REPLICAS * count, within_s=900)
                for number, replica in enumerate(replicas.known.values()):
                    batch_s = 0.005 + 0.00001 * (number // REPLICAS)
                    replica.signals.profile = ((1, batch_s), (8, batch_s * chance.uniform(4, 8)))
                replicas.rate = RATE * len(replicas.known)
                await asyncio.sleep(120)  # every capacity is computed, every Lease and watch is as it stays
                _, first = await operator.get("/metrics")
                spent, began = cpu_s(operator.process.pid), time.monotonic()
                await asyncio.sleep(seconds)
                spent, took = cpu_s(operator.process.pid) - spent, time.monotonic() - began
                _, last = await operator.get("/metrics")
    name = "evenkeel_decision_duration_seconds"
    decisions = series(last, f"{name}_count")[""] - series(first, f"{name}_count")[""]
    busy_s = series(last, f"{name}_sum")[""] - series(first, f"{name}_sum")[""]
    lag = "evenkeel_decision_lag_seconds_bucket"
    print(f"{decisions / took:.0f} decisions/s of {count / 5:.0f} wanted")
    return {
        "decision_ms": round(1000 * busy_s / decisions, 3),
        "poll_1000_cores": round(spent / took * 1000 / count, 3),
        "decision_lag_p95_s": quantile(series(first, lag), series(last, lag), 0.95),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.poll", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="ModelDeployments (1000)")
    parser.add_argument("--seconds", type=float, default=120, help="over how long it is measured (120)")
    asked = parser.parse_args()
    found = asyncio.run(measured(asked.count, asked.seconds))
    for name, bar in BARS.items():
        print(f"{name:20} {found[name]:8.3f}  <= {bar}")
    print(json.dumps(found))
    return 0 if all(found[name] <= bar for name, bar in BARS.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
