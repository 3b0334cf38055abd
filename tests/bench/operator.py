"""How does the operator compare with plain objects on the same cluster, and what does it cost to let it run?

Two hundred ModelDeployments against two hundred plain Jobs and then two hundred plain ReplicaSets of one replica, which
is the work that Kubernetes has in either case: a Job that resolves the model, a replica that serves it. The controller
manager's own pace sets both times, so plain objects are measured before and after ours, and the mean counts. Pods run
on nodes that KWOK simulates; the operator is a process of its own, whose memory and CPU nobody shares.

The last line is one JSON object. A bar that is missed makes the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.cluster import installation
from tests.cluster.faults import audit, cluster, deployments, nodes, process
from tests.cluster.faults.deployments import JOBS, MODELDEPLOYMENTS, REPLICA_SETS, Object
from tests.cluster.kubectl import Kubectl, wait_until
from tests.cluster.state import Cluster

FLEET = "bench"
POLL_S = 0.5
PATIENCE_S = 900


@dataclass(frozen=True)
class Result:
    """What counts, and is printed as the last line."""

    ready_vs_plain: float
    rss_mib: float
    idle_core_pct: float
    kopf_patches: int
    second_apply_writes: int


BARS = Result(ready_vs_plain=1.5, rss_mib=200, idle_core_pct=2, kopf_patches=0, second_apply_writes=0)


@dataclass(frozen=True)
class Bench:
    """One run: where, and how many."""

    found: Cluster
    kubectl: Kubectl
    folder: Path
    count: int
    idle_s: float

    def plain(self, namespace: str) -> tuple[float, float]:
        """Return the seconds until plain Jobs complete, and then plain ReplicaSets are ready."""
        with installation.namespace(self.kubectl, namespace):
            jobs_s = self._until_all(
                namespace, JOBS, [_job(namespace, name) for name in self._names()], lambda j: j.get("succeeded") == 1
            )
            sets_s = self._until_all(
                namespace,
                REPLICA_SETS,
                [_replica_set(namespace, name) for name in self._names()],
                lambda s: s.get("readyReplicas") == 1,
            )
        print(f"plain: Jobs complete after {jobs_s:.1f} s, ReplicaSets ready after {sets_s:.1f} s", flush=True)
        return jobs_s, sets_s

    def ours(self, namespace: str) -> tuple[float, Result]:
        """Return the seconds until every ModelDeployment is Ready, and the other figures."""
        wanted = [deployments.deployment(namespace, name, FLEET) for name in self._names()]
        started = audit.now()
        with (
            installation.namespace(self.kubectl, namespace),
            process.running(self.found.kubeconfig, namespace, self.folder) as operator,
        ):
            ready_s = self._until_all(namespace, MODELDEPLOYMENTS, wanted, _is_ready)
            print(f"ours: Ready after {ready_s:.1f} s, {operator.cpu_s():.1f} s of CPU", flush=True)
            deployments.wait_settled(self.kubectl, namespace, self._names(), timeout_s=PATIENCE_S)
            made = audit.settled(self.found, f'"namespace":"{namespace}"', started, timeout_s=60)
            own = [r for r in made if r.agent == audit.OURS and r.is_write]
            print(f"ours: {len(own)} writes for {self.count} ModelDeployments", flush=True)
            idle_pct = operator.core_pct_over(self.idle_s)
            writes = self._second_apply(namespace, wanted)
            by_kopf = audit.requests(self.found, f'"userAgent":"{audit.KOPF}', started)
            assert any(r.verb == "watch" for r in by_kopf), "kopf is not recognised in the audit log"
            result = Result(
                ready_vs_plain=0.0,
                rss_mib=round(operator.peak_rss_mib(), 1),
                idle_core_pct=round(idle_pct, 2),
                kopf_patches=sum(r.is_write for r in by_kopf) + self._traces_of_kopf(namespace),
                second_apply_writes=writes,
            )
        return ready_s, result

    def _second_apply(self, namespace: str, wanted: list[Object]) -> int:
        """Return how many writes of ours follow when everything is applied as it is."""
        started = audit.now()
        self.kubectl.apply(*wanted)
        # One more, as a mark: events of a kind come in their order, so everything before it has been looked at.
        self.kubectl.apply(deployments.deployment(namespace, "mark", FLEET))
        deployments.wait_settled(self.kubectl, namespace, [*self._names(), "mark"], timeout_s=PATIENCE_S)
        seen = audit.settled(self.found, f'"namespace":"{namespace}"', started, timeout_s=60)
        applied = {r.name for r in seen if r.resource == "modeldeployments" and r.verb == "patch"}
        assert applied == {*self._names(), "mark"}, "the second apply did not reach the API server"
        own = [r for r in seen if r.agent == audit.OURS and r.is_write]
        events = sum(r.resource == "events" for r in own)  # Events are posted without a name; the mark has some
        return sum(r.resource != "events" and not r.name.startswith("mark") for r in own) + max(0, events - 5)

    def _traces_of_kopf(self, namespace: str) -> int:
        return sum(
            any("kopf" in word for word in (*(m.get("annotations") or ()), *(m.get("finalizers") or ())))
            for kind in (MODELDEPLOYMENTS, *deployments.CHILDREN)
            for m in (obj["metadata"] for obj in deployments.listed(self.kubectl, namespace, kind))
        )

    def _until_all(
        self, namespace: str, kind: tuple[str, str], wanted: list[Object], is_done: Callable[[Object], bool]
    ) -> float:
        """Apply `wanted`; return the seconds from before that until the status of all of them satisfies `is_done`."""
        started = time.monotonic()
        self.kubectl.apply(*wanted)

        def are_done() -> bool:
            found = deployments.listed(self.kubectl, namespace, kind)
            return sum(is_done(obj.get("status") or {}) for obj in found) >= len(wanted)

        wait_until(f"{len(wanted)} {kind[1]}", are_done, PATIENCE_S, POLL_S)
        return time.monotonic() - started

    def _names(self) -> list[str]:
        return [f"m-{number}" for number in range(self.count)]


def _is_ready(status: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())


def _job(namespace: str, name: str) -> Object:
    spec = {"template": {"spec": _pod() | {"restartPolicy": "Never"}}, "backoffLimit": 0}
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": namespace}, "spec": spec
    }  # fmt: skip


def _replica_set(namespace: str, name: str) -> Object:
    template = {"metadata": {"labels": {"app": name}}, "spec": _pod()}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template},
    }


def _pod() -> dict[str, Any]:
    requests = {"cpu": "100m", "memory": "512Mi"}
    container = {"name": "plain", "image": process.RUNTIME_IMAGE, "resources": {"requests": requests}}
    return {"containers": [container], "automountServiceAccountToken": False, **nodes.placement(FLEET)}


def _table(rows: list[tuple[str, str, str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.operator", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=200, help="ModelDeployments (default: %(default)s)")
    parser.add_argument("--nodes", type=int, default=10, help="simulated nodes (default: %(default)s)")
    parser.add_argument(
        "--idle-seconds", type=float, default=60, help="how long to watch it idle (default: %(default)s)"
    )
    given = parser.parse_args()
    found = cluster.of_environment()
    kubectl = Kubectl.of(found.kubeconfig)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(found, kubectl, Path(folder), given.count, given.idle_seconds)
        with cluster.prepared(kubectl), nodes.simulated(found, kubectl, FLEET, given.nodes, Path(folder)):
            before = bench.plain("bench-plain-before")
            ready_s, result = bench.ours("bench-ours")
            after = bench.plain("bench-plain-after")
    jobs_s, sets_s = ((a + b) / 2 for a, b in zip(before, after, strict=True))
    result = Result(**{**asdict(result), "ready_vs_plain": round(ready_s / (jobs_s + sets_s), 3)})
    got, bars = asdict(result), asdict(BARS)
    rows = [
        ("figure", "got", "bar or bare figure"),
        (f"{given.count} plain Jobs complete", f"{jobs_s:.1f} s", f"{before[0]:.1f} s before, {after[0]:.1f} s after"),
        (
            f"{given.count} plain ReplicaSets ready",
            f"{sets_s:.1f} s",
            f"{before[1]:.1f} s before, {after[1]:.1f} s after",
        ),
        (f"{given.count} ModelDeployments Ready", f"{ready_s:.1f} s", f"{jobs_s + sets_s:.1f} s for both of the above"),
        *((name, str(got[name]), f"<= {bars[name]}") for name in bars),
    ]
    print(_table(rows))
    print(json.dumps(got))
    return 0 if all(got[name] <= bars[name] for name in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
