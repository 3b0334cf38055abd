"""Is every failure named by a reason of its own, with what to do about it, soon after Kubernetes knows?

All cases of the table stand in one namespace and fail at the same time; one watcher notes when Kubernetes first said
that something is wrong with a deployment's pods, and when the deployment itself first said so.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.cluster import s3, samples
from tests.cluster.installation import identities
from tests.cluster.kubectl import Kubectl, wait_until
from tests.cluster.place import REQUESTS, Place, spec
from tests.cluster.processes import CommandFailed

pytestmark = pytest.mark.cluster

TOLD_WITHIN_S = 10
FIRST_WITHIN_S = 180
"""A pod has to be started before it can fail, and a dozen start at once on the machine that runs the test."""
QUIET_S = 30
ABSENT_IMAGE = "localhost:1/evenkeel/absent:1"
"""Nobody listens there, so that a pull fails at once."""


@dataclass(frozen=True)
class Case:
    """A spec that cannot be served. `words`: parts of the message, what is wrong and what to do about it."""

    says: str
    reason: str
    spec: Callable[[Place], dict[str, Any]]
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.says.replace(" ", "-").lower()


def of_file(file: str, **changes: Any) -> Callable[[Place], dict[str, Any]]:
    return lambda place: place.spec(file, **changes)


def of_bucket(key: str, secret: str) -> Callable[[Place], dict[str, Any]]:
    def made(place: Place) -> dict[str, Any]:
        wanted = spec(f"s3://{place.namespace}/{key}")
        wanted["model"]["secretName"] = secret
        return wanted

    return made


def pinned(file: str, sha256: str) -> Callable[[Place], dict[str, Any]]:
    return lambda place: place.spec(file) | {"model": {"uri": f"pvc://models/{file}", "sha256": sha256}}


def of_image(image: Callable[[Place], str]) -> Callable[[Place], dict[str, Any]]:
    return lambda place: place.spec("v1.pt2", runtime={"image": image(place), "resources": {"requests": REQUESTS}})


NONSENSE = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
    {"matchExpressions": [{"key": "disk", "operator": "Nonsense"}]}]}}}  # fmt: skip

CASES = (
    Case(
        "More GPUs than a node has", "Unschedulable", of_file("v1.pt2", gpu={"count": 64}),
        ("asks for 64 nvidia.com/gpu", "0 of 0", "change spec.gpu or spec.replicas"),
    ),
    Case(
        "A product that no node has", "Unschedulable",
        of_file("v1.pt2", gpu={"count": 1, "products": ["NVIDIA-B300"]}),
        ("asks for 1 nvidia.com/gpu", "0 of 0", "add a node"),
    ),
    Case("An absent image", "ImagePullFailed", of_image(lambda _: ABSENT_IMAGE), (ABSENT_IMAGE, "imagePullSecrets")),
    Case("A missing file", "ModelNotFound", of_file("absent.pt2"), ("absent.pt2",)),
    Case(
        "A missing claim", "ModelNotFound", lambda _: spec("pvc://no-claim/v1.pt2"),
        ("PersistentVolumeClaim no-claim does not exist", "Create it, or correct"),
    ),
    Case("A missing key", "ModelNotFound", of_bucket("absent.pt2", "right"), ("absent.pt2",)),
    Case("Wrong credentials", "AccessDenied", of_bucket("v1.pt2", "wrong"), ("spec.model.secretName",)),
    Case(
        "A missing Secret", "AccessDenied", of_bucket("v1.pt2", "no-secret"),
        ("Secret no-secret does not exist", "Create it, or correct spec.model.secretName"),
    ),
    Case(
        "A wrong checksum", "ChecksumMismatch", pinned("v1.pt2", "0" * 64),
        ("spec.model.sha256 says " + "0" * 64, "correct"),
    ),
    Case("A pickle", "FormatRefused", of_file("pickled.pt2"), ("pickle",)),
    Case("Half a file", "FormatRefused", of_file("truncated.pt2"), ("truncated", "upload it again")),
    Case("A model that cannot answer", "LoadFailed", of_file("unable.pt2"), ("does not run", "singular")),
    Case(
        "Too little memory", "OutOfMemory",
        of_file("v1.pt2", runtime={"resources": {"requests": {"memory": "40Mi"}, "limits": {"memory": "40Mi"}}}),
        ("spec.runtime.resources.limits.memory",),
    ),
    Case(
        "An image that exits", "CrashLooping", of_image(lambda place: place.cluster.images["operator"]),
        ("container serve ended with exit code",),
    ),
    Case("Nonsense for the scheduler", "Invalid", of_file("v1.pt2", pod={"affinity": NONSENSE}), ("Nonsense",)),
    Case(
        "No such priority", "Invalid", of_file("v1.pt2", pod={"priorityClassName": "no-such-priority"}),
        ("no-such-priority",),
    ),
    Case("A taken name", "Invalid", of_file("v1.pt2"), ("Service a-taken-name exists", "Rename")),
)  # fmt: skip


@dataclass
class Watcher:
    """When Kubernetes first knew of a deployment's failure, and when the deployment first gave its reason."""

    place: Place
    wanted: dict[str, str]
    known: dict[str, float] = field(default_factory=dict)
    told: dict[str, float] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        where = f"--namespace={self.place.namespace}"
        while not self.over.wait(0.5):
            try:
                found = self.place.kubectl.get("mdep,pods,replicasets,jobs", where)
            except CommandFailed:
                continue  # the next look tells
            self.look(found["items"], time.monotonic())

    def look(self, objects: list[dict[str, Any]], now: float) -> None:
        reasons = {o["metadata"]["name"]: ready(o)["reason"] for o in objects if o["kind"] == "ModelDeployment"}
        failing = {deployment_of(o) for o in objects if o["kind"] != "ModelDeployment" and failed(o)}
        for name in self.wanted.keys() - self.told.keys():
            if name in failing:
                self.known.setdefault(name, now)
            else:
                self.known.pop(name, None)  # what it was has passed
            if reasons.get(name) == self.wanted[name]:
                self.told[name] = now


