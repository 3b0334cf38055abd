"""Do many ModelDeployments become ready, with no write that nobody needs? `make bench-operator`, small, untimed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import installation
from tests.cluster.faults import audit, cluster, deployments, nodes, process
from tests.cluster.kubectl import Kubectl, wait_until
from tests.cluster.state import Cluster

pytestmark = pytest.mark.cluster

COUNT = 20
NAMESPACE = FLEET = "scale-test"


@pytest.fixture(scope="module")
def found() -> Cluster:
    return cluster.of_environment()


@pytest.fixture(scope="module")
def kubectl(found: Cluster) -> Kubectl:
    return Kubectl.of(found.kubeconfig)


@pytest.fixture(scope="module")
def operator(found: Cluster, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[process.Operator]:
    folder = tmp_path_factory.mktemp("scale")
    with (
        cluster.prepared(kubectl),
        nodes.simulated(found, kubectl, FLEET, 2, folder),
        installation.namespace(kubectl, NAMESPACE),
        process.running(found.kubeconfig, NAMESPACE, folder) as started,
    ):
        yield started


def test_many_become_ready_and_go_without_a_needless_write(
    found: Cluster, kubectl: Kubectl, operator: process.Operator
) -> None:
    names = [f"m-{number}" for number in range(COUNT)]
    wanted = [deployments.deployment(NAMESPACE, name, FLEET) for name in names]
    started = audit.now()
    kubectl.apply(*wanted)
    deployments.wait_settled(kubectl, NAMESPACE, names)

    by_kopf = audit.requests(found, f'"userAgent":"{audit.KOPF}', "")
    assert [r for r in by_kopf if r.is_write] == []
    for kind in (deployments.MODELDEPLOYMENTS, *deployments.CHILDREN):
        for obj in deployments.listed(kubectl, NAMESPACE, kind):
            assert not any("kopf" in key for key in obj["metadata"].get("annotations") or ()), obj
            assert not any("kopf" in key or "evenkeel" in key for key in obj["metadata"].get("finalizers") or ()), obj

    audit.settled(found, f'"namespace":"{NAMESPACE}"', started)
    again = audit.now()
    kubectl.apply(*wanted)
    # One more, as a mark: events of a kind come in their order, so what was applied before it has been looked at.
    kubectl.apply(deployments.deployment(NAMESPACE, "mark", FLEET))
    deployments.wait_settled(kubectl, NAMESPACE, [*names, "mark"])
    seen = audit.settled(found, f'"namespace":"{NAMESPACE}"', again)
    applied = {r.name for r in seen if r.resource == "modeldeployments" and r.verb == "patch"}
    assert applied == {*names, "mark"}
    writes = [r for r in seen if r.agent == audit.OURS and r.is_write]
    assert writes, "the mark itself is written"
    assert [r for r in writes if not r.name.startswith("mark") and r.resource != "events"] == []

    kubectl.ask("delete", "mdep", "--all", f"--namespace={NAMESPACE}")

    def is_empty() -> bool:
        return not any(
            (obj["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") == "evenkeel"
            for kind in deployments.CHILDREN
            for obj in deployments.listed(kubectl, NAMESPACE, kind)
        )

    wait_until("nothing is left behind", is_empty)
    assert operator.metric("evenkeel_errors_total") == 0, operator.log()
