"""Is a canary told to those who pass requests on to it, judged by real labels, and does it outlive its operator?

Evidence of answers counts by the minute and that of labels by the quarter of an hour. So that no test waits for these,
a canary grows old while its operator is dead: what is kept of it, its status and its samples, is moved into the past.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from evenkeel_operator.decide import canary, names
from evenkeel_operator.decide.answers import Samples
from evenkeel_runtime import contract
from tests.system.feedback.server import KEY_ID, MASTER, NOBODY, Deployment, Service
from tests.system.operator.fakeapi.actors import Actors
from tests.system.operator.fakeapi.server import FakeApi
from tests.system.operator.harness import (
    ROOT,
    Object,
    Operator,
    eventually,
    is_serving,
    kubeconfig,
    modeldeployment,
    quiet,
)
from tests.system.operator.replicas import FakeReplica, FakeReplicas

PLACE = ("team-a", "digits")
ROLLOUT = {
    "strategy": "Canary",
    "canary": {"mode": "Split", "steps": [{"weight": 50, "minDuration": "1s", "minSamples": 20}]},
}
ACCURACY = {"accuracy": [{"metric": "Accuracy", "floor": 0.8, "margin": 0.05, "horizon": "1s"}]}
COUNT = 4
AGE = timedelta(hours=2)
MODEL = Deployment()


@pytest.fixture
async def replicas() -> AsyncIterator[FakeReplicas]:
    async with FakeReplicas() as found:
        found.key, found.rate = MODEL.key, 100.0
        yield found


@pytest.fixture
def cluster(api: FakeApi, replicas: FakeReplicas) -> Actors:
    return Actors(api.store, replicas=replicas)


def operator(
    api: FakeApi,
    folder: Path,
    replicas: FakeReplicas,
    name: str = "operator",
    *,
    feedback: str = NOBODY,
    lease_s: float = 30.0,
) -> Operator:
    """Return an operator; `lease_s` is for how long its successor waits where it is killed."""
    keys = folder / "keys"
    keys.mkdir(exist_ok=True)
    (keys / str(KEY_ID)).write_bytes(MASTER)
    flags = (
        *(f"--signals-port={replicas.port}", "--signals-seconds=0.3", "--quality-seconds=0.5"),
        *(f"--feedback-url={feedback}", f"--feedback-keys-dir={keys}", f"--lease-duration-seconds={lease_s}"),
    )
    return Operator(api, folder, *flags, name=name)


def found(api: FakeApi) -> Object:
    return api.store.get("modeldeployments", *PLACE)


def row(api: FakeApi) -> Object:
    """Return status.canary."""
    told: Object = found(api)["status"]["canary"]
    return told


def condition(api: FakeApi, kind: str) -> tuple[str, str]:
    told = {c["type"]: c for c in found(api)["status"]["conditions"]}[kind]
    return told["status"], told["reason"]


def selector(api: FakeApi) -> str | None:
    """Return the only revision that the Service leads to, None where it leads to all."""
    leads_to: str | None = api.store.get("services", *PLACE)["spec"]["selector"].get(names.REVISION_LABEL)
    return leads_to


def size(api: FakeApi, revision: str) -> int:
    return int(api.store.get("replicasets", PLACE[0], revision)["spec"]["replicas"])


def of(api: FakeApi, replicas: FakeReplicas, revision: str) -> list[FakeReplica]:
    """Return the replicas of a revision."""
    pods = [p for p in api.store.list("pods") if p["metadata"]["labels"].get(names.REVISION_LABEL) == revision]
    return [replicas.known[p["status"]["podIP"]] for p in pods if "podIP" in p["status"]]


def edit(api: FakeApi, **spec: Any) -> None:
    obj = found(api)
    obj["spec"] |= spec
    api.store.replace(obj)


async def started(api: FakeApi, **spec: Any) -> tuple[str, str]:
    """Serve a revision, ask for another one, and return both once the first step of its trial has begun."""
    wanted = modeldeployment(replicas=COUNT, rollout=ROLLOUT, **spec)
    wanted["metadata"]["uid"] = MODEL.uid
    api.store.create(wanted)
    await eventually(lambda: is_serving(api))
    stable = found(api)["status"]["stableRevision"]
    edit(api, model={"uri": "pvc://models/better.pt2"})
    await eventually(lambda: row(api)["stepsBegan"])
    return stable, row(api)["revision"]


def grown_old(api: FakeApi, *, slow: int = 0, failed: int = 0) -> None:
    """Let two hours pass for a canary whose operator is dead, in which it answered a sample in each second.

    `slow` and `failed` of 60 were slow and have failed; all of stable's were good.
    """
    obj = found(api)
    told, now = obj["status"]["canary"], datetime.now(UTC)
    began = now - AGE
    told["stepsBegan"] = told["began"] = None
    told |= {"began": timestamp(began), "stepsBegan": [timestamp(began)]}
    api.store.replace(obj)
    minute = began.replace(second=0, microsecond=0)
    rows = [
        [is_stable, int((minute + timedelta(minutes=n)).timestamp()), 60, *((0, 0) if is_stable else (slow, failed))]
        for n in range(1, 60)
        for is_stable in (True, False)
    ]
    kept = api.store.get("configmaps", PLACE[0], names.trial_name(PLACE[1]))
    text = {"version": 1, "stable": told["stable"], "canary": told["revision"], "rows": rows}
    kept["data"]["samples"] = Samples.from_json(json.dumps(text)).to_json(now, [began])
    api.store.replace(kept)


def timestamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def kept_samples(api: FakeApi, revision: str) -> int:
    kept = api.store.get("configmaps", PLACE[0], names.trial_name(PLACE[1]))
    return sum(r.samples for r in Samples.from_json(kept["data"]["samples"]).rows() if r.revision == revision)


async def asked(those: Sequence[FakeReplica], times: int = 3) -> None:
    """Wait until each of the replicas has been asked a few times more."""
    before = {replica: replica.asked for replica in those}
    await eventually(lambda: all(replica.asked > count + times for replica, count in before.items()))


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
    async with operator(api, tmp_path, replicas, lease_s=4) as first:
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
    async with operator(api, tmp_path, replicas, name="second", lease_s=4) as second:
        await eventually(lambda: row(api)["state"] == "RolledBack" and size(api, new) == 0)
        await second.stop(signal.SIGKILL)
    assert all(one.canary_left_s > 0 for one in ours)
    for one in ours:
        one.key = MODEL.key
    async with operator(api, tmp_path, replicas, name="third") as third:
        await eventually(lambda: all(one.canary_left_s == 0 for one in ours))
        assert (row(api)["state"], size(api, stable), selector(api)) == ("RolledBack", COUNT, stable)
        assert "Traceback" not in third.log


# by labels


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """The real feedback service, with the operator's master key."""
    found = await asyncio.to_thread(Service, tmp_path, "--path", str(tmp_path / "feedback.db"))
    yield found
    found.kill()


