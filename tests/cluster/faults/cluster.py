"""Which cluster do these tests use, and who else acts there?

An operator of a test serves namespaces of its own, but one that Helm has installed serves every namespace: two
operators with different Leases would both act. So an installed one is stopped for as long as ours runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster import state
from tests.cluster.kubectl import Kubectl, wait_until
from tests.cluster.state import CHECKOUT, Cluster

CRD = CHECKOUT / "crds" / "modeldeployments.evenkeel.dev.yaml"
CRD_NAME = "modeldeployments.evenkeel.dev"
_INSTALLED = "app.kubernetes.io/name=evenkeel,app.kubernetes.io/component=operator"


def of_environment() -> Cluster:
    """Return the cluster `evenkeel`, or the one that EVENKEEL_CLUSTER names: a fault hits everybody who shares it."""
    return state.read(os.environ.get("EVENKEEL_CLUSTER", "evenkeel"))


@contextmanager
def prepared(kubectl: Kubectl) -> Iterator[None]:
    """The CRD of this checkout is there, and no other operator acts."""
    existed = bool(kubectl.ask("get", "crd", CRD_NAME, "--ignore-not-found", "--output=name"))
    kubectl.ask("apply", "--server-side", "--force-conflicts", f"--filename={CRD}")
    kubectl.ask("wait", "--for=condition=Established", f"crd/{CRD_NAME}", "--timeout=30s")
    try:
        with _installations_stopped(kubectl):
            yield
    finally:
        if not existed:
            kubectl.ask("delete", "crd", CRD_NAME)


@contextmanager
def _installations_stopped(kubectl: Kubectl) -> Iterator[None]:
    found = kubectl.get("deployments", "--all-namespaces", f"--selector={_INSTALLED}")["items"]
    sizes = {(d["metadata"]["namespace"], d["metadata"]["name"]): d["spec"]["replicas"] for d in found}

    def are_gone() -> bool:
        return not kubectl.get("pods", "--all-namespaces", f"--selector={_INSTALLED}")["items"]

    try:
        for namespace, name in sizes:
            _scale(kubectl, namespace, name, 0)
        wait_until("the installed operators have stopped", are_gone)
        yield
    finally:
        for (namespace, name), size in sizes.items():
            _scale(kubectl, namespace, name, size)
            kubectl.wait_for_rollout(f"deployment/{name}", namespace)


def _scale(kubectl: Kubectl, namespace: str, name: str, size: int) -> None:
    kubectl.ask("scale", f"deployment/{name}", f"--namespace={namespace}", f"--replicas={size}")
