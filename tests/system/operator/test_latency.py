"""Does the number of replicas follow the load that they measure, and what becomes of answers that are none?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.system.operator.fakeapi.actors import Actors
from tests.system.operator.fakeapi.server import FakeApi
from tests.system.operator.harness import Object, Operator, eventually, is_serving, modeldeployment
from tests.system.operator.replicas import Answer, FakeReplica, FakeReplicas, honest

NAME = ("team-a", "digits")
TARGET = {"latency": [{"metric": "EndToEnd", "quantile": 0.95, "target": "100ms", "violationBudget": 0.05}]}


@pytest.fixture
async def replicas() -> AsyncIterator[FakeReplicas]:
    """Yield replicas that each carry some 90 requests per second within 100 ms."""
    async with FakeReplicas() as found:
        yield found


@pytest.fixture
def cluster(api: FakeApi, replicas: FakeReplicas) -> Actors:
    return Actors(api.store, replicas=replicas)


def operator(api: FakeApi, folder: Path, replicas: FakeReplicas, name: str = "operator") -> Operator:
    flags = (f"--signals-port={replicas.port}", "--signals-seconds=0.5", "--lease-duration-seconds=4")
    return Operator(api, folder, *flags, name=name)


def scaled(least: int = 1, most: int = 4, **spec: Any) -> Object:
    bounds = {"minReplicas": least, "maxReplicas": most}
    return modeldeployment(**{"scaling": bounds, "objectives": TARGET, **spec})


def found(api: FakeApi) -> Object:
    return api.store.get("modeldeployments", *NAME)


def size(api: FakeApi) -> int:
    return sum(int(found["spec"]["replicas"]) for found in api.store.list("replicasets"))


def condition(api: FakeApi, kind: str) -> tuple[str, str, str]:
    row = {c["type"]: c for c in found(api)["status"]["conditions"]}[kind]
    return row["status"], row["reason"], row["message"]


def events(api: FakeApi, reason: str) -> list[str]:
    return [e["message"] for e in api.store.list("events") if e["reason"] == reason]


def edit(api: FakeApi, **spec: Any) -> None:
    obj = json.loads(json.dumps(found(api)))
    obj["spec"] |= spec
    obj["metadata"]["generation"] += 1
    api.store.replace(obj)


async def asked(replicas: FakeReplicas) -> None:
    """Wait until every replica has been asked a few times more, and the last answers but one are decided on."""
    before = {replica: replica.asked for replica in replicas.known.values()}
    await eventually(lambda: all(replica.asked > times + 3 for replica, times in before.items()))


async def test_the_size_follows_the_load_and_every_change_is_explained(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, tmp_path: Path
) -> None:
    replicas.rate = 150.0
    async with operator(api, tmp_path, replicas) as running:
        api.store.create(scaled())
        await eventually(lambda: size(api) >= 2)
        await eventually(lambda: condition(api, "LatencyMet")[:2] == ("True", "WithinTarget"))
        newest = (await eventually(lambda: found(api)["status"].get("lastDecisions")))[0]
        assert (newest["from"], newest["limit"]) == (1, "Demand")
        assert newest["to"] == size(api)
        assert {row["name"] for row in newest["inputs"]} >= {"demand", "latency", "capacity of a replica"}
        await eventually(lambda: found(api)["status"]["latency"][0].get("observed"))
        row = found(api)["status"]["latency"][0]
        assert (row["state"], row["target"], row["quantile"]) == ("Fresh", "100ms", 0.95)
        assert 19 <= float(row["observed"].removesuffix("ms")) <= 21
        assert condition(api, "Scalable")[0] == "True"
        assert await eventually(lambda: events(api, "Scaled"))

        _, metrics = await running.get("/metrics")
        place = 'name="digits",namespace="team-a"'
        line = next(m for m in metrics.splitlines() if m.startswith("evenkeel_desired_replicas{"))
        assert place in line
        assert float(line.split()[-1]) == size(api)
        assert "evenkeel_latency_seconds{" in metrics
        assert "evenkeel_capacity_rps{" in metrics
        assert await running.stop() == 0
        assert "Traceback" not in running.log


async def test_the_size_follows_the_load_when_the_watches_were_started_again(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, tmp_path: Path
) -> None:
    """What ends with kopf's streams, on a 500 inside of one, is nobody else's task."""
    replicas.rate = 20.0
    async with operator(api, tmp_path, replicas) as running:
        api.store.create(scaled())
        await eventually(lambda: condition(api, "LatencyMet")[1] == "WithinTarget")
        api.faults.add("GET", r"/jobs\?.*watch=true", 410, times=1)
        api.store.cut_watches("jobs")
        await eventually(lambda: "watch ended" in running.log)
        await asked(replicas)
        replicas.rate = 150.0
        await eventually(lambda: size(api) >= 2)


async def test_with_scaling_the_size_is_evenkeels_alone_and_without_it_everybodys(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, tmp_path: Path
) -> None:
    async with operator(api, tmp_path, replicas):
        api.store.create(scaled(least=2))
        await eventually(lambda: is_serving(api) and size(api) == 2)
        await eventually(lambda: condition(api, "LatencyMet")[1] == "NoTraffic")
        edit(api, replicas=4)
        (told,) = await eventually(lambda: events(api, "ReplicasIgnored"))
        assert "was set to 4" in told
        assert "spec.scaling" in told
        assert size(api) == 2
        edit(api, scaling=None)
        await eventually(lambda: size(api) == 4)
        await eventually(lambda: "lastDecisions" not in found(api)["status"])


async def test_another_target_moves_the_edge_without_a_new_pod(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, tmp_path: Path
) -> None:
    replicas.rate = 20.0
    async with operator(api, tmp_path, replicas):
        api.store.create(scaled())
        await eventually(lambda: condition(api, "LatencyMet")[0] == "True")
        pods = [p["metadata"]["name"] for p in api.store.list("pods")]
        edit(api, objectives={"latency": [{**TARGET["latency"][0], "target": "10ms"}]})
        await eventually(lambda: found(api)["status"]["latency"][0]["target"] == "10ms")
        (replica,) = replicas.known.values()
        await eventually(lambda: replica.signals.target_s == 0.01)
        assert [p["metadata"]["name"] for p in api.store.list("pods")] == pods
        assert [row["latencyTargetSeconds"] for row in replica.received][-1] == 0.01


async def test_a_size_decided_before_outlives_the_operator(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, tmp_path: Path
) -> None:
    replicas.rate = 150.0
    async with operator(api, tmp_path, replicas) as first:
        api.store.create(scaled())
        await eventually(lambda: size(api) >= 2)
        want = size(api)
        await first.stop()
    replicas.answer = no_endpoint
    async with operator(api, tmp_path, replicas, name="second") as second:
        await second.leads()
        await eventually(lambda: condition(api, "Scalable")[1] in ("SignalsRefused", "MetricsMissing"))
        await asked(replicas)
        assert size(api) == want


@pytest.mark.parametrize(
    "status",
    [
        pytest.param(403, id="it may not be read"),
        pytest.param(500, id="the server fails"),
        pytest.param(429, id="the server is too busy"),
    ],
)
async def test_the_size_follows_the_load_while_what_was_kept_cannot_be_read(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, tmp_path: Path, status: int
) -> None:
    replicas.rate = 150.0
    api.faults.add("GET", "/configmaps/", status, times=10**6)
    async with operator(api, tmp_path, replicas) as running:
        api.store.create(scaled())
        await eventually(lambda: size(api) >= 2)
        assert "memory not read deployment=team-a/digits" in running.log
        assert "memory not kept" not in running.log
        assert "Traceback" not in running.log


async def no_endpoint(request: web.Request, replica: FakeReplica) -> web.StreamResponse:
    return web.Response(status=404, text="no such page")


async def endless(request: web.Request, replica: FakeReplica) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(800):
        await response.write(b" " * 65536)
    return response


async def dripping(request: web.Request, replica: FakeReplica) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(100):
        await response.write(b"{")
        await asyncio.sleep(0.2)
    return response


async def elsewhere(request: web.Request, replica: FakeReplica) -> web.StreamResponse:
    raise web.HTTPFound("http://127.0.0.1:1/")


def changed(**change: Any) -> Answer:
    """Return an answer that is honest but for some of its parts."""

    async def answer(request: web.Request, replica: FakeReplica) -> web.StreamResponse:
        body = json.loads(replica.signals.render(None, 0, True)) | change
        return web.Response(text=json.dumps(body), content_type="application/json")

    return answer


def rewinding() -> Answer:
    counts = iter(range(10**6, 0, -1))

    async def answer(request: web.Request, replica: FakeReplica) -> web.StreamResponse:
        # Of a process that is young, the first count would be taken for what came since its start.
        change = {"arrivals": next(counts), "uptimeSeconds": 3600.0}
        body = json.loads(replica.signals.render(None, 0, True)) | change
        return web.Response(text=json.dumps(body), content_type="application/json")

    return answer


BAD = [
    pytest.param(no_endpoint, "NoEndpoint", id="a foreign image without the endpoint"),
    pytest.param(elsewhere, "NoEndpoint", id="a redirect"),
    pytest.param(endless, "TooLong", id="fifty megabytes"),
    pytest.param(dripping, "TooSlow", id="an answer that drips"),
    pytest.param(changed(arrivals=float("nan")), "Malformed", id="a counter that is no number"),
    pytest.param(changed(arrivedRows=-5), "Malformed", id="a negative counter"),
    pytest.param(rewinding(), "CountersRewound", id="a counter that runs backwards"),
    pytest.param(
        changed(latency={"targetSeconds": 0.1, "edges": [0.01, 0.1, 1.0], "counts": [1, 2, 3, 4]}),
        "OtherBuckets",
        id="a histogram with other buckets",
    ),
]


@pytest.mark.parametrize(("lie", "flaw"), BAD)
async def test_answers_that_are_none_hold_the_size_and_are_named(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, tmp_path: Path, lie: Answer, flaw: str
) -> None:
    replicas.answer = lie
    async with operator(api, tmp_path, replicas) as running:
        api.store.create(scaled(replicas=3))
        await eventually(lambda: condition(api, "Scalable")[1] == "SignalsRefused")
        status, _, message = condition(api, "Scalable")
        assert status == "False"
        assert flaw in message
        assert size(api) == 3
        assert condition(api, "LatencyMet")[:2] == ("Unknown", "MetricsMissing")
        _, metrics = await running.get("/metrics")
        assert f'evenkeel_polls_total{{result="{flaw}"}}' in metrics
        replicas.answer = honest
        replicas.rate = 30.0
        await eventually(lambda: condition(api, "LatencyMet")[0] == "True")
        assert "Traceback" not in running.log
        assert "ERROR" not in running.log


async def test_the_idlest_replica_goes_first(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, tmp_path: Path
) -> None:
    replicas.rate = 1.0
    async with operator(api, tmp_path, replicas):
        api.store.create(scaled(least=3, most=4))
        await eventually(lambda: is_serving(api) and size(api) == 3 and len(replicas.known) == 3)
        pods = {p["status"]["podIP"]: p["metadata"]["name"] for p in api.store.list("pods")}
        busy, idle, also_busy = replicas.known

        async def answer(request: web.Request, replica: FakeReplica) -> web.StreamResponse:
            replica.catch_up()
            body = replica.signals.render(None, 0 if replica.address == idle else 7, True)
            return web.Response(body=body, content_type="application/json")

        replicas.answer = answer
        await asked(replicas)
        edit(api, scaling={"minReplicas": 1, "maxReplicas": 2})
        await eventually(lambda: cluster.removed)
        assert cluster.removed[0] == pods[idle]
        assert {pods[busy], pods[also_busy]} == {p["metadata"]["name"] for p in api.store.list("pods")}
