"""Is the loop closed on a real cluster: drift, alarm, retraining, canary, promotion, with nobody's hand in it?

Real digits, real labels, the manifests and the code of `examples/digits`. The sheets are scanned sideways from some
moment on; the revision in service reads one turned digit in ten. Labels count by the quarter of an hour: one of them
until the alarm, one until the canary's verdict, each after the one that has begun already, so up to an hour.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from examples.digits import data, drift, evaluate, export, train
from examples.digits.model import Net
from tests.cluster import installation, labelled
from tests.cluster.installation import SYSTEM_NAMESPACE, Deployment, kill, operator_pods
from tests.cluster.kubectl import Kubectl, wait_until
from tests.cluster.labelled import Application
from tests.cluster.place import Place
from tests.cluster.state import Cluster
from tests.cluster.test_canary import QUICK, canary, wait_state

pytestmark = [pytest.mark.cluster, pytest.mark.soak]

EXAMPLE = Path(drift.__file__).parent
NAME, RPS = "digits", 10.0
QUARTER_S = 900
OBJECTIVE = {"metric": "Accuracy", "floor": 0.85, "margin": 0.02, "horizon": "1s"}
ROLLOUT = {
    "strategy": "Canary",
    "canary": {"mode": "Split", "steps": [{"weight": 50, "minDuration": "10s", "minSamples": 20}]},
}
RECEIVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.rfile.read(int(self.headers["Content-Length"])).decode(), flush=True)
        self.send_response(204)
        self.end_headers()
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def digits() -> data.Digits:
    return data.load()


@pytest.fixture(scope="module")
def upright(digits: data.Digits, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a network that reads upright digits, and turned ones by chance alone."""
    torch.manual_seed(0)
    net = Net()
    for _ in train.fit(net, digits.train_images, digits.train_labels, replace(train.Options(), epochs=8)):
        pass
    path = tmp_path_factory.mktemp("digits") / "v1.pt2"
    model = export.save(net.eval(), path, digits.heldout_images)
    reads = evaluate.quality(digits.heldout_labels, evaluate.predictions(model, digits.heldout_images)).accuracy
    images = drift.turned(digits.heldout_images)
    guesses = evaluate.quality(digits.heldout_labels, evaluate.predictions(model, images)).accuracy
    assert reads > 0.95
    assert guesses < 0.5
    return path.read_bytes()


@pytest.fixture
def deployment(here: Place, cluster: Cluster, upright: bytes) -> Deployment:
    """The example, in service: its model, its CronJob with the code that it runs, and a receiver of events."""
    installation.install(cluster, f"extraArgs={{{QUICK}}}")
    here.put(v1__pt2=upright)
    here.apply("ConfigMap", "digits-code", data={path.name: path.read_text() for path in EXAMPLE.glob("*.py")})
    manifests = (EXAMPLE / "retrain.yaml").read_text().replace("evenkeel/runtime:0.1.0", cluster.images["runtime"])
    where = f"--namespace={here.namespace}"
    here.kubectl.ask("apply", "--server-side", where, "-f", "-", stdin=manifests)
    receiver(here)
    found = here.deployment(NAME)
    found.apply(
        here.spec(
            "v1.pt2",
            rollout=ROLLOUT,
            objectives={"accuracy": [OBJECTIVE]},
            retraining={
                "eventURL": f"http://events.{here.namespace}.svc:8080/alarms",
                "cronJobRef": {"name": "digits-retrain"},
            },
        )
    )
    found.settle(1)
    wait_until("a Job can be started", lambda: found.condition("Retrainable")[0] == "True", timeout_s=60)
    return found


def receiver(here: Place) -> None:
    """Start a pod that prints the events that it receives, a line each, and a Service before it."""
    labels = {"app": "events"}
    here.apply("ConfigMap", "events", data={"receiver.py": RECEIVER})
    here.apply("Service", "events", spec={"selector": labels, "ports": [{"port": 8080}]})
    container = {
        "name": "receiver",
        "image": here.cluster.images["operator"],
        "command": ["python", "/receiver/receiver.py"],
        "volumeMounts": [{"name": "code", "mountPath": "/receiver"}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    here.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "events", "namespace": here.namespace, "labels": labels},
            "spec": {
                "containers": [container],
                "volumes": [{"name": "code", "configMap": {"name": "events"}}],
                "terminationGracePeriodSeconds": 0,
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            },
        }
    )
    where = f"--namespace={here.namespace}"
    here.kubectl.ask("wait", "--for=condition=Ready", "pod/events", where, "--timeout=60s")


