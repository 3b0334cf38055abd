"""How does the product come into the cluster, and how is a ModelDeployment of a test watched?

`install` is what a user does: `helm upgrade --install`. `Deployment` is one ModelDeployment in a namespace of its own.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.kubectl import Kubectl, wait_until
from tests.cluster.processes import CommandFailed, ask
from tests.cluster.state import CHECKOUT, Cache, Cluster

RELEASE = "evenkeel"
SYSTEM_NAMESPACE = "evenkeel-system"
CHART = CHECKOUT / "charts" / "evenkeel"


def install(cluster: Cluster, *settings: str, release: str = RELEASE, namespace: str = SYSTEM_NAMESPACE) -> None:
    """Install or upgrade the chart with the images that the cluster holds, and the feedback service.

    `settings` are further `--set` values.
    """
    operator, runtime = cluster.images["operator"], cluster.images["runtime"]
    values = [f"{key}={value}" for key, value in (*_image("image", operator), *_image("runtimeImage", runtime))]
    values += ["feedback.enabled=true", "feedback.persistence.size=1Gi"]
    words = [word for value in (*values, *settings) for word in ("--set", value)]
    helm(
        cluster, "upgrade", "--install", release, str(CHART), f"--namespace={namespace}", "--create-namespace",
        "--take-ownership", "--wait", "--timeout=120s", *words,
    )  # fmt: skip


def helm(cluster: Cluster, *words: str) -> str:
    """Return what helm prints."""
    return ask([cluster.tools["helm"], f"--kubeconfig={cluster.kubeconfig}", *words], timeout_s=180)


def _image(key: str, reference: str) -> Iterator[tuple[str, str]]:
    repository, _, tag = reference.rpartition(":")
    yield f"{key}.repository", repository
    yield f"{key}.tag", tag


def operator_pods(kubectl: Kubectl, namespace: str = SYSTEM_NAMESPACE) -> list[dict[str, Any]]:
    """Return the operator's pods, those on their way out left aside."""
    words = ("pods", f"--namespace={namespace}", "--selector=app.kubernetes.io/component=operator")
    return [pod for pod in kubectl.get(*words)["items"] if "deletionTimestamp" not in pod["metadata"]]


def retag(cluster: Cluster, reference: str, other: str) -> None:
    """Give an image that the nodes hold a second name."""
    engine = {"DOCKER_HOST": cluster.docker_host} if cluster.docker_host else {}
    for node in cluster.schedulable:
        names = [f"docker.io/{name}" for name in (reference, other)]
        words = ("ctr", "--namespace=k8s.io", "images", "tag", "--force", *names)
        ask([Cache.of_environment().bin / "docker", "exec", node, *words], env=engine)


@contextmanager
def namespace(kubectl: Kubectl, name: str) -> Iterator[str]:
    """A namespace that is gone, with everything in it, when the block ends."""
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        yield name
    finally:
        kubectl.ask("delete", "namespace", name, "--wait=true", "--timeout=120s")


