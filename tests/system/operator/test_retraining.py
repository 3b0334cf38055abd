"""Does an alarm reach its receiver and start one Job, whatever is killed, down or refused meanwhile?

The labels are real, in the real feedback service; the receiver is a real HTTP server. Only the quarters of an hour that
labels count by do not pass: the revision's service is moved into the past while its operator is dead.
"""

from __future__ import annotations

import asyncio
import random
import re
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from evenkeel_operator.decide import names
from evenkeel_runtime.receipts import Assignment
from tests.system.feedback.server import Service
from tests.system.operator.canaries import (
    COUNT,
    MODEL,
    PLACE,
    ROLLOUT,
    condition,
    edit,
    found,
    operator,
    row,
    selector,
    size,
    timestamp,
)
from tests.system.operator.fakeapi.actors import Actors
from tests.system.operator.fakeapi.resources import Resource
from tests.system.operator.fakeapi.server import FakeApi
from tests.system.operator.harness import Object, Operator, eventually, is_serving, modeldeployment, quiet
from tests.system.operator.receiver import Receiver
from tests.system.operator.replicas import FakeReplicas
from tests.system.operator.test_canary_labels import labelled

ACCURACY = {"accuracy": [{"metric": "Accuracy", "floor": 0.8, "margin": 0.05, "horizon": "1s"}]}
HOSTS = ("--event-hosts=127.0.0.1",)
NOBODY_THERE = "http://127.0.0.1:9/alarms"


@pytest.fixture
async def replicas() -> AsyncIterator[FakeReplicas]:
    async with FakeReplicas() as served:
        served.key, served.rate = MODEL.key, 100.0
        yield served


@pytest.fixture
def cluster(api: FakeApi, replicas: FakeReplicas) -> Actors:
    return Actors(api.store, replicas=replicas)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    made = await asyncio.to_thread(Service, tmp_path, "--path", str(tmp_path / "feedback.db"))
    yield made
    made.kill()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as made:
        yield made


@pytest.fixture
def made(api: FakeApi) -> list[str]:
    """Return the names of all retraining Jobs that are ever created."""
    names_made: list[str] = []

    def note(resource: Resource, what: str, obj: Object) -> None:
        if resource.plural == "jobs" and what == "ADDED" and "-retrain-" in obj["metadata"]["name"]:
            names_made.append(obj["metadata"]["name"])

    api.store.listeners.append(note)
    return names_made


def cron_job(**labels: str) -> Object:
    container = {"name": "train", "image": "registry/train:1", "args": ["--out", "$(EVENKEEL_REVISION)-next"]}
    pod = {"spec": {"containers": [container], "restartPolicy": "Never", "serviceAccountName": "retrain"}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "retrain", "namespace": PLACE[0], "labels": labels},
        "spec": {"suspend": True, "jobTemplate": {"spec": {"backoffLimit": 0, "template": pod}}},
    }


MEANT = {names.RETRAINS_LABEL: PLACE[1]}


def alarms(api: FakeApi) -> list[Object]:
    told: list[Object] = found(api)["status"]["retraining"]
    return told


def jobs(api: FakeApi) -> list[Object]:
    return [j for j in api.store.list("jobs") if j["metadata"]["labels"][names.ROLE_LABEL] == names.RETRAIN_ROLE]


def end(api: FakeApi, name: str, how: str = "Complete") -> None:
    job = api.store.get("jobs", PLACE[0], name)
    job["status"] = {
        "conditions": [{"type": how, "status": "True", "lastTransitionTime": timestamp(datetime.now(UTC))}]
    }
    api.store.replace(job)


def told(api: FakeApi, reason: str) -> list[str]:
    """Return the messages of the Events of that reason."""
    return [e["message"] for e in api.store.list("events") if e["reason"] == reason]


async def served_badly(api: FakeApi, folder: Path, replicas: FakeReplicas, service: Service, wanted: Object) -> str:
    """Serve a revision for two hours in which it was wrong about three of four, as nobody has noticed yet."""
    obj = modeldeployment(replicas=COUNT, rollout=ROLLOUT, objectives=ACCURACY, retraining=wanted)
    obj["metadata"]["uid"] = MODEL.uid
    api.store.create(obj)
    async with operator(api, folder, replicas, name="before", feedback=service.url) as before:
        await eventually(lambda: is_serving(api) and found(api)["status"]["served"])
        await before.stop()
    obj = found(api)
    revision = str(obj["status"]["stableRevision"])
    obj["status"]["served"][0]["since"] = timestamp(datetime.now(UTC) - timedelta(hours=2))
    api.store.replace(obj)
    await labelled(service, revision, 50, 150, Assignment.UNASSIGNED)
    return revision


