"""Where does a test work? A namespace of its own, restricted, with a claim that holds the model files."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import gpus, volumes
from tests.cluster.installation import Deployment, folder_with
from tests.cluster.kubectl import Kubectl, wait_until
from tests.cluster.processes import CommandFailed
from tests.cluster.state import Cluster

CLAIM = "models"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
REQUESTS = {"cpu": "50m", "memory": "400Mi"}


def spec(uri: str, *, replicas: int = 1, **changes: Any) -> dict[str, Any]:
    """Return a spec for that address whose pods are small."""
    return {
        "model": {"uri": uri},
        "replicas": replicas,
        "runtime": {"resources": {"requests": REQUESTS}},
        **changes,
    }


@dataclass(frozen=True)
class Place:
    """One namespace."""

    cluster: Cluster
    kubectl: Kubectl
    namespace: str
    folder: Path

    def deployment(self, name: str) -> Deployment:
        return Deployment(self.kubectl, self.namespace, name)

    def put(self, **files: bytes) -> None:
        """Write files into the claim; `__` in a name stands for a dot."""
        folder_with(self.folder, **files)

    def spec(self, file: str, *, replicas: int = 1, **changes: Any) -> dict[str, Any]:
        """Return a spec for a file of the claim."""
        return spec(f"pvc://{CLAIM}/{file}", replicas=replicas, **changes)

    def apply(self, kind: str, name: str, *, version: str = "v1", **content: Any) -> None:
        """Apply any other object into the namespace."""
        metadata = {"name": name, "namespace": self.namespace}
        self.kubectl.apply({"apiVersion": version, "kind": kind, "metadata": metadata, **content})

    def block_gpus(self, name: str, count: int, node: str) -> None:
        """Hold `count` GPUs of `node` with a pod that does nothing else, and wait until it has them."""
        container = {
            "name": "hold",
            "image": self.cluster.images["operator"],
            "command": ["sleep", "infinity"],
            "resources": {"limits": {gpus.RESOURCE: count}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        self.apply(
            "Pod",
            name,
            spec={
                "containers": [container],
                "nodeSelector": {"kubernetes.io/hostname": node},
                "terminationGracePeriodSeconds": 0,
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            },
        )
        where = f"--namespace={self.namespace}"
        self.kubectl.ask("wait", "--for=condition=Ready", f"pod/{name}", where, "--timeout=60s")

    def free_gpus(self, name: str) -> None:
        """End such a pod and wait until it is gone."""
        self.kubectl.ask("delete", "pod", name, f"--namespace={self.namespace}", "--wait=true", "--timeout=60s")


Places = Callable[[], AbstractContextManager[Place]]
"""Makes a place that goes when the block ends."""


@contextmanager
def place(cluster: Cluster, kubectl: Kubectl) -> Iterator[Place]:
    """A namespace where only restricted pods are let in; it is asked to go when the block ends."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    folder = volumes.expose(cluster, name, CLAIM)
    # A pod that comes before its claim is bound is unschedulable for a moment.
    bound = "--for=jsonpath={.status.phase}=Bound"
    kubectl.ask("wait", bound, f"pvc/{CLAIM}", f"--namespace={name}", "--timeout=60s")
    try:
        yield Place(cluster, kubectl, name, folder)
    finally:
        # Services first: their ports on loopback are few. The pods take the seconds of their drain, which nobody
        # has to wait for, see `wait_gone`.
        kubectl.ask("delete", "mdep,services,pods", "--all", f"--namespace={name}", "--wait=false")
        kubectl.ask("delete", "namespace", name, "--wait=false")
        kubectl.ask("delete", "pv", f"{name}-{CLAIM}", "--wait=false", "--ignore-not-found")
        shutil.rmtree(folder, ignore_errors=True)


def wait_gone(kubectl: Kubectl, names: list[str]) -> None:
    """Wait until these namespaces are gone, with everything in them."""

    def are_gone() -> bool:
        left = kubectl.ask("get", "namespaces", "--output=name").split()
        return not {f"namespace/{name}" for name in names} & set(left)

    wait_until(f"namespaces {names} are gone", are_gone, timeout_s=180)


def wait_gpus_free(kubectl: Kubectl, cluster: Cluster, timeout_s: float = 90) -> None:
    """Wait until no pod holds a GPU of a real node: what an earlier test had is still draining."""

    def holders() -> list[str]:
        pods = kubectl.get("pods", "--all-namespaces", "--field-selector=status.phase!=Succeeded,status.phase!=Failed")
        return [
            pod["metadata"]["name"]
            for pod in pods["items"]
            if pod["spec"].get("nodeName") in cluster.schedulable
            and any(gpus.RESOURCE in (c.get("resources", {}).get("limits") or {}) for c in pod["spec"]["containers"])
        ]

    try:
        wait_until("every GPU is free", lambda: not holders(), timeout_s)
    except CommandFailed as failure:
        raise CommandFailed(["wait"], 1, f"GPUs are held by {holders()}") from failure