@dataclass(frozen=True)
class Deployment:
    """One ModelDeployment, as `kubectl` sees it."""

    kubectl: Kubectl
    namespace: str
    name: str

    def apply(self, spec: dict[str, Any]) -> None:
        """Write the spec, as `kubectl apply` does."""
        metadata = {"name": self.name, "namespace": self.namespace}
        self.kubectl.apply(
            {"apiVersion": "evenkeel.dev/v1alpha1", "kind": "ModelDeployment", "metadata": metadata, "spec": spec}
        )

    def get(self) -> dict[str, Any]:
        found: dict[str, Any] = self.kubectl.get("mdep", self.name, f"--namespace={self.namespace}")
        return found

    def condition(self, kind: str = "Ready") -> tuple[str, str, str]:
        """Return status, reason and message of a condition that was judged on the present spec, else three blanks."""
        found = self.get()
        status = found.get("status") or {}
        if status.get("observedGeneration") != found["metadata"]["generation"]:
            return "", "", ""
        for row in status.get("conditions") or ():
            if row["type"] == kind:
                return row["status"], row["reason"], row["message"]
        return "", "", ""

    def wait(self, reason: str, *, timeout_s: float = 120) -> str:
        """Wait until Ready has that reason; return its message. The error says what it had instead."""
        deadline = time.monotonic() + timeout_s
        while (got := self.condition())[1] != reason:
            if time.monotonic() > deadline:
                raise CommandFailed(["wait"], 1, f"mdep/{self.name}: wanted {reason} within {timeout_s} s, got {got}")
            time.sleep(0.2)
        return got[2]

    def children(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the children of those kinds, pods by default."""
        selector = f"--selector=evenkeel.dev/modeldeployment={self.name}"
        found: list[dict[str, Any]] = self.kubectl.get(
            ",".join(kinds or ("pods",)), f"--namespace={self.namespace}", selector
        )["items"]
        return found

    def replicas(self) -> list[dict[str, Any]]:
        """Return the pods that serve or are about to, those on their way out left aside."""
        return [
            pod
            for pod in self.children("pods")
            if pod["metadata"]["labels"]["evenkeel.dev/role"] == "serve" and "deletionTimestamp" not in pod["metadata"]
        ]

    def evenkeel(self, command: str, *words: str) -> str:
        """Run `evenkeel COMMAND` on it as a person does; return what it prints."""
        program = CHECKOUT / ".venv" / "bin" / "evenkeel"
        environment = {"KUBECONFIG": self.kubectl.kubeconfig}
        return ask([program, command, self.name, "-n", self.namespace, *words], env=environment)

    def settle(self, replicas: int, *, timeout_s: float = 120) -> list[dict[str, Any]]:
        """Wait until exactly that many pods serve and the status says so; return them.

        The status alone may be a moment behind a pod that somebody has just deleted.
        """
        found: list[dict[str, Any]] = []

        def is_settled() -> bool:
            found[:] = self.replicas()
            is_ready = len(found) == replicas and all(map(answers, found))
            return is_ready and self.condition()[0] == "True"

        try:
            wait_until(f"mdep/{self.name} has {replicas} replicas that answer", is_settled, timeout_s)
        except CommandFailed as failure:
            raise CommandFailed(["wait"], 1, f"{failure.output}; got {self.condition()}") from failure
        return found

    def expose(self, node_port: int) -> None:
        """Make the replicas reachable through loopback: a NodePort Service beside Evenkeel's own."""
        self.kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": f"{self.name}-loopback", "namespace": self.namespace},
                "spec": {
                    "type": "NodePort",
                    "selector": {"evenkeel.dev/modeldeployment": self.name, "evenkeel.dev/role": "serve"},
                    "ports": [{"port": 80, "targetPort": "http", "nodePort": node_port}],
                },
            }
        )

    def predict(self, port: int, body: bytes) -> dict[str, Any]:
        """Return the answer to one prediction through loopback. Raises OSError where there is none."""
        url = f"http://127.0.0.1:{port}/v2/models/{self.name}/infer"
        request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            answer: dict[str, Any] = json.load(response)
        return answer


def answers(pod: dict[str, Any]) -> bool:
    """Return whether Kubernetes counts the pod as ready."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions") or ())


def identities(pods: Iterable[dict[str, Any]]) -> dict[str, tuple[str, int]]:
    """Return uid and restarts of pods by name: what stays the same when nothing happens to them."""
    return {
        pod["metadata"]["name"]: (
            pod["metadata"]["uid"],
            sum(row["restartCount"] for row in pod["status"].get("containerStatuses") or ()),
        )
        for pod in pods
    }


def wait_answering(deployment: Deployment, port: int, body: bytes) -> None:
    """Wait until the loopback port answers: kube-proxy writes its rules about once a second."""

    def is_answering() -> bool:
        try:
            return "outputs" in deployment.predict(port, body)
        except OSError:
            return False

    wait_until(f"port {port} answers", is_answering, timeout_s=30)


def kill(kubectl: Kubectl, pod: Callable[[], str], namespace: str) -> None:
    """Delete a pod without grace: the closest that the API has to SIGKILL."""
    kubectl.ask("delete", "pod", pod(), f"--namespace={namespace}", "--grace-period=0", "--force")


def folder_with(path: Path, **files: bytes) -> None:
    """Write files that the pods read through a claim, readable by anybody."""
    for name, content in files.items():
        target = path / name.replace("__", ".")
        beside = target.with_suffix(".part")
        beside.write_bytes(content)
        beside.chmod(0o644)
        beside.replace(target)
