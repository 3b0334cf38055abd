"""What do the tests share that need the cluster? The installed chart, and places to work in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster import installation, samples, state
from tests.cluster.kubectl import Kubectl
from tests.cluster.place import Place, Places, place, wait_gone, wait_gpus_free
from tests.cluster.state import Cluster

SOAK = os.environ.get("EVENKEEL_SOAK") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The full counts take hours: nobody shall meet them by chance."""
    for item in items:
        if item.get_closest_marker("soak") and item.get_closest_marker("cluster") and not SOAK:
            item.add_marker(pytest.mark.skip(reason="the full count: EVENKEEL_SOAK=1"))


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster that is up: `evenkeel`, or the one that EVENKEEL_CLUSTER names."""
    return state.read(os.environ.get("EVENKEEL_CLUSTER", "evenkeel"))


@pytest.fixture(scope="session")
def kubectl(cluster: Cluster) -> Kubectl:
    return Kubectl.of(cluster.kubeconfig)


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> None:
    """The chart of this checkout with the images that the nodes hold."""
    installation.install(cluster)


@pytest.fixture(scope="session")
def places(cluster: Cluster, kubectl: Kubectl, installed: None) -> Iterator[Places]:
    """Make places to work in, which hold two versions of a model; all are gone in the end."""
    made: list[str] = []

    @contextmanager
    def make() -> Iterator[Place]:
        with place(cluster, kubectl) as new:
            made.append(new.namespace)
            new.put(v1__pt2=samples.version(1).content, v2__pt2=samples.version(2).content)
            yield new

    yield make
    wait_gone(kubectl, made)


@pytest.fixture
def here(places: Places) -> Iterator[Place]:
    """A place of the test's own."""
    with places() as new:
        yield new


@pytest.fixture(scope="module")
def shared(places: Places) -> Iterator[Place]:
    """A place that the tests of one file share."""
    with places() as new:
        yield new


@pytest.fixture
def free_gpus(kubectl: Kubectl, cluster: Cluster) -> None:
    """Every GPU of the real nodes, free."""
    wait_gpus_free(kubectl, cluster)
