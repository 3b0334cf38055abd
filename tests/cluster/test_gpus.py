"""Does each replica get exactly its GPUs, where the spec allows it, and is a shortage counted right?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import gpus, kwok
from tests.cluster.installation import Deployment
from tests.cluster.kubectl import Kubectl, wait_until
from tests.cluster.place import Place, wait_gpus_free
from tests.cluster.state import Cluster

pytestmark = pytest.mark.cluster

A100 = gpus.Model("NVIDIA-A100-SXM4-40GB", 40960, count=8)
T4 = gpus.Model("Tesla-T4", 15360, count=4)


def visible(pod: dict[str, object], place: Place) -> str:
    """Return what the replica's server finds in NVIDIA_VISIBLE_DEVICES."""
    name = pod["metadata"]["name"]  # type: ignore[index]
    words = ("exec", name, f"--namespace={place.namespace}", "--container=serve", "--")
    return place.kubectl.ask(*words, "printenv", "NVIDIA_VISIBLE_DEVICES").strip()


def nodes(deployment: Deployment, replicas: int) -> list[str]:
    return sorted(pod["spec"]["nodeName"] for pod in deployment.settle(replicas))


def test_a_broken_gpu_is_not_counted_as_free(here: Place, cluster: Cluster, free_gpus: None) -> None:
    """The first in this file: the deployments of the others below hold GPUs until the last of them has ended."""
    node, kubeconfig = cluster.schedulable[1], cluster.kubeconfig
    here.block_gpus("two", 2, node)
    gpus.set_unhealthy(node, ["GPU-0"], kubeconfig=kubeconfig)
    try:
        wait_until("the node offers 3", lambda: gpus.allocatable(node, kubeconfig=kubeconfig) == 3)
        digits = here.deployment("digits")
        digits.apply(here.spec("v1.pt2", gpu={"count": 2, "products": [gpus.L4.product]}))
        message = digits.wait("Unschedulable")
        assert "asks for 2 nvidia.com/gpu; 1 of 3 on nodes that fit are free" in message
    finally:
        gpus.set_unhealthy(node, [], kubeconfig=kubeconfig)
    digits.settle(1)


@pytest.fixture(scope="module")
def served(shared: Place) -> Iterator[Place]:
    """Four deployments side by side, so that they start at the same time."""
    wait_gpus_free(shared.kubectl, shared.cluster)
    specs = {
        "large": shared.spec("v1.pt2", gpu={"count": 2, "minMemory": "40Gi"}),
        "small": shared.spec("v1.pt2", gpu={"count": 1, "products": [gpus.L4.product, T4.product]}),
        "spread": shared.spec("v1.pt2", gpu={"count": 1}, replicas=2),
        "without": shared.spec("v1.pt2"),
    }
    for name, wanted in specs.items():
        shared.deployment(name).apply(wanted)
    yield shared
    where = f"--namespace={shared.namespace}"
    shared.kubectl.ask("delete", "mdep", "--all", where)
    wait_gpus_free(shared.kubectl, shared.cluster)


def test_a_replica_sees_exactly_the_gpus_it_asked_for_and_nobody_elses(served: Place) -> None:
    taken: list[tuple[str, str]] = []
    for name, replicas, want in (("large", 1, 2), ("small", 1, 1), ("spread", 2, 1)):
        for pod in served.deployment(name).settle(replicas):
            devices = visible(pod, served).split(",")
            assert len(devices) == want, f"{name}: {devices}"
            taken += [(pod["spec"]["nodeName"], device) for device in devices]
    assert len(set(taken)) == len(taken), f"a GPU is seen by two replicas: {sorted(taken)}"


def test_a_replica_without_gpus_sees_none(served: Place) -> None:
    (pod,) = served.deployment("without").settle(1)
    assert visible(pod, served) == "void"


def test_memory_and_products_steer_replicas_to_the_nodes_that_have_them(served: Place, cluster: Cluster) -> None:
    h100, l4 = cluster.schedulable[:2]
    assert nodes(served.deployment("large"), 1) == [h100]
    assert nodes(served.deployment("small"), 1) == [l4]


def test_replicas_spread_over_nodes(served: Place) -> None:
    assert len(set(nodes(served.deployment("spread"), 2))) == 2


@pytest.fixture
def simulated(kubectl: Kubectl, here: Place) -> Iterator[dict[str, Deployment]]:
    """Deployments for simulated nodes of two products: prepared before the nodes exist, which run no Job for real."""
    made = {}
    for name, model, count in (("large", A100, 8), ("small", T4, 3)):
        gpu = {"count": count, "products": [model.product]}
        pod = {"tolerations": [kwok.TOLERATION]}
        made[name] = here.deployment(name)
        made[name].apply(here.spec("v1.pt2", replicas=0, gpu=gpu, pod=pod))
    for deployment in made.values():
        deployment.wait("ScaledToZero")
    kubeconfig = kubectl.kubeconfig
    kwok.add_nodes(2, A100, prefix=f"{here.namespace}-a100", kubeconfig=kubeconfig)
    kwok.add_nodes(1, T4, prefix=f"{here.namespace}-t4", kubeconfig=kubeconfig)
    yield made
    for prefix in ("a100", "t4"):
        kwok.remove_nodes(prefix=f"{here.namespace}-{prefix}", kubeconfig=kubeconfig)


def test_a_shortage_says_how_many_gpus_of_the_kind_are_free(simulated: dict[str, Deployment], here: Place) -> None:
    where = f"--namespace={here.namespace}"
    for name, replicas in (("large", 3), ("small", 2)):
        here.kubectl.ask("scale", f"mdep/{name}", f"--replicas={replicas}", where)
    wants = {"large": "asks for 8 nvidia.com/gpu; 0 of 16", "small": "asks for 3 nvidia.com/gpu; 1 of 4"}
    for name, want in wants.items():
        deployment = simulated[name]

        def says(deployment: Deployment = deployment, want: str = want) -> bool:
            _, reason, message = deployment.condition()
            return reason == "Unschedulable" and want in message

        wait_until(f"{name} says {want!r}", says, timeout_s=60)
        assert "on nodes that fit are free" in deployment.condition()[2]
    kwok.add_nodes(3, A100, prefix=f"{here.namespace}-a100", kubeconfig=here.cluster.kubeconfig)
    simulated["large"].settle(3)
