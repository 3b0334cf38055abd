"""Is it harmless to kill the operator, whatever it is doing?"""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import pytest

from tests.system.operator.fakeapi.actors import Actors
from tests.system.operator.fakeapi.server import FakeApi
from tests.system.operator.harness import Operator, eventually, is_serving, modeldeployment, quiet

COUNT = 20


@pytest.mark.parametrize("seed", range(3))
async def test_killed_at_random_moments_it_converges(api: FakeApi, tmp_path: Path, seed: int) -> None:
    Actors(api.store, delay_s=0.1)
    moment = random.Random(seed)
    for number in range(COUNT):
        api.store.create(modeldeployment(f"digits-{number}"))
    for life in range(4):
        async with Operator(api, tmp_path, "--lease-duration-seconds=4", name=f"life-{life}") as operator:
            await operator.leads()
            await asyncio.sleep(moment.uniform(0, 0.5))
            await operator.stop(signal.SIGKILL)
    async with Operator(api, tmp_path, name="last") as operator:
        await eventually(lambda: all(is_serving(api, f"digits-{n}") for n in range(COUNT)))
        await quiet(api)
        counts = {p: len(api.store.list(p)) for p in ("services", "controllerrevisions", "replicasets", "pods", "jobs")}
        assert counts == dict.fromkeys(counts, COUNT) | {"jobs": 0}
        assert "Traceback" not in operator.log


async def test_a_restart_changes_nothing(api: FakeApi, actors: Actors, tmp_path: Path) -> None:
    api.store.create(modeldeployment(replicas=3))
    async with Operator(api, tmp_path, "--lease-duration-seconds=4") as operator:
        await eventually(lambda: is_serving(api))
        await quiet(api)
        await operator.stop(signal.SIGKILL)
    pods = {p["metadata"]["uid"] for p in api.store.list("pods")}
    since = len(api.requests)
    async with Operator(api, tmp_path, "--lease-duration-seconds=4", name="second") as operator:
        await operator.leads()
        await quiet(api)
        assert api.writes(since) == []
        assert {p["metadata"]["uid"] for p in api.store.list("pods")} == pods