def deployment_of(obj: dict[str, Any]) -> str:
    return str((obj["metadata"].get("labels") or {}).get("evenkeel.dev/modeldeployment", ""))


def ready(deployment: dict[str, Any]) -> dict[str, str]:
    rows = (deployment.get("status") or {}).get("conditions") or ()
    return next((row for row in rows if row["type"] == "Ready"), {"reason": "", "message": ""})


def failed(child: dict[str, Any]) -> bool:
    """Return whether the status of a pod, Job or ReplicaSet says that something is wrong."""
    status = child.get("status") or {}
    for row in status.get("conditions") or ():
        if (row["type"], row["status"]) in (("PodScheduled", "False"), ("ReplicaFailure", "True"), ("Failed", "True")):
            return True
    for row in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        if ((row["state"].get("terminated") or row.get("lastState", {}).get("terminated")) or {}).get("exitCode"):
            return True
        if row["state"].get("waiting", {}).get("reason", "ContainerCreating") not in (
            "ContainerCreating",
            "PodInitializing",
        ):
            return True
    return False


@pytest.fixture(scope="module")
def watcher(shared: Place) -> Iterator[Watcher]:
    """The table, applied all at once and watched."""
    shared.put(unable__pt2=samples.unable(), pickled__pt2=samples.pickled(), truncated__pt2=samples.truncated())
    store, bucket = s3.Client.of(shared.cluster), shared.namespace
    store.make_bucket(bucket)
    store.put(bucket, "v1.pt2", samples.version(1).content)
    for name, key in (("right", shared.cluster.s3["secret_key"]), ("wrong", "not-the-key")):
        shared.apply("Secret", name, stringData=credentials(shared, key))
    shared.apply("Service", "a-taken-name", spec={"ports": [{"port": 80}]})
    watching = Watcher(shared, {case.name: case.reason for case in CASES})
    thread = threading.Thread(target=watching.run, daemon=True)
    thread.start()
    for case in CASES:
        shared.deployment(case.name).apply(case.spec(shared))
    yield watching
    watching.over.set()
    thread.join(30)
    store.delete(bucket, "v1.pt2")