def alarm(deployment: Deployment) -> dict[str, Any]:
    """Return the newest alarm and what has followed; empty while there is none."""
    rows = (deployment.get().get("status") or {}).get("retraining") or [{}]
    found: dict[str, Any] = rows[0]
    return found


def received(here: Place) -> list[dict[str, Any]]:
    text = here.kubectl.ask("logs", "events", f"--namespace={here.namespace}")
    return [json.loads(line) for line in text.splitlines()]


def retraining_jobs(deployment: Deployment) -> list[dict[str, Any]]:
    jobs = deployment.children("jobs")
    return [job for job in jobs if job["metadata"]["labels"]["evenkeel.dev/role"] == "retrain"]


def until_a_quarter_counts() -> float:
    """Return the seconds until the next quarter of an hour is over."""
    return (time.time() // QUARTER_S + 2) * QUARTER_S - time.time()


@pytest.fixture
def sideways(here: Place, deployment: Deployment, digits: data.Digits) -> Iterator[Application]:
    """Let an application send upright digits for a while, and turned ones from then on."""
    with labelled.application(here, deployment, list(drift.records(*heldout(digits))), rps=RPS) as before:
        wait_until("upright digits are answered", lambda: before.counts().answered > 100, timeout_s=120)
        assert before.counts().failed == {}
    images = drift.turned(torch.cat([digits.train_images, digits.heldout_images]))
    labels = torch.cat([digits.train_labels, digits.heldout_labels])
    with labelled.application(here, deployment, list(drift.records(images, labels)), rps=RPS) as found:
        yield found


def heldout(digits: data.Digits) -> tuple[torch.Tensor, torch.Tensor]:
    return digits.heldout_images, digits.heldout_labels


def test_what_has_decayed_is_retrained_tried_and_promoted(
    here: Place, kubectl: Kubectl, deployment: Deployment, sideways: Application
) -> None:
    old = deployment.get()["status"]["stableRevision"]
    timeout_s = until_a_quarter_counts() + 180
    wait_until("the alarm is raised", lambda: bool(alarm(deployment)), timeout_s=timeout_s, every_s=2)
    assert alarm(deployment)["revision"] == old
    wait_until("its Job is there", lambda: bool(retraining_jobs(deployment)), timeout_s=60)
    (job,) = retraining_jobs(deployment)
    kill(kubectl, lambda: str(operator_pods(kubectl)[0]["metadata"]["name"]), SYSTEM_NAMESPACE)

    def has_ended() -> bool:
        return alarm(deployment).get("state") in ("Succeeded", "Failed")

    wait_until("the Job has ended", has_ended, timeout_s=1500, every_s=2)
    told = kubectl.ask("logs", f"job/{job['metadata']['name']}", f"--namespace={here.namespace}")
    assert alarm(deployment)["state"] == "Succeeded", (alarm(deployment), told)
    assert "labels of it since the decay began" in told
    uri = f"pvc://models/digits-{alarm(deployment)['alarm']}.pt2"
    assert deployment.get()["spec"]["model"]["uri"] == uri

    wait_until("the canary's step begins", lambda: bool(canary(deployment).get("stepsBegan")), timeout_s=300)
    new = canary(deployment)["revision"]
    assert (canary(deployment)["stable"], deployment.get()["status"]["stableRevision"]) == (old, old)
    assert alarm(deployment)["successor"] == new
    done = wait_state(deployment, "Promoted", timeout_s=until_a_quarter_counts() + 300)
    assert done["why"] == "NotWorse"
    deployment.settle(1)
    wait_until("it is the stable one", lambda: deployment.get()["status"]["stableRevision"] == new, timeout_s=120)

    assert [job["metadata"]["uid"] for job in retraining_jobs(deployment)] == [job["metadata"]["uid"]]
    wait_until("the event is delivered", lambda: alarm(deployment)["event"] == "Delivered", timeout_s=60)
    assert {event["id"] for event in received(here)} == {alarm(deployment)["alarm"]}
    counts = sideways.counts()
    assert counts.failed == {}, f"the first at {counts.first}"
    assert set(counts.labels) == {"accepted"}, counts.labels
    print(told)
    print(json.dumps({"alarm": alarm(deployment), "canary": done, "event": received(here)[0]}, indent=1))
    print(deployment.evenkeel("explain"))
