"""Can the operator be upgraded, rolled back, confined to namespaces and taken away while the models go on serving?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import samples, traffic
from tests.cluster.installation import (
    RELEASE,
    SYSTEM_NAMESPACE,
    Deployment,
    helm,
    identities,
    install,
    operator_pods,
    retag,
    wait_answering,
)
from tests.cluster.kubectl import Kubectl, wait_until
from tests.cluster.place import Place, Places
from tests.cluster.state import Cluster

pytestmark = pytest.mark.cluster

NODE_PORT = 30083
CRD = "crd/modeldeployments.evenkeel.dev"


@pytest.fixture(scope="module", autouse=True)
def as_before(cluster: Cluster, installed: None) -> Iterator[None]:
    """The other files find the chart as these tests found it."""
    yield
    install(cluster)


@pytest.fixture(scope="module")
def digits(shared: Place) -> Deployment:
    """One deployment that serves all the while."""
    made = shared.deployment("digits")
    made.apply(shared.spec("v1.pt2", replicas=2))
    made.settle(2)
    made.expose(NODE_PORT)
    wait_answering(made, shared.cluster.node_ports[str(NODE_PORT)], samples.request())
    return made


@pytest.fixture
def target(cluster: Cluster, digits: Deployment) -> traffic.Target:
    return traffic.Target(cluster.node_ports[str(NODE_PORT)], "/v2/models/digits/infer", samples.request())


def scale(deployment: Deployment, replicas: int) -> None:
    where = f"--namespace={deployment.namespace}"
    deployment.kubectl.ask("scale", f"mdep/{deployment.name}", f"--replicas={replicas}", where)


def test_an_upgrade_and_a_rollback_cost_no_request_and_no_pod(
    digits: Deployment, target: traffic.Target, cluster: Cluster, kubectl: Kubectl
) -> None:
    before, first = identities(digits.settle(2)), identities(operator_pods(kubectl))
    with traffic.constant(target) as tally:
        install(cluster, "podAnnotations.upgraded=yes")
        second = identities(operator_pods(kubectl))
        helm(cluster, "rollback", RELEASE, f"--namespace={SYSTEM_NAMESPACE}", "--wait", "--timeout=120s")
        third = identities(operator_pods(kubectl))
    assert not first.keys() & second.keys()
    assert not second.keys() & third.keys()
    assert (tally.failures(), tally.first_failure) == (0, "")
    assert tally.answered > 0
    assert identities(digits.settle(2)) == before
    scale(digits, 1)  # and the one that came back works
    digits.wait("Serving")
    scale(digits, 2)
    digits.settle(2)


def test_a_newer_runtime_restarts_no_pod_and_says_how_to_move_on(
    digits: Deployment, target: traffic.Target, cluster: Cluster
) -> None:
    before = identities(digits.settle(2))
    runtime, newer = cluster.images["runtime"], cluster.images["runtime"] + "-newer"
    retag(cluster, runtime, newer)
    with traffic.constant(target) as tally:
        install(cluster, f"runtimeImage.tag={newer.rpartition(':')[2]}")

        def is_outdated() -> bool:
            return digits.condition("RuntimeOutdated")[0] == "True"

        wait_until("the deployment says that its runtime is outdated", is_outdated, timeout_s=60)
        message = digits.condition("RuntimeOutdated")[2]
        assert newer in message
        assert f"evenkeel restart digits -n {digits.namespace}" in message
        assert digits.condition()[:2] == ("True", "Serving")
        assert identities(digits.settle(2)) == before
        digits.evenkeel("restart")
        digits.wait("Serving")
    assert (tally.failures(), tally.first_failure) == (0, "")
    images = {pod["spec"]["containers"][0]["image"] for pod in digits.settle(2)}
    assert images == {newer}
    assert digits.condition("RuntimeOutdated") == ("", "", "")
    install(cluster)


def test_without_the_operator_models_serve_on_and_a_confined_one_takes_over_its_namespace(
    digits: Deployment, target: traffic.Target, cluster: Cluster, kubectl: Kubectl, places: Places
) -> None:
    before = identities(digits.settle(2))
    with places() as elsewhere, traffic.constant(target) as tally:
        helm(cluster, "uninstall", RELEASE, f"--namespace={SYSTEM_NAMESPACE}", "--wait", "--timeout=120s")
        assert kubectl.ask("get", CRD, "--output=name", "--ignore-not-found")
        assert identities(digits.replicas()) == before
        scale(digits, 1)  # nobody listens
        confined = "watchNamespaces={" + digits.namespace + "}"
        system = f"{elsewhere.namespace}-system"
        # The feedback service has a ClusterRole in any case: Kubernetes knows its reviews for the whole cluster only.
        alone = ("crds.install=false", "feedback.enabled=false")
        install(cluster, confined, *alone, release="confined-evenkeel", namespace=system)
        try:
            selector = "--selector=app.kubernetes.io/instance=confined-evenkeel"
            roles = kubectl.ask("get", "clusterroles,clusterrolebindings", selector, "--output=name")
            assert roles.split() == []
            assert digits.wait("Serving", timeout_s=60).startswith("1 of 1 replicas")
            assert identities(digits.settle(1)).items() <= before.items()

            stranger = elsewhere.deployment("stranger")
            stranger.apply(elsewhere.spec("v1.pt2"))
            digits.apply(with_file(digits, "v2.pt2"))
            digits.wait("Serving")
            assert digits.get()["status"]["model"]["digest"] == samples.version(2).digest
            assert "status" not in stranger.get(), "its namespace is not this operator's"
        finally:
            helm(cluster, "uninstall", "confined-evenkeel", f"--namespace={system}", "--wait", "--timeout=120s")
            kubectl.ask("delete", "namespace", system, "--wait=false")
        install(cluster)
        stranger.settle(1)
        digits.settle(1)
    assert (tally.failures(), tally.first_failure) == (0, "")


def with_file(deployment: Deployment, file: str) -> dict[str, object]:
    """Return the deployment's spec with another file."""
    found: dict[str, object] = deployment.get()["spec"]
    return found | {"model": {"uri": f"pvc://models/{file}"}}