async def test_an_alarm_is_posted_and_starts_a_job_whose_model_is_tried(
    api: FakeApi,
    cluster: Actors,
    replicas: FakeReplicas,
    service: Service,
    receiver: Receiver,
    made: list[str],
    tmp_path: Path,
) -> None:
    api.store.create(cron_job(**MEANT))
    wanted = {"eventURL": receiver.url, "cronJobRef": {"name": "retrain"}}
    stable = await served_badly(api, tmp_path, replicas, service, wanted)
    assert condition(api, "Retrainable") == ("True", "CronJobAtHand")
    assert (made, receiver.events) == ([], [])
    async with operator(api, tmp_path, replicas, feedback=service.url, more=HOSTS) as running:
        await eventually(lambda: condition(api, "AccuracyMet") == ("False", "DriftSuspected"))
        await eventually(lambda: alarms(api)[0]["event"] == "Delivered")
        (event,), (headers,) = receiver.events, receiver.headers
        assert headers["Content-Type"] == "application/cloudevents+json"
        alarm = alarms(api)[0]
        named = {"specversion": "1.0", "id": alarm["alarm"], "type": "dev.evenkeel.accuracy.alarm"}
        source = "/apis/evenkeel.dev/v1alpha1/namespaces/team-a/modeldeployments/digits"
        assert event | named | {"source": source} == event
        data = {"revision": stable, "metric": "Accuracy", "floor": 0.8, "observed": 0.25}
        assert event["data"] | data == event["data"]

        await eventually(lambda: jobs(api))
        assert alarms(api)[0]["state"] in ("Starting", "Running")
        (job,) = jobs(api)
        assert job["metadata"]["ownerReferences"][0]["uid"] == MODEL.uid
        assert job["spec"]["template"]["spec"]["serviceAccountName"] == "retrain"
        (container,) = job["spec"]["template"]["spec"]["containers"]
        environment = {e["name"]: e["value"] for e in container["env"]}
        assert environment["EVENKEEL_REVISION"] == stable
        assert environment["EVENKEEL_LABELS_URL"].startswith(f"{service.url}/v1/labels/team-a/digits?since=")
        assert {"AccuracyAlarm", "RetrainingStarted"} <= {e["reason"] for e in api.store.list("events")}

        edit(api, model={"uri": "pvc://models/retrained.pt2"})  # as the Job does, with its own rights
        end(api, job["metadata"]["name"])
        await eventually(lambda: row(api)["stepsBegan"])
        new = row(api)["revision"]
        assert (row(api)["stable"], selector(api), size(api, stable)) == (stable, stable, COUNT)
        await eventually(lambda: alarms(api)[0]["state"] == "Succeeded")
        assert (alarms(api)[0]["successor"], len(alarms(api))) == (new, 1)
        assert (len(made), len(receiver.events)) == (1, 1)
        assert not [r for r in api.writes(path="/modeldeployments/digits") if not r.path.endswith("/status")]
        _, metrics = await running.get("/metrics")
        assert 'evenkeel_cloudevents_total{result="delivered"} 1.0' in metrics
        assert "Traceback" not in running.log


@pytest.mark.parametrize("seed", range(2))
async def test_killed_at_random_moments_it_starts_one_job_and_posts_one_event(
    api: FakeApi,
    cluster: Actors,
    replicas: FakeReplicas,
    service: Service,
    receiver: Receiver,
    made: list[str],
    tmp_path: Path,
    seed: int,
) -> None:
    moment = random.Random(seed)
    api.store.create(cron_job(**MEANT))
    wanted = {"eventURL": receiver.url, "cronJobRef": {"name": "retrain"}}
    await served_badly(api, tmp_path, replicas, service, wanted)

    def life(number: int) -> Operator:
        name = f"life-{number}"
        return operator(api, tmp_path, replicas, name=name, feedback=service.url, lease_s=4, more=HOSTS)

    for number in range(4):
        async with life(number) as killed:
            await killed.leads()
            await asyncio.sleep(moment.uniform(0, 2.5))
            await killed.stop(signal.SIGKILL)
    async with life(9) as last:
        await eventually(lambda: alarms(api)[0]["event"] == "Delivered" and jobs(api))
        end(api, made[0])
        await eventually(lambda: alarms(api)[0]["state"] == "Succeeded")
        await quiet(api)
        assert len(made) == len(alarms(api)) == 1
        assert {event["id"] for event in receiver.events} == {alarms(api)[0]["alarm"]}
        assert all(event == receiver.events[0] for event in receiver.events)
        assert "Traceback" not in last.log