def credentials(place: Place, secret_key: str) -> dict[str, str]:
    store = place.cluster.s3
    return {
        "AWS_ACCESS_KEY_ID": store["access_key"],
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_ENDPOINT_URL": store["endpoint_in_cluster"],
        "AWS_REGION": store["region"],
    }


@pytest.mark.parametrize("case", [pytest.param(case, id=case.says) for case in CASES])
def test_a_failure_has_a_reason_and_a_message_that_helps(case: Case, watcher: Watcher) -> None:
    deployment = watcher.place.deployment(case.name)
    message = deployment.wait(case.reason, timeout_s=FIRST_WITHIN_S)
    for word in case.words:
        assert word in message
    wait_until("the watcher has seen it, too", lambda: case.name in watcher.told, timeout_s=30)
    if case.name in watcher.known:  # what the API server refuses at once shows in no pod
        took_s = watcher.told[case.name] - watcher.known[case.name]
        assert took_s <= TOLD_WITHIN_S, f"told {took_s:.1f} s after Kubernetes knew"


def test_events_tell_transitions_and_nothing_twice(watcher: Watcher, kubectl: Kubectl) -> None:
    """Failing pods are started again and again meanwhile; that is no news."""
    wait_until("all have failed", lambda: watcher.told.keys() >= watcher.wanted.keys(), FIRST_WITHIN_S)
    where = f"--namespace={watcher.place.namespace}"

    def told() -> Counter[tuple[str, str]]:
        events = kubectl.get("events", where, "--field-selector=involvedObject.kind=ModelDeployment")["items"]
        return Counter((e["involvedObject"]["name"], e["reason"]) for e in events)

    time.sleep(QUIET_S)
    got = told()
    assert {(name, reason) for name, reason in watcher.wanted.items()} <= got.keys()
    assert {key: count for key, count in got.items() if count > 1} == {}


@pytest.mark.parametrize(
    ("pods", "who"),
    [
        pytest.param(0, "the prepare Job", id="a quota that lets no pod in"),
        pytest.param(1, "a replica", id="a quota that lets one of two replicas in"),
    ],
)
def test_a_quota_that_refuses_a_pod_is_named(pods: int, who: str, here: Place) -> None:
    here.apply("ResourceQuota", "few", spec={"hard": {"pods": str(pods)}})
    digits = here.deployment("digits")
    digits.apply(here.spec("v1.pt2", replicas=2))
    message = digits.wait("QuotaExceeded", timeout_s=90)
    assert "exceeded quota: few" in message, who
    assert "Raise the quota" in message
    here.apply("ResourceQuota", "few", spec={"hard": {"pods": "5"}})
    digits.settle(2, timeout_s=180)


def test_bytes_that_change_under_a_pinned_digest_are_refused_and_the_others_serve(here: Place) -> None:
    digits = here.deployment("digits")
    digits.apply(here.spec("v1.pt2", replicas=2))
    gone, stays = digits.settle(2)
    here.put(v1__pt2=samples.version(2).content)
    here.kubectl.ask("delete", "pod", gone["metadata"]["name"], f"--namespace={here.namespace}", "--wait=false")
    message = digits.wait("ModelChanged", timeout_s=90)
    assert "v1.pt2" in message
    assert digits.condition("Available")[:2] == ("True", "ReplicasAnswer")
    assert identities([stays]).items() <= identities(digits.replicas()).items()
    assert digits.get()["status"]["model"]["digest"] == samples.version(1).digest
    here.put(v1__pt2=samples.version(1).content)
    digits.settle(2, timeout_s=180)