async def labelled(service: Service, revision: str, right: int, wrong: int) -> None:
    """Post labels of a revision's predictions: so many in each of the four quarters of an hour from long ago on."""
    model = Deployment(revision, uid=MODEL.uid)
    for minutes in (75, 60, 45, 30):
        items = [
            {"receipt": model.receipt(3, after_s=-60.0 * minutes), "label": 3 if n < right else 4}
            for n in range(right + wrong)
        ]
        answer = await asyncio.to_thread(service.post, items)
        assert {one["outcome"] for one in answer["results"]} == {"accepted"}


async def test_nothing_is_promoted_on_accuracy_while_the_feedback_service_is_down(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, service: Service, tmp_path: Path
) -> None:
    async with operator(api, tmp_path, replicas, feedback=service.url) as first:
        stable, new = await started(api, objectives=ACCURACY)
        await eventually(lambda: kept_samples(api, new) > 0)
        await eventually(lambda: condition(api, "AccuracyMet") == ("Unknown", "LabelsMissing"))
        await first.stop()
    for revision in (stable, new):
        await labelled(service, revision, 190, 10)
    service.kill()
    grown_old(api)
    async with operator(api, tmp_path, replicas, name="second", feedback=service.url) as second:
        await eventually(lambda: condition(api, "AccuracyMet") == ("Unknown", "MetricsMissing"))
        await eventually(lambda: row(api)["why"] == "NoTraffic")
        await asked(of(api, replicas, stable), times=10)
        assert (row(api)["state"], selector(api), size(api, stable)) == ("Canary", stable, COUNT)

        await asyncio.to_thread(service.start)
        await eventually(lambda: row(api)["state"] == "Promoted")
        assert (row(api)["why"], row(api)["labels"]) == ("NotWorse", 800)
        await eventually(lambda: is_serving(api) and found(api)["status"]["stableRevision"] == new)
        await eventually(lambda: condition(api, "AccuracyMet") == ("True", "AboveFloor"))
        (told,) = found(api)["status"]["accuracy"]
        assert (told["state"], told["observed"], told["labels"]) == ("Fresh", 0.95, 800)

        service.kill()
        await eventually(lambda: condition(api, "AccuracyMet") == ("Unknown", "MetricsStale"))
        (told,) = found(api)["status"]["accuracy"]
        assert (told["state"], told["observed"]) == ("Stale", 0.95)
        assert found(api)["status"]["stableRevision"] == new
        assert is_serving(api)
        assert "Traceback" not in second.log


