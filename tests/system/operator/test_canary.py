"""Is a canary told to those who pass requests on to it, judged by how it answers, and does it outlive its operator?"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from evenkeel_operator.decide import canary
from evenkeel_runtime import contract
from tests.system.operator.canaries import (
    COUNT,
    MODEL,
    asked,
    condition,
    found,
    grown_old,
    kept_samples,
    of,
    operator,
    row,
    selector,
    size,
    started,
)
from tests.system.operator.fakeapi.actors import Actors
from tests.system.operator.fakeapi.server import FakeApi
from tests.system.operator.harness import eventually, is_serving, quiet
from tests.system.operator.replicas import FakeReplicas


@pytest.fixture
async def replicas() -> AsyncIterator[FakeReplicas]:
    async with FakeReplicas() as found:
        found.key, found.rate = MODEL.key, 100.0
        yield found


@pytest.fixture
def cluster(api: FakeApi, replicas: FakeReplicas) -> Actors:
    return Actors(api.store, replicas=replicas)


async def test_the_stable_replicas_are_told_of_a_canary_and_told_again_before_they_forget(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, tmp_path: Path
) -> None:
    async with operator(api, tmp_path, replicas) as running:
        stable, new = await started(api)
        assert (size(api, stable), size(api, new), selector(api)) == (COUNT, COUNT // 2, stable)
        ours, its = of(api, replicas, stable), of(api, replicas, new)
        await eventually(lambda: all(one.followed for one in ours))
        addresses = tuple(sorted(f"{one.address}:{contract.HTTP_PORT}" for one in its))
        want = contract.Canary(new, "Split", 0.5, addresses, canary.EXPIRES_S)
        for one in ours:
            (told,) = one.followed
            assert (told.canary, told.generation) == (want, 2)
        await asked(ours)
        assert [len(one.followed) for one in ours] == [1] * COUNT, "who knows is not told again"
        ours[0].forget(canary.EXPIRES_S / 2 - 1)
        await eventually(lambda: len(ours[0].followed) == 2)
        first, second = ours[0].followed
        assert first.moment_ms is not None
        assert second.moment_ms is not None
        assert second.moment_ms > first.moment_ms
        assert ours[0].canary_left_s > canary.EXPIRES_S - 60
        assert [len(one.followed) for one in ours[1:]] == [1] * (COUNT - 1)
        assert [one.followed for one in its] == [[]] * len(its), "the canary itself is told nothing"
        assert replicas.refused == [], "every signature is right"
        await eventually(lambda: kept_samples(api, new) > 0 and kept_samples(api, stable) > 0)
        assert await running.stop() == 0
        assert "Traceback" not in running.log


async def test_a_killed_operator_is_followed_by_one_that_goes_on_with_the_trial(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, tmp_path: Path
) -> None:
    async with operator(api, tmp_path, replicas, lease_s=15) as first:
        stable, new = await started(api)
        ours = of(api, replicas, stable)
        await eventually(lambda: all(one.followed for one in ours) and kept_samples(api, new) > 0)
        began = row(api)["stepsBegan"]
        await first.stop(signal.SIGKILL)
    before = kept_samples(api, new)
    async with operator(api, tmp_path, replicas, name="second") as second:
        await eventually(lambda: all(len(one.followed) > 1 for one in ours))
        for one in ours:
            assert one.followed[-1].canary == one.followed[0].canary
        await eventually(lambda: kept_samples(api, new) > before)
        assert row(api)["stepsBegan"] == began
        assert (size(api, stable), size(api, new), selector(api)) == (COUNT, COUNT // 2, stable)
        assert replicas.refused == []
        assert "Traceback" not in second.log


async def test_a_canary_that_answers_as_well_is_promoted_and_the_service_opens(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, tmp_path: Path
) -> None:
    async with operator(api, tmp_path, replicas) as first:
        stable, new = await started(api)
        await eventually(lambda: kept_samples(api, new) > 0)
        await first.stop()
    grown_old(api)
    opened: list[str | None] = []
    api.store.listeners.append(
        lambda resource, *_: opened.append(selector(api)) if resource.plural == "services" else None
    )
    async with operator(api, tmp_path, replicas, name="second") as second:
        await eventually(lambda: row(api)["state"] == "Promoted")
        assert row(api)["why"] == "AnswersGood"
        await eventually(lambda: is_serving(api) and found(api)["status"]["stableRevision"] == new)
        assert opened == [None], "it leads to both, so that nobody waits while one replaces the other"
        await eventually(lambda: not of(api, replicas, stable))
        assert len(of(api, replicas, new)) == COUNT
        assert "Traceback" not in second.log


async def test_a_canary_that_fails_is_rolled_back_and_the_stable_replicas_forget_it(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, tmp_path: Path
) -> None:
    async with operator(api, tmp_path, replicas) as first:
        stable, new = await started(api)
        ours = of(api, replicas, stable)
        await eventually(lambda: all(one.followed for one in ours) and kept_samples(api, new) > 0)
        await first.stop()
    grown_old(api, failed=30)
    async with operator(api, tmp_path, replicas, name="second") as second:
        await eventually(lambda: row(api)["state"] == "RolledBack" and size(api, new) == 0)
        assert row(api)["why"] == "Failing"
        await eventually(lambda: all(one.followed[-1].canary is None for one in ours))
        assert all(one.canary_left_s == 0 for one in ours)
        assert (size(api, stable), selector(api)) == (COUNT, stable)
        assert condition(api, "RolledBack") == ("True", "RolledBack")
        assert condition(api, "Ready") == ("False", "RolledBack")
        assert await eventually(lambda: [e for e in api.store.list("events") if e["reason"] == "CanaryRolledBack"])
        told = [len(one.followed) for one in ours]
        await quiet(api)
        assert [len(one.followed) for one in ours] == told, "whoever has forgotten it is left alone"
        assert replicas.refused == []
        assert "Traceback" not in second.log


async def test_an_operator_killed_at_the_verdict_leaves_nobody_with_a_canary_that_is_gone(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, tmp_path: Path
) -> None:
    async with operator(api, tmp_path, replicas) as first:
        stable, new = await started(api)
        ours = of(api, replicas, stable)
        await eventually(lambda: all(one.followed for one in ours) and kept_samples(api, new) > 0)
        await first.stop()
    grown_old(api, failed=30)
    for one in ours:
        one.key = None  # so that it follows nobody, until it has its key again
    async with operator(api, tmp_path, replicas, name="second", lease_s=15) as second:
        await eventually(lambda: row(api)["state"] == "RolledBack" and size(api, new) == 0)
        await second.stop(signal.SIGKILL)
    assert all(one.canary_left_s > 0 for one in ours)
    for one in ours:
        one.key = MODEL.key
    async with operator(api, tmp_path, replicas, name="third") as third:
        await eventually(lambda: all(one.canary_left_s == 0 for one in ours))
        assert (row(api)["state"], size(api, stable), selector(api)) == ("RolledBack", COUNT, stable)
        assert "Traceback" not in third.log