async def test_a_receiver_that_fails_is_tried_again(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, service: Service, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.answers = [503]
    await served_badly(api, tmp_path, replicas, service, {"eventURL": receiver.url})
    async with operator(api, tmp_path, replicas, feedback=service.url, more=HOSTS):
        await eventually(lambda: alarms(api)[0].get("eventMessage") == "the receiver answers 503")
        assert alarms(api)[0]["event"] == "Pending"
        await eventually(lambda: alarms(api)[0]["event"] == "Delivered")
        assert len(receiver.events) == 2
        assert receiver.events[0] == receiver.events[1]
        assert not {"eventMessage", "state"} & alarms(api)[0].keys()


async def test_a_receiver_that_stays_away_is_given_up_and_the_job_does_not_wait_for_it(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, service: Service, made: list[str], tmp_path: Path
) -> None:
    api.store.create(cron_job(**MEANT))
    wanted = {"eventURL": NOBODY_THERE, "cronJobRef": {"name": "retrain"}}
    await served_badly(api, tmp_path, replicas, service, wanted)
    async with operator(api, tmp_path, replicas, feedback=service.url, more=HOSTS) as first:
        await eventually(lambda: "not reached" in alarms(api)[0]["eventMessage"])
        await eventually(lambda: len(made) == 1)
        assert alarms(api)[0]["event"] == "Pending"
        await first.stop()
    obj = found(api)
    obj["status"]["retraining"][0]["at"] = timestamp(datetime.now(UTC) - timedelta(hours=2))
    api.store.replace(obj)
    async with operator(api, tmp_path, replicas, name="second", feedback=service.url, more=HOSTS) as second:
        await eventually(lambda: alarms(api)[0]["event"] == "GivenUp")
        assert "not reached" in alarms(api)[0]["eventMessage"]
        await eventually(lambda: told(api, "AlarmNotDelivered"))
        await quiet(api)
        _, metrics = await second.get("/metrics")
        assert 'evenkeel_cloudevents_total{result="given_up"} 1.0' in metrics
        assert len(re.findall("event not delivered", second.log)) == 1
        assert "Traceback" not in first.log + second.log
        assert len(made) == 1


async def test_a_cron_job_that_is_missing_or_not_meant_is_told_before_it_is_needed(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, service: Service, made: list[str], tmp_path: Path
) -> None:
    wanted: dict[str, Any] = {"cronJobRef": {"name": "retrain"}}
    await served_badly(api, tmp_path, replicas, service, wanted)
    assert condition(api, "Retrainable") == ("False", "CronJobMissing")
    api.store.create(cron_job())
    async with operator(api, tmp_path, replicas, feedback=service.url) as running:
        await eventually(lambda: condition(api, "Retrainable") == ("False", "CronJobNotMeant"))
        await eventually(lambda: "kubectl label cronjob/retrain" in alarms(api)[0]["message"])
        assert (alarms(api)[0]["state"], made) == ("Waiting", [])
        assert is_serving(api)
        await running.stop()
    meant = api.store.get("cronjobs", PLACE[0], "retrain")
    meant["metadata"]["labels"] = MEANT
    api.store.replace(meant)
    async with operator(api, tmp_path, replicas, name="second", feedback=service.url):
        await eventually(lambda: len(made) == 1)
        assert condition(api, "Retrainable") == ("True", "CronJobAtHand")


async def test_a_job_that_is_refused_is_told_and_the_deployment_goes_on(
    api: FakeApi, cluster: Actors, replicas: FakeReplicas, service: Service, made: list[str], tmp_path: Path
) -> None:
    api.store.create(cron_job(**MEANT))
    await served_badly(api, tmp_path, replicas, service, {"cronJobRef": {"name": "retrain"}})
    words = 'jobs.batch "x" is forbidden: exceeded quota: jobs, requested: count/jobs.batch=1'
    fault = api.faults.add("PATCH", "/jobs/digits-retrain-", 403, times=1000, reason="Forbidden", message=words)
    async with operator(api, tmp_path, replicas, feedback=service.url) as running:
        await eventually(lambda: "exceeded quota" in alarms(api)[0]["message"])
        assert (alarms(api)[0]["state"], made) == ("Starting", [])
        assert is_serving(api)
        edit(api, replicas=COUNT + 1)
        await eventually(lambda: is_serving(api) and found(api)["status"]["readyReplicas"] == COUNT + 1)
        api.faults.due.remove(fault)
        edit(api, replicas=COUNT)
        await eventually(lambda: len(made) == 1)
        await eventually(lambda: "message" not in alarms(api)[0])
        assert "Traceback" not in running.log
