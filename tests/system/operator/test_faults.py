"""Does the operator get through what goes wrong between it and the API server?"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tests.system.operator.fakeapi.actors import Actors
from tests.system.operator.fakeapi.server import FakeApi
from tests.system.operator.harness import Operator, eventually, is_serving, modeldeployment, quiet

KOPFS = "Exception in callback stream.<locals>.request_cancel_callback"
"""What kopf reports of itself when it ends on a refused watch while other requests are being tried again."""


@pytest.mark.parametrize(
    ("method", "path", "status", "more"),
    [
        pytest.param("PATCH", "", 500, {"times": 5}, id="writes fail with 500"),
        pytest.param("PATCH", "", 409, {"times": 5}, id="writes conflict"),
        pytest.param("PATCH", "", 429, {"times": 3, "retry_after_s": 1}, id="writes are throttled"),
        pytest.param("GET", r"modeldeployments\?limit", 500, {"times": 2}, id="lists fail with 500"),
        pytest.param("GET", "watch=true", 429, {"times": 4, "retry_after_s": 1}, id="watches are throttled"),
        pytest.param("GET", "watch=true", 410, {"times": 3}, id="watches are refused as too old"),
        pytest.param(
            "GET", r"/jobs\?.*watch=true", 410, {"times": 6}, id="a watch is refused as too old, again and again"
        ),
        pytest.param("GET", "/nodes", 403, {"times": 100}, id="nodes may not be read"),
        pytest.param("POST", "/events", 403, {"times": 100}, id="Events may not be posted"),
        pytest.param("GET", "evenkeel.dev/v1alpha1$", 503, {"times": 1}, id="the server is not up yet"),
    ],
)
async def test_converges_although(
    api: FakeApi, actors: Actors, tmp_path: Path, method: str, path: str, status: int, more: dict[str, int]
) -> None:
    api.faults.add(method, path, status, **more)
    async with Operator(api, tmp_path) as operator:
        await operator.leads()
        api.store.create(modeldeployment())
        await eventually(lambda: is_serving(api))
        assert operator.log.count("Traceback") == operator.log.count(KOPFS), "nothing but kopf's own, on its way out"


async def test_a_conflict_is_tried_again(api: FakeApi, actors: Actors, tmp_path: Path) -> None:
    """A 409 says that another write came first; the object may well be there still, its status stale, its Job done."""
    async with Operator(api, tmp_path) as operator:
        await operator.leads()
        api.faults.add("PATCH", "/digits/status", 409, times=10)
        api.faults.add("DELETE", "/jobs/", 409, times=3)
        api.store.create(modeldeployment())
        await eventually(lambda: is_serving(api))
        await eventually(lambda: not api.store.list("jobs"))


async def test_what_was_deleted_inside_a_gap_is_noticed(api: FakeApi, actors: Actors, tmp_path: Path) -> None:
    api.store.create(modeldeployment())
    api.store.create(modeldeployment("other"))
    async with Operator(api, tmp_path, "--resync-seconds=600"):
        await eventually(lambda: is_serving(api) and is_serving(api, "other"))
        await quiet(api)
        fault = api.faults.add("GET", "services.*watch=true", 503, times=1000)
        api.store.cut_watches("services")
        await eventually(lambda: fault.times < 1000)
        api.store.delete("services", "team-a", "digits")
        api.store.expire()
        api.faults.due.remove(fault)
        await eventually(lambda: api.store.get("services", "team-a", "digits"))


async def test_what_no_watch_told_is_found_by_the_next_full_list(api: FakeApi, actors: Actors, tmp_path: Path) -> None:
    """With the last object of a kind gone, kopf's list after the gap is empty: nothing tells of the gap at all."""
    api.store.create(modeldeployment())
    async with Operator(api, tmp_path, "--resync-seconds=3") as operator:
        await eventually(lambda: is_serving(api))
        await quiet(api, 0.3)
        api.faults.add("GET", "services.*watch=true", 503, times=1000)
        api.store.cut_watches("services")
        api.store.delete("services", "team-a", "digits")
        await eventually(lambda: api.store.get("services", "team-a", "digits"))
        assert "resync repaired=" in operator.log


async def test_watches_that_are_cut_go_on_where_they_were(api: FakeApi, actors: Actors, tmp_path: Path) -> None:
    async with Operator(api, tmp_path) as operator:
        await operator.leads()
        for number in range(3):
            api.store.cut_watches()
            api.store.create(modeldeployment(f"digits-{number}"))
            await eventually(functools.partial(is_serving, api, f"digits-{number}"))


async def test_a_watch_that_ends_in_an_error_is_started_again_in_the_same_process(
    api: FakeApi, actors: Actors, tmp_path: Path
) -> None:
    async with Operator(api, tmp_path) as operator:
        await operator.leads()
        api.faults.add("GET", "modeldeployments.*watch=true", 400)
        api.store.cut_watches("modeldeployments")
        await eventually(lambda: "watch ended" in operator.log)
        api.store.create(modeldeployment())
        await eventually(lambda: is_serving(api))
        assert (await operator.get("/healthz"))[0] == 200
        assert await operator.stop() == 0


async def test_a_burst_of_deployments_is_served(api: FakeApi, actors: Actors, tmp_path: Path) -> None:
    count = 500
    async with Operator(api, tmp_path) as operator:
        await operator.leads()
        for number in range(count):
            api.store.create(modeldeployment(f"digits-{number}", f"team-{number % 7}"))
        await eventually(
            lambda: all(is_serving(api, f"digits-{n}", f"team-{n % 7}") for n in range(count)), within_s=120
        )
        await quiet(api)
        # Service, PDB, Job, ControllerRevision, ReplicaSet, delete of the Job; three states and their Events.
        assert len(api.writes()) <= count * 13
        assert "Traceback" not in operator.log
