"""Who sends requests and, later, their truths? A pod beside the deployment, through Evenkeel's own Service.

From inside, as the Service's selector moves with a rollout; `traffic.py`, through loopback, has a Service of its own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.installation import Deployment
from tests.cluster.kubectl import wait_until
from tests.cluster.place import CLAIM, Place

FILE = "requests.jsonl"


@dataclass(frozen=True)
class Counts:
    """What came of it so far: answers by revision, failures by kind, labels by outcome."""

    answered: int
    failed: dict[str, int]
    versions: dict[str, int]
    labels: dict[str, int]
    first: str


@dataclass(frozen=True)
class Application:
    """The pod."""

    deployment: Deployment
    name: str

    def counts(self) -> Counts:
        """Return its last line."""
        where = f"--namespace={self.deployment.namespace}"
        text = self.deployment.kubectl.ask("logs", self.name, where, "--tail=1").strip()
        return Counts(**json.loads(text)) if text else Counts(0, {}, {}, {}, "")


def rows(count: int, *, noise: float, seed: int = 0) -> list[dict[str, Any]]:
    """Return requests for `samples.voter`, each with its truth: the largest of three numbers, or, by noise, another."""
    chance, found = random.Random(seed), []
    for _ in range(count):
        x = [chance.gauss(0, 1) for _ in range(3)]
        label = x.index(max(x))
        if chance.random() < noise:
            label = (label + 1 + chance.randrange(2)) % 3
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [*x, 0.0]}
        found.append({"body": {"inputs": [tensor]}, "label": label})
    return found


@contextmanager
def application(
    here: Place, deployment: Deployment, requests: list[dict[str, Any]], *, rps: float = 20, share: float = 1.0
) -> Iterator[Application]:
    """Send and label until the block ends."""
    here.put(**{FILE.replace(".", "__"): "".join(json.dumps(row) + "\n" for row in requests).encode()})
    name = f"application-{deployment.name}"
    script = Path(__file__).with_name("labelled_client.py").read_text()
    here.apply("ConfigMap", name, data={"client.py": script})
    url = f"http://{deployment.name}.{here.namespace}.svc/v2/models/{deployment.name}/infer"
    container = {
        "name": "client",
        "image": here.cluster.images["operator"],
        "command": ["python", "/client/client.py", url, f"/requests/{FILE}", str(rps), str(share)],
        "volumeMounts": [{"name": "client", "mountPath": "/client"}, {"name": "requests", "mountPath": "/requests"}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    here.apply(
        "Pod",
        name,
        spec={
            "containers": [container],
            "volumes": [
                {"name": "client", "configMap": {"name": name}},
                {"name": "requests", "persistentVolumeClaim": {"claimName": CLAIM}},
            ],
            "terminationGracePeriodSeconds": 0,
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        },
    )
    found = Application(deployment, name)
    where = f"--namespace={here.namespace}"
    here.kubectl.ask("wait", "--for=condition=Ready", f"pod/{name}", where, "--timeout=60s")
    wait_until("the application is answered", lambda: found.counts().answered > 0, timeout_s=60)
    try:
        yield found
    finally:
        here.kubectl.ask("delete", "pod", name, where, "--wait=true", "--timeout=60s")
