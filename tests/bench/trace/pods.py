"""What does the bench do in the cluster? One ModelDeployment at a time, of pods with a quota, asked from outside.

Each has a namespace of its own that is gone, its port with it, before the next begins: they never share the CPUs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.decide.readings import Reading, read
from evenkeel_runtime import contract
from tests.bench.trace import figures
from tests.bench.trace.figures import Request, Sample
from tests.bench.trace.model import Model
from tests.cluster.installation import Deployment, answers, wait_answering
from tests.cluster.kubectl import Kubectl, wait_until
from tests.cluster.place import Place, place, wait_gone
from tests.cluster.processes import CommandFailed
from tests.cluster.state import CHECKOUT, Cluster

NODE_PORT = 30082
FILE, NAME = "model.pt2", "traced"
CPU, CPUS, MEMORY = "200m", 0.2, "500Mi"
MOST = 4
START_WITHIN_S = 600
"""A start under the quota, its resolving and its image included."""

SAMPLE_S = 5.0
LEAD_S = 3.0
"""From the start of the generator until the first second of the trace."""


@dataclass
class Followed:
    """What was seen while requests came: `starts_s` by the name of each replica that was seen to start."""

    requests: list[Request]
    samples: list[Sample]
    starts_s: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Served:
    """One ModelDeployment that answers."""

    here: Place
    deployment: Deployment
    port: int
    model: Model
    folder: Path

    def follow(self, schedule: Sequence[float], *, is_watched: bool = True) -> Followed:
        """Send requests at their times; return what became of them, and of the replicas meanwhile."""
        request, told, out = (self.folder / name for name in ("request", "schedule.json", "answers.jsonl"))
        request.write_bytes(http_request(self.deployment.name, self.model.body))
        told.write_text(json.dumps(list(schedule)))
        begin = time.monotonic() + LEAD_S
        words = [sys.executable, "-m", "tests.bench.trace.generator", str(self.port)]
        generator = subprocess.Popen([*words, str(request), str(told), repr(begin), str(out)], cwd=CHECKOUT)
        found = Followed([], [])
        before = set(self._ready_pods())
        try:
            due = begin
            while generator.poll() is None:
                time.sleep(max(0.05, min(due - time.monotonic(), 1.0)))
                if is_watched and time.monotonic() >= due:
                    self._look(begin, before, found)
                    due += SAMPLE_S * max(1, int((time.monotonic() - due) / SAMPLE_S) + 1)
        finally:
            if generator.poll() is None:
                generator.kill()
                generator.wait()
        if generator.returncode:
            raise CommandFailed(words, generator.returncode, "the generator ended")
        found.requests = figures.read(out)
        return found

    def reading(self) -> Reading:
        """Return what its only replica says, through the API server."""
        (pod,) = self.deployment.replicas()
        where = f"/api/v1/namespaces/{self.here.namespace}/pods/{pod['metadata']['name']}:{contract.ADMIN_PORT}"
        return read(self.here.kubectl.ask("get", f"--raw={where}/proxy{contract.SIGNALS_PATH}").encode())

    def cold_start_s(self) -> float:
        """Return how long the slowest of its replicas took from its creation until it was ready."""
        return max(start_s(pod) for pod in self.deployment.replicas())

    def autoscale_on_cpu(self) -> None:
        """Let a HorizontalPodAutoscaler write its size, with every default, and wait until it has figures."""
        self.here.apply(
            "HorizontalPodAutoscaler",
            NAME,
            version="autoscaling/v2",
            spec={
                "scaleTargetRef": {"apiVersion": "evenkeel.dev/v1alpha1", "kind": "ModelDeployment", "name": NAME},
                "minReplicas": 1,
                "maxReplicas": MOST,
            },
        )
        where = f"--namespace={self.here.namespace}"

        def is_active() -> bool:
            status = self.here.kubectl.get("hpa", NAME, where).get("status") or {}
            rows = {row["type"]: row["status"] for row in status.get("conditions") or ()}
            return rows.get("AbleToScale") == rows.get("ScalingActive") == "True"

        wait_until("the autoscaler reads the replicas' CPU", is_active, timeout_s=300)
        # Its start took CPU too, of which the autoscaler may have made more replicas: those go first.
        wait_until("one replica is left", lambda: len(self._ready_pods()) == 1, timeout_s=900)

    def _look(self, begin: float, before: set[str], found: Followed) -> None:
        """Take a sample; one that cannot be had is left out."""
        at = time.monotonic() - begin
        try:
            children = self.deployment.children("replicasets", "pods")
        except CommandFailed as e:
            print(f"no sample at {at:.0f} s: {e}", file=sys.stderr, flush=True)
            return
        sets = [child for child in children if child["kind"] == "ReplicaSet"]
        wanted = sum(row["spec"]["replicas"] for row in sets)
        ready = sum(row["status"].get("readyReplicas", 0) for row in sets)
        found.samples.append(Sample(max(0.0, at), wanted, ready))
        for pod in children:
            name = pod["metadata"]["name"]
            is_new = pod["kind"] == "Pod" and name not in before and name not in found.starts_s
            if is_new and answers(pod):
                found.starts_s[name] = start_s(pod)

    def _ready_pods(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.deployment.replicas() if answers(pod)]


def http_request(name: str, body: bytes) -> bytes:
    """Return a prediction as it goes over the wire, one for each connection."""
    head = f"POST /v2/models/{name}/infer HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def start_s(pod: dict[str, Any]) -> float:
    """Return the time from a pod's creation until it was ready."""
    (ready,) = (row for row in pod["status"]["conditions"] if row["type"] == "Ready")
    created = parse_time(pod["metadata"]["creationTimestamp"])
    return (parse_time(ready["lastTransitionTime"]) - created).total_seconds()


@contextmanager
def served(cluster: Cluster, kubectl: Kubectl, model: Model, folder: Path, **spec: Any) -> Iterator[Served]:
    """A ModelDeployment of one replica that answers; gone, with its namespace, when the block ends."""
    with place(cluster, kubectl) as here:
        here.put(**{FILE.replace(".", "__"): model.content})
        deployment = here.deployment(NAME)
        deployment.expose(NODE_PORT)
        resources = {"requests": {"cpu": CPU, "memory": MEMORY}, "limits": {"cpu": CPU}}
        deployment.apply(here.spec(FILE, runtime={"resources": resources}, **spec))
        deployment.settle(1, timeout_s=START_WITHIN_S)
        port = cluster.node_ports[str(NODE_PORT)]
        wait_answering(deployment, port, model.body)
        yield Served(here, deployment, port, model, folder)
    wait_gone(kubectl, [here.namespace])
