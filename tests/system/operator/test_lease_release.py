"""Does a released Lease stay released, whatever renewal was under way?"""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

from evenkeel_operator.world.connection import Connection
from evenkeel_operator.world.lease import Lease
from tests.system.operator.fakeapi.server import FakeApi
from tests.system.operator.harness import eventually, kubeconfig


def _has_more(api: FakeApi, count: int) -> bool:
    return len(api.requests) > count


async def test_a_renewal_under_way_takes_nothing_back(api: FakeApi, tmp_path: Path) -> None:
    connection = await Connection.open(str(kubeconfig(tmp_path, api.url)))
    try:
        for _ in range(20):
            lease = Lease(connection, "evenkeel", "evenkeel", "me", duration_s=0.6)
            await lease.acquire()
            assert lease.is_held
            holding = asyncio.create_task(lease.hold())
            count = len(api.requests)
            await eventually(functools.partial(_has_more, api, count))  # the renewal is on its way
            await lease.release()
            await asyncio.sleep(0.15)
            assert api.store.get("leases", "evenkeel", "evenkeel")["spec"]["holderIdentity"] == ""
            assert holding.done()
            assert not lease.is_held
    finally:
        await connection.close()