async def test_a_canary_whose_labels_are_worse_is_rolled_back_with_its_numbers(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, service: Service, tmp_path: Path
) -> None:
    async with operator(api, tmp_path, replicas, feedback=service.url) as first:
        stable, new = await started(api, objectives=ACCURACY)
        await eventually(lambda: kept_samples(api, new) > 0)
        await first.stop()
    await labelled(service, stable, 95, 5)
    await labelled(service, new, 50, 50)
    grown_old(api)
    async with operator(api, tmp_path, replicas, name="second", feedback=service.url) as second:
        await eventually(lambda: row(api)["state"] == "RolledBack" and size(api, new) == 0)
        assert row(api)["why"] in ("Worse", "BelowFloor")
        story = " ".join(row(api)["story"])
        assert "0.5000" in story
        assert "0.9500" in story
        assert (size(api, stable), selector(api)) == (COUNT, stable)
        await eventually(lambda: condition(api, "AccuracyMet") == ("True", "AboveFloor"))
        assert condition(api, "RolledBack") == ("True", "RolledBack")
        assert "Traceback" not in second.log


# by hand


async def command(api: FakeApi, folder: Path, *words: str) -> str:
    """Run `evenkeel`, which has to succeed; return what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "evenkeel_runtime.commands", *words, "--kubeconfig", str(kubeconfig(folder, api.url))),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=ROOT,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, told
    return told.decode()


async def test_a_person_takes_a_canary_back_promotes_it_and_goes_back(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, tmp_path: Path
) -> None:
    async with operator(api, tmp_path, replicas) as running:
        stable, new = await started(api)
        ours = of(api, replicas, stable)
        await eventually(lambda: all(one.followed for one in ours))

        assert f"rolls {new} back" in await command(api, tmp_path, "abort", "digits")
        await eventually(lambda: row(api)["state"] == "RolledBack" and size(api, new) == 0)
        assert (row(api)["why"], selector(api), size(api, stable)) == ("ByHand", stable, COUNT)
        await eventually(lambda: all(one.followed[-1].canary is None for one in ours))

        assert f"promotes {new}" in await command(api, tmp_path, "promote", "digits", "-n", "team-a")
        await eventually(lambda: row(api)["state"] == "Promoted")
        await eventually(lambda: is_serving(api) and found(api)["status"]["stableRevision"] == new)
        assert (row(api)["why"], selector(api)) == ("ByHand", None)

        assert "goes back to revision 1" in await command(api, tmp_path, "rollback", "digits")
        await eventually(lambda: is_serving(api) and found(api)["status"]["stableRevision"] == stable)
        assert "canaryRevision" not in found(api)["status"], "who asks for a revision back does not want it tried"
        assert replicas.refused == []
        assert "Traceback" not in running.log
