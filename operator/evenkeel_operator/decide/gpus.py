"""How many more replicas could get their GPUs now? What nodes offer minus what their pods have asked for."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from evenkeel_operator.api.modeldeployment import Gpu, Object
from evenkeel_operator.decide.snapshot import NO_SIGNAL, Fleet, NodeGpus, NoSignal

PRODUCT_LABEL = "nvidia.com/gpu.product"
MEMORY_LABEL = "nvidia.com/gpu.memory"
"""Node labels of NVIDIA's GPU feature discovery; the memory of one GPU, in MiB."""

_FACTORS = {
    **{"m": Decimal("0.001"), "": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9)},
    **{"T": Decimal(10**12), "P": Decimal(10**15), "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30)},
    **{"Ti": Decimal(2**40), "Pi": Decimal(2**50)},
}


@dataclass(frozen=True, slots=True)
class Supply:
    """GPUs of the kind asked for: `slots` more replicas fit now, `free` of `total` GPUs are not asked for by any pod.

    `slots` can be 0 while `free` is not: two GPUs free on two nodes do not make a replica that needs two.
    """

    slots: int
    free: int
    total: int


@dataclass(frozen=True, slots=True)
class Promised:
    """`count` replicas of one ModelDeployment that ask for `gpu` and carry `pod_spec`, and have no node yet."""

    gpu: Gpu
    pod_spec: Object
    count: int


def supply(gpu: Gpu, pod_spec: Object, fleet: Fleet | NoSignal, promised: Sequence[Promised] = ()) -> Supply | NoSignal:
    """Return what `fleet` has left for replicas that ask for `gpu` and carry `pod_spec`'s selector and tolerations.

    What is `promised` to others is not left.
    """
    if fleet is NO_SIGNAL or isinstance(fleet, NoSignal):
        return NO_SIGNAL
    own = [node for node in fleet if fits(node, gpu, pod_spec)]
    taken = _taken(gpu.resource_name, fleet, own, promised)
    slots = free = total = 0
    for node in own:
        left = _left(node, gpu.resource_name) - taken[node.name]
        total, free, slots = total + node.allocatable[gpu.resource_name], free + left, slots + left // gpu.count
    return Supply(slots=slots, free=free, total=total)


def _left(node: NodeGpus, resource: str) -> int:
    return max(0, node.allocatable.get(resource, 0) - node.requested.get(resource, 0))


def _taken(resource: str, fleet: Fleet, own: Sequence[NodeGpus], promised: Sequence[Promised]) -> Counter[str]:
    """Return how many of each node's GPUs the promised replicas take, by its name; those of `own` last.

    Where the scheduler will put them is its to decide: what they need not take is not withheld.
    """
    taken: Counter[str] = Counter()
    if not promised:
        return taken
    names = {node.name for node in own}
    nodes = sorted(fleet, key=lambda node: node.name in names)
    for other in promised:
        waiting = other.count if other.gpu.resource_name == resource else 0
        for node in nodes:
            if waiting and fits(node, other.gpu, other.pod_spec):
                placed = min(waiting, (_left(node, resource) - taken[node.name]) // other.gpu.count)
                taken[node.name] += placed * other.gpu.count
                waiting -= placed
    return taken


def fits(node: NodeGpus, gpu: Gpu, pod_spec: Object) -> bool:
    """Return whether a replica may run on `node` at all, its GPUs being free or not."""
    if not node.schedulable or node.allocatable.get(gpu.resource_name, 0) < gpu.count:
        return False
    if gpu.products and node.labels.get(PRODUCT_LABEL) not in gpu.products:
        return False
    if gpu.min_memory is not None:
        memory = node.labels.get(MEMORY_LABEL, "")
        if not memory.isdecimal() or int(memory) < mebibytes(gpu.min_memory):
            return False
    selector: Mapping[str, str] = pod_spec.get("nodeSelector") or {}
    if any(node.labels.get(key) != value for key, value in selector.items()):
        return False
    tolerations: Iterable[Object] = pod_spec.get("tolerations") or ()
    return all(
        taint.get("effect") == "PreferNoSchedule" or any(_tolerates(t, taint) for t in tolerations)
        for taint in node.taints
    )


def _tolerates(toleration: Object, taint: Mapping[str, str]) -> bool:
    # core/v1 Toleration: an empty effect matches all, an empty key with operator Exists matches all.
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint.get("key"))
    return toleration.get("key") == taint.get("key") and toleration.get("value", "") == taint.get("value", "")


def mebibytes(quantity: str | int) -> int:
    """Return a Kubernetes quantity of bytes in MiB, rounded up. Raises ValueError for what is not a quantity."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?", str(quantity))
    if found is None:
        raise ValueError(f"{quantity!r} is not a quantity such as 40Gi")
    return math.ceil(Decimal(found[1]) * _FACTORS[found[2] or ""] / 2**20)
