"""Does one applied ModelDeployment become pods that answer, stay as they are, and go without a trace?"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster import s3, samples
from tests.cluster.installation import (
    SYSTEM_NAMESPACE,
    Deployment,
    identities,
    kill,
    operator_pods,
    wait_answering,
)
from tests.cluster.kubectl import Kubectl, columns, wait_until
from tests.cluster.place import Place, spec
from tests.cluster.processes import CommandFailed
from tests.cluster.state import Cluster

pytestmark = pytest.mark.cluster

NODE_PORT = 30081
RESTORED_S = 30


@pytest.fixture(scope="module")
def standing(shared: Place) -> Deployment:
    """One deployment with one replica, which the tests below hurt and find healed."""
    made = shared.deployment("standing")
    made.apply(shared.spec("v1.pt2"))
    made.settle(1)
    return made


def inventory(kubectl: Kubectl, namespace: str) -> set[str]:
    """Return KIND/NAME of everything in a namespace. Events are history, not something left behind."""
    kinds = kubectl.ask("api-resources", "--verbs=list", "--namespaced=true", "--output=name").split()
    asked = ",".join(kind for kind in kinds if not kind.startswith("events"))
    return set(kubectl.ask("get", asked, f"--namespace={namespace}", "--output=name", "--ignore-not-found").split())


def close(got: list[float], want: tuple[float, ...]) -> bool:
    return got == pytest.approx(list(want), abs=1e-5)


def test_an_applied_model_is_prepared_pinned_and_served_as_torch_computes_it(
    here: Place, cluster: Cluster, free_gpus: None
) -> None:
    digits, sample = here.deployment("digits"), samples.version(1)
    digits.apply(here.spec("v1.pt2", gpu={"count": 1}))

    wait_until("there is a prepare Job", lambda: bool(digits.children("jobs")), every_s=0.1)
    (job,) = digits.children("jobs")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in json.dumps(container["resources"])

    here.kubectl.ask("wait", "--for=condition=Ready", "mdep/digits", f"--namespace={here.namespace}", "--timeout=120s")
    (revision,) = digits.children("controllerrevisions")
    assert revision["data"]["model"]["digest"] == sample.digest
    assert revision["data"]["runtimeImage"] == cluster.images["runtime"]
    (replica_set,) = digits.children("replicasets")
    (kept,) = revision["data"]["template"]["spec"]["containers"]
    (runs,) = replica_set["spec"]["template"]["spec"]["containers"]
    assert (runs["image"], runs["env"]) == (kept["image"], kept["env"])
    assert runs["resources"]["limits"] == {"nvidia.com/gpu": 1} or runs["resources"]["limits"] == {
        "nvidia.com/gpu": "1"
    }

    status = digits.get()["status"]
    assert (status["replicas"], status["readyReplicas"]) == (1, 1)
    assert status["url"] == f"http://digits.{here.namespace}.svc"
    assert status["stableRevision"] == revision["metadata"]["name"]
    assert status["model"]["digest"] == sample.digest
    assert status["model"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, samples.FEATURES]}]
    assert [c["status"] for c in status["conditions"]] == ["True", "False", "False", "True"]

    digits.expose(NODE_PORT)
    port = cluster.node_ports[str(NODE_PORT)]
    wait_answering(digits, port, sample.body)
    (output,) = digits.predict(port, sample.body)["outputs"]
    assert close(output["data"], sample.want)

    got = columns(here.kubectl.ask("get", "mdep", f"--namespace={here.namespace}"))
    assert got | {"NAME": "digits", "READY": "True", "REASON": "Serving", "REPLICAS": "1"} == got


def test_only_restricted_pods_are_let_in_where_the_replicas_run(standing: Deployment, shared: Place) -> None:
    container = {"name": "c", "image": shared.cluster.images["operator"], "securityContext": {"privileged": True}}
    with pytest.raises(CommandFailed, match="violates PodSecurity"):
        shared.apply("Pod", "privileged", spec={"containers": [container]})
    (pod,) = standing.settle(1)
    assert all(not row["name"].startswith("kube-api-access") for row in pod["spec"]["volumes"])


def test_credentials_stay_with_the_container_that_fetches(here: Place, cluster: Cluster) -> None:
    sample, store, bucket = samples.version(2), s3.Client.of(cluster), here.namespace
    store.make_bucket(bucket)
    store.put(bucket, "digits/v2.pt2", sample.content)
    here.apply(
        "Secret",
        "bucket",
        stringData={
            "AWS_ACCESS_KEY_ID": cluster.s3["access_key"],
            "AWS_SECRET_ACCESS_KEY": cluster.s3["secret_key"],
            "AWS_ENDPOINT_URL": cluster.s3["endpoint_in_cluster"],
            "AWS_REGION": cluster.s3["region"],
        },
    )
    digits = here.deployment("digits")
    wanted = spec(f"s3://{bucket}/digits/v2.pt2")
    wanted["model"]["secretName"] = "bucket"
    digits.apply(wanted)
    (pod,) = digits.settle(1)

    (fetch,), (serve,) = pod["spec"]["initContainers"], pod["spec"]["containers"]
    assert fetch["envFrom"] == [{"secretRef": {"name": "bucket"}}]
    assert "bucket" not in json.dumps(serve)
    name = pod["metadata"]["name"]
    seen = here.kubectl.ask("exec", name, f"--namespace={here.namespace}", "--container=serve", "--", "env")
    assert "AWS_" not in seen
    digits.expose(NODE_PORT)
    port = cluster.node_ports[str(NODE_PORT)]
    wait_answering(digits, port, sample.body)
    assert close(digits.predict(port, sample.body)["outputs"][0]["data"], sample.want)
    store.delete(bucket, "digits/v2.pt2")


@pytest.mark.parametrize(
    "kind",
    ["service", "poddisruptionbudget", "controllerrevision", "replicaset", "pod"],
)
def test_a_child_deleted_by_hand_is_there_again(kind: str, standing: Deployment, kubectl: Kubectl) -> None:
    standing.settle(1)

    def there() -> list[dict[str, Any]]:
        return [c for c in standing.children(kind) if "deletionTimestamp" not in c["metadata"]]

    (before,) = there()
    name, where = before["metadata"]["name"], f"--namespace={standing.namespace}"
    kubectl.ask("delete", kind, name, where, "--wait=false")

    def is_there_again() -> bool:
        return [c["metadata"]["uid"] != before["metadata"]["uid"] for c in there()] == [True]

    wait_until(f"{kind} {name} is there again", is_there_again, RESTORED_S, every_s=0.2)
    (after,) = there()
    if kind == "controllerrevision":
        assert (after["metadata"]["name"], after["data"]) == (name, before["data"])
    if kind == "service":
        assert after["spec"]["selector"] == before["spec"]["selector"]
    standing.settle(1)


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        pytest.param("service", {"spec": {"selector": {"app": "elsewhere"}}}, id="a further label to select by"),
        pytest.param(
            "service", {"spec": {"selector": {"evenkeel.dev/role": "elsewhere"}}}, id="another value to select by"
        ),
        pytest.param("poddisruptionbudget", {"spec": {"maxUnavailable": 0}}, id="a budget that blocks every drain"),
        pytest.param("replicaset", {"spec": {"replicas": 0}}, id="no replicas"),
        pytest.param("replicaset", {"spec": {"replicas": 3}}, id="more replicas"),
        pytest.param("replicaset", {"metadata": {"labels": {"evenkeel.dev/role": None}}}, id="a label less"),
    ],
)
def test_a_child_edited_by_hand_is_as_it_was(
    kind: str, patch: dict[str, Any], standing: Deployment, kubectl: Kubectl
) -> None:
    standing.settle(1)
    (before,) = standing.children(kind)
    name, where = before["metadata"]["name"], f"--namespace={standing.namespace}"
    kubectl.ask("patch", kind, name, where, "--type=merge", f"--patch={json.dumps(patch)}")

    def content(obj: dict[str, Any]) -> tuple[Any, Any]:
        return obj["spec"], obj["metadata"]["labels"]

    def is_restored() -> bool:
        return content(kubectl.get(kind, name, where)) == content(before)

    wait_until(f"{kind} {name} is as it was", is_restored, RESTORED_S, every_s=0.2)
    standing.settle(1)


def test_a_second_identical_apply_writes_nothing(standing: Deployment, shared: Place) -> None:
    standing.settle(1)
    kinds = ("services", "poddisruptionbudgets", "controllerrevisions", "replicasets", "pods")

    def versions() -> dict[str, str]:
        staying = (o["metadata"] for o in standing.children(*kinds) if "deletionTimestamp" not in o["metadata"])
        return {found["uid"]: found["resourceVersion"] for found in staying}

    before = versions()
    standing.apply(shared.spec("v1.pt2"))
    # A label wakes the operator without asking for anything else.
    where = f"--namespace={standing.namespace}"
    shared.kubectl.ask("label", "mdep", standing.name, where, "woken=yes")
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        assert versions() == before
    shared.kubectl.ask("label", "mdep", standing.name, where, "woken-")


def test_delete_leaves_nothing_behind(here: Place, kubectl: Kubectl) -> None:
    before = inventory(kubectl, here.namespace)
    digits = here.deployment("digits")
    digits.apply(here.spec("v1.pt2", replicas=2))
    digits.settle(2)
    digits.apply(here.spec("v2.pt2", replicas=2))  # so that there is history, too
    digits.wait("Serving")
    assert len(digits.children("controllerrevisions")) == 2
    kubectl.ask("delete", "mdep", "digits", f"--namespace={here.namespace}")
    got: set[str] = set()

    def is_clean() -> bool:
        got.clear()
        got.update(inventory(kubectl, here.namespace) - before)
        return not got

    try:
        wait_until("everything is gone", is_clean, timeout_s=90, every_s=1)
    except CommandFailed as failure:
        raise AssertionError(f"left behind: {sorted(got)}") from failure


class Moments:
    """What can be going on when the operator dies, each to its end; `digits` is the deployment it goes on with."""

    def __init__(self, place: Place) -> None:
        self.place, self.digits = place, place.deployment("digits")
        self.empty = inventory(place.kubectl, place.namespace)

    def create(self) -> Callable[[], object]:
        self.digits.apply(self.place.spec("v1.pt2"))
        return lambda: self.digits.settle(1)

    def update(self) -> Callable[[], object]:
        self.digits.apply(self.place.spec("v2.pt2"))
        return self.is_updated

    def is_updated(self) -> None:
        self.digits.wait("Serving")
        self.digits.settle(1)
        assert self.digits.get()["status"]["model"]["digest"] == samples.version(2).digest

    def scale(self) -> Callable[[], object]:
        where = f"--namespace={self.place.namespace}"
        self.place.kubectl.ask("scale", "mdep", "digits", "--replicas=2", where)
        return lambda: self.digits.settle(2)

    def delete(self) -> Callable[[], object]:
        where = f"--namespace={self.place.namespace}"
        self.place.kubectl.ask("delete", "mdep", "digits", where, "--wait=false")
        return self.is_deleted

    def is_deleted(self) -> None:
        left = self.empty
        wait_until(
            "nothing is left", lambda: inventory(self.place.kubectl, self.place.namespace) <= left, 90, every_s=1
        )


@pytest.mark.parametrize(
    "kills",
    [pytest.param(4, id="4 kills"), pytest.param(20, id="20 kills", marks=pytest.mark.soak)],
)
def test_an_operator_killed_at_any_moment_changes_nothing_for_the_pods(
    kills: int, standing: Deployment, here: Place, kubectl: Kubectl
) -> None:
    untouched = identities(standing.settle(1))
    moments, chance = Moments(here), random.Random(1)
    order = (moments.create, moments.update, moments.scale, moments.delete)
    for number in range(kills):
        is_done = order[number % len(order)]()
        time.sleep(chance.uniform(0, 2))  # the random moment
        kill(kubectl, lambda: str(operator_pods(kubectl)[0]["metadata"]["name"]), SYSTEM_NAMESPACE)
        is_done()
        assert identities(standing.settle(1)) == untouched, f"kill {number}"
