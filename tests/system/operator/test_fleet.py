"""Does the own watch of nodes and pods know the free GPUs, and does it know when it does not?"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from evenkeel_operator.decide.snapshot import NO_SIGNAL
from evenkeel_operator.world.connection import Connection
from evenkeel_operator.world.fleet import FleetWatch
from tests.system.operator.fakeapi.actors import Actors
from tests.system.operator.fakeapi.server import FakeApi
from tests.system.operator.harness import Operator, eventually, is_serving, kubeconfig, modeldeployment, ready

GPU = "nvidia.com/gpu"


def node(name: str, gpus: int) -> dict[str, Any]:
    status = {"allocatable": {GPU: str(gpus)}, "conditions": [{"type": "Ready", "status": "True"}]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {}, "status": status}


def pod(name: str, node: str, gpus: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "elsewhere"},
        "spec": {"nodeName": node, "containers": [{"resources": {"limits": {GPU: str(gpus)}}}]},
        "status": {"phase": "Running"},
    }


@contextlib.asynccontextmanager
async def watching(api: FakeApi, folder: Path) -> AsyncIterator[FleetWatch]:
    connection = await Connection.open(str(kubeconfig(folder, api.url)))
    fleet = FleetWatch(connection, lambda: None)
    task = asyncio.create_task(fleet.run())
    try:
        yield fleet
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await connection.close()


def free(fleet: FleetWatch) -> dict[str, int]:
    found = fleet.fleet()
    assert found is not NO_SIGNAL
    return {n.name: n.allocatable[GPU] - n.requested.get(GPU, 0) for n in found}


async def test_follows_nodes_and_pods_through_cuts_and_gaps(api: FakeApi, tmp_path: Path) -> None:
    api.store.create(node("n1", 4))
    api.store.create(pod("p1", "n1", 1))
    async with watching(api, tmp_path) as fleet:
        assert fleet.fleet() is NO_SIGNAL
        await fleet.settled(5)
        assert free(fleet) == {"n1": 3}
        api.store.create(pod("p2", "n1", 2))
        await eventually(lambda: free(fleet) == {"n1": 1})
        ended = api.store.get("pods", "elsewhere", "p1")
        ended["status"]["phase"] = "Succeeded"
        api.store.replace(ended)
        await eventually(lambda: free(fleet) == {"n1": 2})

        api.store.cut_watches()
        api.store.create(node("n2", 8))
        await eventually(lambda: free(fleet) == {"n1": 2, "n2": 8})

        fault = api.faults.add("GET", "watch=true", 503, times=1000)
        api.store.cut_watches()
        api.store.delete("pods", "elsewhere", "p2")
        api.store.expire()
        api.faults.due.remove(fault)
        await eventually(lambda: free(fleet) == {"n1": 4, "n2": 8})


async def test_who_may_not_read_nodes_knows_nothing_rather_than_no_gpus(api: FakeApi, tmp_path: Path) -> None:
    api.faults.add("GET", "/nodes", 403, times=1000, reason="Forbidden")
    async with watching(api, tmp_path) as fleet:
        await fleet.settled(5)
        assert fleet.fleet() is NO_SIGNAL


async def test_a_rollout_that_waits_for_a_gpu_goes_on_when_one_is_free(
    api: FakeApi, actors: Actors, tmp_path: Path
) -> None:
    # Nothing but the size of the fleet is looked at: the actors place pods anywhere.
    api.store.create(node("node-1", 1))
    api.store.create(modeldeployment(gpu={"count": 1}))
    async with Operator(api, tmp_path):
        await eventually(lambda: is_serving(api))
        changed = api.store.get("modeldeployments", "team-a", "digits")
        changed["spec"]["model"] = {"uri": "pvc://models/second.pt2"}
        api.store.replace(changed)
        await eventually(lambda: ready(api) == ("False", "RolloutBlockedNoGPU"))
        api.store.create(node("node-2", 1))
        await eventually(lambda: is_serving(api), within_s=8)
