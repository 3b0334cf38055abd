"""Which GPUs does the cluster have, and which are spoken for? Nodes and pods, reduced to extended resources.

In a namespaced install nodes may not be read: the fleet is then NO_SIGNAL, which is not an empty fleet.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide.snapshot import NO_SIGNAL, Fleet, NodeGpus, NoSignal
from evenkeel_operator.world import kinds
from evenkeel_operator.world.connection import Connection
from evenkeel_operator.world.reflector import Reflector
from evenkeel_operator.world.requests import extended, held


@dataclass(frozen=True, slots=True)
class Claim:
    """What one pod holds of one node."""

    node: str
    requested: Mapping[str, int]


def node_gpus(node: Object) -> NodeGpus | None:
    """Return what `node` offers, nothing of it requested; None for a node without extended resources."""
    allocatable = extended((node.get("status") or {}).get("allocatable"))
    if not allocatable:
        return None
    spec = node.get("spec") or {}
    conditions = (node.get("status") or {}).get("conditions") or ()
    is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return NodeGpus(
        name=node["metadata"]["name"],
        labels=node["metadata"].get("labels") or {},
        taints=tuple({k: v for k, v in t.items() if k != "timeAdded"} for t in spec.get("taints") or ()),
        allocatable=allocatable,
        requested={},
        schedulable=is_ready and not spec.get("unschedulable", False),
    )


def claim(pod: Object) -> Claim | None:
    """Return what `pod` holds; None for one that is not bound, has ended, or asks for no extended resource."""
    node = pod["spec"].get("nodeName")
    if not node or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return None
    requested = held(pod)
    return Claim(node, requested) if requested else None


def joined(nodes: Mapping[str, NodeGpus], claims: Mapping[str, Claim]) -> Fleet:
    """Return the fleet: every node with what the pods bound to it hold."""
    requested: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in claims.values():
        requested[one.node].update(one.requested)
    return tuple(
        NodeGpus(n.name, n.labels, n.taints, n.allocatable, dict(requested.get(n.name, {})), n.schedulable)
        for n in sorted(nodes.values(), key=lambda n: n.name)
    )


class FleetWatch:
    """Keeps the fleet; `changed` is called after every change that a decision could see."""

    def __init__(self, connection: Connection, changed: Callable[[], None]) -> None:
        self._nodes = Reflector(connection, kinds.NODE, node_gpus, self._forget)
        self._claims = Reflector(connection, kinds.ANY_POD, claim, self._forget)
        self._changed = changed
        self._fleet: Fleet | None = None

    def fleet(self) -> Fleet | NoSignal:
        """Return the fleet as it is now."""
        if self._nodes.known is None or self._claims.known is None:
            return NO_SIGNAL
        if self._fleet is None:
            self._fleet = joined(self._nodes.known, self._claims.known)
        return self._fleet

    async def run(self) -> None:
        """Follow nodes and pods for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._nodes.run(), name="fleet nodes")
            group.create_task(self._claims.run(), name="fleet pods")

    async def settled(self, timeout_s: float) -> None:
        """Return when both have been listed, or cannot be, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._nodes.settled.wait()
                await self._claims.settled.wait()
        except TimeoutError:
            return

    def _forget(self) -> None:
        self._fleet = None
        self._changed()
