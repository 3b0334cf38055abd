"""What do many ModelDeployments look like, and are they all where they should be?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from tests.cluster.faults import nodes
from tests.cluster.kubectl import Kubectl, wait_until

Object = dict[str, Any]

MODELDEPLOYMENTS = "apis/evenkeel.dev/v1alpha1", "modeldeployments"
JOBS = "apis/batch/v1", "jobs"
REPLICA_SETS = "apis/apps/v1", "replicasets"
PODS = "api/v1", "pods"
CHILDREN = (
    JOBS,
    REPLICA_SETS,
    PODS,
    ("apis/apps/v1", "controllerrevisions"),
    ("apis/policy/v1", "poddisruptionbudgets"),
    ("api/v1", "services"),
)


def deployment(namespace: str, name: str, fleet: str, *, replicas: int = 1, variant: str = "0") -> Object:
    """Return a ModelDeployment for the nodes of `fleet`; another `variant` is another revision."""
    return {
        "apiVersion": "evenkeel.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"uri": "https://models.invalid/digits.pt2"},
            "replicas": replicas,
            "runtime": {"env": [{"name": "VARIANT", "value": variant}]},
            "pod": nodes.placement(fleet),
        },
    }


def listed(kubectl: Kubectl, namespace: str, kind: tuple[str, str]) -> list[Object]:
    """Return the objects of `kind`, as the API server has them in memory: cheap enough to be asked for every second."""
    api, plural = kind
    answer = kubectl.ask("get", "--raw", f"/{api}/namespaces/{namespace}/{plural}?resourceVersion=0")
    found: list[Object] = json.loads(answer)["items"]
    return found


def pods_of(kubectl: Kubectl, namespace: str, name: str) -> set[str]:
    """Return the uids of the replicas of a ModelDeployment."""
    return {
        pod["metadata"]["uid"]
        for pod in listed(kubectl, namespace, PODS)
        if pod["metadata"]["labels"].get("evenkeel.dev/modeldeployment") == name
        and pod["metadata"]["labels"].get("evenkeel.dev/role") == "serve"
        and "deletionTimestamp" not in pod["metadata"]
    }


def is_settled(found: Object, children: Iterable[Object]) -> bool:
    """Whether a ModelDeployment is Ready on its present spec, and its children are what that spec asks for.

    Exactly one ReplicaSet of the right size with as many pods, no Job any more, one of each other child.
    """
    status, metadata = found.get("status") or {}, found["metadata"]
    conditions = {c["type"]: c["status"] for c in status.get("conditions") or ()}
    if status.get("observedGeneration") != metadata["generation"] or conditions.get("Ready") != "True":
        return False
    by_kind: dict[str, list[Object]] = {}
    for child in children:
        by_kind.setdefault(child["kind"], []).append(child)
    replicas = found["spec"]["replicas"]
    sets = by_kind.get("ReplicaSet", [])
    return (
        [s["spec"]["replicas"] for s in sets] == [replicas]
        and len(by_kind.get("Pod", [])) == replicas
        and not by_kind.get("Job")
        and len(by_kind.get("Service", [])) == len(by_kind.get("PodDisruptionBudget", [])) == 1
        and status.get("readyReplicas", 0) == replicas
    )


def unsettled(kubectl: Kubectl, namespace: str, names: Iterable[str]) -> set[str]:
    """Return which of `names`, the ModelDeployments that shall exist, are not settled, and which others exist."""
    deployments = {d["metadata"]["name"]: d for d in listed(kubectl, namespace, MODELDEPLOYMENTS)}
    children: dict[str, list[Object]] = {}
    for kind in CHILDREN:
        for child in listed(kubectl, namespace, kind):
            owner = (child["metadata"].get("labels") or {}).get("evenkeel.dev/modeldeployment")
            if owner is not None:
                children.setdefault(owner, []).append(child | {"kind": _KINDS[kind[1]]})
    wanted = set(names)
    return {
        name
        for name in wanted | set(deployments) | set(children)
        if name not in wanted or name not in deployments or not is_settled(deployments[name], children.get(name, []))
    }


def wait_settled(
    kubectl: Kubectl,
    namespace: str,
    names: Iterable[str],
    *,
    timeout_s: float = 120,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Wait until exactly the ModelDeployments `names` exist, with exactly the children that they ask for."""
    wanted, last = set(names), [set[str]()]

    def are_settled() -> bool:
        meanwhile()
        last[0] = unsettled(kubectl, namespace, wanted)
        return not last[0]

    try:
        wait_until("settled", are_settled, timeout_s)
    except Exception as e:
        rows = kubectl.ask("get", "mdep,rs,jobs,pods", f"--namespace={namespace}", "--output=wide")
        raise AssertionError(f"not settled within {timeout_s} s: {sorted(last[0])}\n{rows}") from e


_KINDS = {
    "jobs": "Job",
    "replicasets": "ReplicaSet",
    "pods": "Pod",
    "controllerrevisions": "ControllerRevision",
    "poddisruptionbudgets": "PodDisruptionBudget",
    "services": "Service",
}
