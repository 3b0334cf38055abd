"""What does a user want of the cluster in a test, and is it so?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import installation
from tests.cluster.faults import cluster, deployments, nodes
from tests.cluster.faults.deployments import MODELDEPLOYMENTS
from tests.cluster.kubectl import Kubectl
from tests.cluster.state import Cluster

UNTOUCHED = {"rock-0": 1, "rock-1": 3}
"""ModelDeployments that nobody changes, with their sizes: their pods must outlive every test."""


@dataclass
class World:
    """A namespace with nodes of its own, and the ModelDeployments that a user wants in it: name to size and variant."""

    found: Cluster
    kubectl: Kubectl
    namespace: str
    folder: Path
    wanted: dict[str, tuple[int, str]]

    def write(self, name: str, replicas: int, variant: str = "0") -> None:
        """Apply a ModelDeployment."""
        self.wanted[name] = replicas, variant
        self.kubectl.apply(
            deployments.deployment(self.namespace, name, self.namespace, replicas=replicas, variant=variant)
        )

    def delete(self, name: str) -> None:
        """Delete a ModelDeployment; wait for nothing."""
        del self.wanted[name]
        self.kubectl.ask("delete", "mdep", name, f"--namespace={self.namespace}", "--wait=false")

    def settle(self, meanwhile: Callable[[], None] = lambda: None, timeout_s: float = 120) -> None:
        """Wait until everything is as wanted, and nothing else is there."""
        deployments.wait_settled(self.kubectl, self.namespace, self.wanted, meanwhile=meanwhile, timeout_s=timeout_s)

    def reset(self, *names: str) -> None:
        """Have `names` with one replica each, the untouched, and nothing else."""
        for name in [n for n in self.wanted if n not in names and n not in UNTOUCHED]:
            self.delete(name)
        for name, replicas in (UNTOUCHED | dict.fromkeys(names, 1)).items():
            self.write(name, replicas)
        self.settle()

    def pods(self, *names: str) -> dict[str, set[str]]:
        """Return the uids of the replicas of each ModelDeployment."""
        return {name: deployments.pods_of(self.kubectl, self.namespace, name) for name in names}

    def uid(self, name: str) -> str:
        """Return the uid of a ModelDeployment."""
        found = deployments.listed(self.kubectl, self.namespace, MODELDEPLOYMENTS)
        return str(next(d["metadata"]["uid"] for d in found if d["metadata"]["name"] == name))


@contextmanager
def made(namespace: str, folder: Path) -> Iterator[World]:
    """A namespace with two nodes, where only operators of the test act."""
    found = cluster.of_environment()
    kubectl = Kubectl.of(found.kubeconfig)
    with (
        cluster.prepared(kubectl),
        nodes.simulated(found, kubectl, namespace, 2, folder),
        installation.namespace(kubectl, namespace),
    ):
        yield World(found, kubectl, namespace, folder, {})
