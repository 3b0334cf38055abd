"""Is a canary judged by real labels, by nothing else while there are none, and does a person have the last word?"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from evenkeel_runtime import receipts
from evenkeel_runtime.receipts import Assignment
from tests.system.feedback.server import Deployment, Service
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
from tests.system.operator.harness import ROOT, eventually, is_serving, kubeconfig
from tests.system.operator.replicas import FakeReplicas

ACCURACY = {"accuracy": [{"metric": "Accuracy", "floor": 0.8, "margin": 0.05, "horizon": "1s"}]}


@pytest.fixture
async def replicas() -> AsyncIterator[FakeReplicas]:
    async with FakeReplicas() as found:
        found.key, found.rate = MODEL.key, 100.0
        yield found


@pytest.fixture
def cluster(api: FakeApi, replicas: FakeReplicas) -> Actors:
    return Actors(api.store, replicas=replicas)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """The real feedback service, with the operator's master key."""
    found = await asyncio.to_thread(Service, tmp_path, "--path", str(tmp_path / "feedback.db"))
    yield found
    found.kill()


async def labelled(service: Service, revision: str, right: int, wrong: int, drawn: Assignment) -> None:
    """Post labels of a revision's predictions: so many in each of the four quarters of an hour from long ago on."""
    model = Deployment(revision, uid=MODEL.uid)
    for minutes in (75, 60, 45, 30):
        items = [
            {
                "receipt": model.receipt(3, after_s=-60.0 * minutes, assignment=drawn),
                "label": 3 if n < right else 4,
            }
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
    await labelled(service, stable, 190, 10, Assignment.STABLE)
    await labelled(service, new, 190, 10, Assignment.CANARY)
    service.kill()
    grown_old(api)
    async with operator(api, tmp_path, replicas, name="second", feedback=service.url) as second:
        await eventually(lambda: condition(api, "AccuracyMet") == ("Unknown", "MetricsMissing"))
        await eventually(lambda: row(api)["why"] == "LabelsUnknown")
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
    await labelled(service, stable, 95, 5, Assignment.STABLE)
    await labelled(service, new, 50, 50, Assignment.CANARY)
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


async def test_an_equal_canary_is_promoted_beside_easier_requests_that_were_never_its_own(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, service: Service, tmp_path: Path
) -> None:
    """Of what was drawn both get 0.85 right; stable gets all of what comes by gRPC, which is as much again."""
    async with operator(api, tmp_path, replicas, feedback=service.url) as first:
        stable, new = await started(api, objectives=ACCURACY)
        await eventually(lambda: kept_samples(api, new) > 0)
        await first.stop()
    await labelled(service, stable, 255, 45, Assignment.STABLE)
    await labelled(service, stable, 300, 0, Assignment.UNASSIGNED)
    await labelled(service, new, 255, 45, Assignment.CANARY)
    grown_old(api)
    async with operator(api, tmp_path, replicas, name="second", feedback=service.url) as second:
        await eventually(lambda: row(api)["state"] in ("Promoted", "RolledBack"))
        assert (row(api)["state"], row(api)["why"]) == ("Promoted", "NotWorse")
        (told,) = (one for one in row(api)["story"] if one.startswith("Accuracy"))
        assert "canary 0.8500" in told
        assert "stable 0.8500" in told
        assert "Traceback" not in second.log


@pytest.mark.parametrize("mode", ["Split", "Mirror"])
async def test_a_canary_of_other_classes_says_so_before_any_label(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, service: Service, tmp_path: Path, mode: str
) -> None:
    """A replica tells its classes before its first prediction, of which a mirrored canary has none that count."""
    async with operator(api, tmp_path, replicas, feedback=service.url) as first:
        stable, new = await started(api, mode, objectives=ACCURACY)
        for revision, classes in ((stable, 10), (new, 4)):
            await asyncio.to_thread(introduced, service, revision, classes)
        await eventually(lambda: condition(api, "Ready") == ("False", "CannotBeJudged"))
        assert (row(api)["mode"], row(api)["state"], row(api)["why"]) == (mode, "Held", "CannotBeJudged")
        (ready,) = (one for one in found(api)["status"]["conditions"] if one["type"] == "Ready")
        assert "answer different classes" in ready["message"]
        assert "Traceback" not in first.log


def introduced(service: Service, revision: str, classes: int) -> None:
    """Tell the service what a replica tells that has predicted nothing."""
    model = Deployment(revision, classes, uid=MODEL.uid)
    told = {"process": "ab" * 8, "revision": revision, "assignment": 2, "classes": classes, "cohorts": []}
    body = json.dumps(told).encode()
    assert service.ask("POST", "/v1/predictions", body, model.signed(receipts.COUNTS, body))[0] == 200


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
