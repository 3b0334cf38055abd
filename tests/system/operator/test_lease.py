"""Does one operator act at a time, and is there always one?"""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.system.operator.fakeapi.actors import Actors
from tests.system.operator.fakeapi.server import FakeApi
from tests.system.operator.harness import Operator, eventually, is_serving, modeldeployment


def holder(api: FakeApi) -> str:
    return str(api.store.get("leases", "evenkeel", "evenkeel")["spec"]["holderIdentity"])


async def test_a_standby_is_ready_and_takes_over_at_once_when_the_leader_is_stopped(
    api: FakeApi, actors: Actors, tmp_path: Path
) -> None:
    async with (
        Operator(api, tmp_path, name="first") as first,
        Operator(api, tmp_path, name="second") as second,
    ):
        await eventually(lambda: "resync listed" in first.log + second.log)
        leader, standby = (first, second) if "resync listed" in first.log else (second, first)
        await eventually(lambda: "standing by" in standby.log)
        assert await standby.get("/readyz") == (200, "ok standing by for the Lease\n")
        assert await leader.get("/readyz") == (200, "ok leading\n")
        assert (await standby.get("/healthz"))[0] == 200
        assert "evenkeel_is_leader 0.0" in (await standby.get("/metrics"))[1]

        was = holder(api)
        assert await leader.stop() == 0
        await eventually(lambda: holder(api) not in ("", was), within_s=10)
        await standby.leads()
        api.store.create(modeldeployment())
        await eventually(lambda: is_serving(api))
        assert await standby.stop(signal.SIGINT) == 0


async def test_a_killed_leader_is_followed_after_the_duration_of_the_lease(
    api: FakeApi, actors: Actors, tmp_path: Path
) -> None:
    async with Operator(api, tmp_path, "--lease-duration-seconds=3", name="first") as first:
        await first.leads()
        await first.stop(signal.SIGKILL)
    api.store.create(modeldeployment())
    async with Operator(api, tmp_path, "--lease-duration-seconds=3", name="second"):
        await eventually(lambda: is_serving(api))


async def test_who_loses_the_lease_ends_and_writes_no_more(api: FakeApi, actors: Actors, tmp_path: Path) -> None:
    async with Operator(api, tmp_path, "--lease-duration-seconds=3") as operator:
        await operator.leads()
        lease = json.loads(json.dumps(api.store.get("leases", "evenkeel", "evenkeel")))
        lease["spec"] |= {"holderIdentity": "somebody else", "leaseDurationSeconds": 30}
        api.store.replace(lease)
        assert await operator.exit_code() == 3
        assert holder(api) == "somebody else"
        assert "is lost" in operator.log


async def test_who_cannot_renew_stops_writing_in_time_and_ends(api: FakeApi, actors: Actors, tmp_path: Path) -> None:
    async with Operator(api, tmp_path, "--lease-duration-seconds=3") as operator:
        await operator.leads()
        api.faults.add("*", "/leases", 503, times=1000)
        assert await operator.exit_code(within_s=10) == 3
        api.store.create(modeldeployment())
        assert api.store.list("services") == []
