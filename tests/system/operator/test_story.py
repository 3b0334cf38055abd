"""What becomes of one ModelDeployment, from its creation to its end?"""

from __future__ import annotations

import functools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evenkeel_runtime import contract, receipts
from tests.system.operator.fakeapi.actors import Actors
from tests.system.operator.fakeapi.server import FakeApi
from tests.system.operator.harness import Operator, eventually, is_serving, modeldeployment, quiet, ready

CHILDREN = ("services", "poddisruptionbudgets", "controllerrevisions", "replicasets", "jobs", "pods")


def counts(api: FakeApi) -> dict[str, int]:
    return {plural: len(api.store.list(plural)) for plural in CHILDREN}


def edit(api: FakeApi, plural: str, change: Any) -> None:
    obj = json.loads(json.dumps(api.store.list(plural)[0]))
    change(obj)
    api.store.replace(obj)


async def test_a_deployment_is_served_and_nothing_is_written_twice(
    api: FakeApi, actors: Actors, tmp_path: Path
) -> None:
    async with Operator(api, tmp_path) as operator:
        await operator.leads()
        api.store.create(modeldeployment())
        await eventually(lambda: is_serving(api))
        since = await quiet(api)
        assert counts(api) == dict.fromkeys(CHILDREN, 1) | {"jobs": 0}

        found = api.store.get("modeldeployments", "team-a", "digits")
        assert not {"annotations", "finalizers"} & found["metadata"].keys()
        assert {r.method for r in api.requests if r.user_agent.startswith("kopf")} == {"GET"}
        assert Counter((r.path.rsplit("/", 2)[-2], r.method) for r in api.writes())["services", "PATCH"] == 1

        # What a second identical `kubectl apply` may at most bring: another version of the same spec.
        edit(api, "modeldeployments", lambda o: o["metadata"].update(annotations={"applied": "again"}))
        assert api.writes(await quiet(api), "") == []
        assert api.writes(since) == []

        status, metrics = await operator.get("/metrics")
        assert status == 200
        assert 'evenkeel_writes_total{kind="ReplicaSet",verb="PATCH"} 1.0' in metrics
        assert await operator.stop() == 0


@pytest.mark.parametrize("restart", [pytest.param(False, id="running"), pytest.param(True, id="after a restart")])
async def test_what_was_edited_by_hand_is_put_right(
    api: FakeApi, actors: Actors, tmp_path: Path, restart: bool
) -> None:
    api.store.create(modeldeployment())
    flags = "--lease-duration-seconds=4"
    async with Operator(api, tmp_path, flags) as operator:
        await eventually(lambda: is_serving(api))
        await quiet(api)
        if restart:
            await operator.stop()
    edits: list[tuple[str, Any]] = [
        ("services", lambda o: o["spec"]["selector"].update(stray="label")),
        ("services", lambda o: o["spec"]["ports"][0].update(port=81)),
        ("services", lambda o: o["metadata"].update(labels={})),
        ("poddisruptionbudgets", lambda o: o["metadata"]["labels"].update({"app.kubernetes.io/managed-by": "me"})),
        ("poddisruptionbudgets", lambda o: o["metadata"].update(ownerReferences=[])),
        ("replicasets", lambda o: o["spec"].update(replicas=7)),
    ]
    async with Operator(api, tmp_path, flags, name="second") as operator:
        if not restart:
            await operator.leads()
        for plural, change in edits:
            before = {p: api.store.list(p)[0] for p in CHILDREN[:4]}
            edit(api, plural, change)
            if restart:
                continue

            def is_restored(plural: str = plural, before: Any = before) -> bool:
                kept = ("labels", "ownerReferences")
                now, old = api.store.list(plural)[0], before[plural]
                return bool(now["spec"] == old["spec"]) and all(now["metadata"][k] == old["metadata"][k] for k in kept)

            await eventually(is_restored)
        await eventually(lambda: api.store.list("services")[0]["spec"]["ports"][0]["port"] == 80)
        await eventually(lambda: api.store.list("replicasets")[0]["spec"]["replicas"] == 1)
        for plural in ("services", "poddisruptionbudgets", "controllerrevisions", "replicasets"):
            name = api.store.list(plural)[0]["metadata"]["name"]
            api.store.delete(plural, "team-a", name)
            await eventually(functools.partial(api.store.get, plural, "team-a", name))
        await eventually(lambda: is_serving(api))
        await quiet(api)
        assert counts(api) == dict.fromkeys(CHILDREN, 1) | {"jobs": 0}


async def test_a_field_that_is_asked_for_no_more_goes_also_after_a_restart(
    api: FakeApi, actors: Actors, tmp_path: Path
) -> None:
    api.store.create(modeldeployment())
    async with Operator(api, tmp_path) as operator:
        await eventually(lambda: is_serving(api))
        await operator.stop()

    def as_an_earlier_operator_applied_it(service: Any) -> None:
        service["spec"]["sessionAffinity"] = "ClientIP"
        service["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:sessionAffinity"] = {}

    edit(api, "services", as_an_earlier_operator_applied_it)
    async with Operator(api, tmp_path):
        await eventually(lambda: "sessionAffinity" not in api.store.list("services")[0]["spec"])


async def test_a_deployment_created_again_under_its_name_starts_from_nothing(
    api: FakeApi, actors: Actors, tmp_path: Path
) -> None:
    api.store.create(modeldeployment())
    async with Operator(api, tmp_path) as operator:
        await eventually(lambda: is_serving(api))
        api.store.delete("modeldeployments", "team-a", "digits")
        api.store.create(modeldeployment())
        uid = api.store.get("modeldeployments", "team-a", "digits")["metadata"]["uid"]
        await eventually(lambda: is_serving(api))
        await quiet(api)
        assert counts(api) == dict.fromkeys(CHILDREN, 1) | {"jobs": 0}
        owners = {o["metadata"]["ownerReferences"][0]["uid"] for p in CHILDREN[:4] for o in api.store.list(p)}
        assert owners == {uid}

        api.store.delete("modeldeployments", "team-a", "digits")
        since = await quiet(api)
        assert counts(api) == dict.fromkeys(CHILDREN, 0)
        assert api.writes(since) == []
        assert "Traceback" not in operator.log


async def test_a_strangers_object_of_the_same_name_is_left_alone(api: FakeApi, actors: Actors, tmp_path: Path) -> None:
    stranger = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "digits", "namespace": "team-a"},
        "spec": {"selector": {"app": "digits"}},
    }
    api.store.create(stranger)
    api.store.create(modeldeployment())
    async with Operator(api, tmp_path):
        await eventually(lambda: ready(api) == ("False", "Invalid"))
        found = api.store.get("services", "team-a", "digits")
        assert found["spec"] == stranger["spec"]
        assert "ownerReferences" not in found["metadata"]
        message = api.store.get("modeldeployments", "team-a", "digits")["status"]["conditions"][0]["message"]
        assert "Service digits exists in this namespace" in message


async def test_a_stored_spec_that_cannot_be_read_is_answered(api: FakeApi, actors: Actors, tmp_path: Path) -> None:
    api.store.create(modeldeployment(replicas="many"))
    async with Operator(api, tmp_path) as operator:
        await eventually(lambda: ready(api) == ("False", "Invalid"))
        message = api.store.get("modeldeployments", "team-a", "digits")["status"]["conditions"][0]["message"]
        assert "spec.replicas" in message
        assert counts(api) == dict.fromkeys(CHILDREN, 0)
        edit(api, "modeldeployments", lambda o: o["spec"].update(replicas=1))
        await eventually(lambda: is_serving(api))
        assert "Traceback" not in operator.log


async def test_a_child_that_a_quota_refuses_becomes_a_condition(api: FakeApi, actors: Actors, tmp_path: Path) -> None:
    text = 'replicasets.apps "x" is forbidden: exceeded quota: few, requested: count/replicasets.apps=1'
    fault = api.faults.add("PATCH", "/replicasets/", 403, times=1000, message=text, reason="Forbidden")
    api.store.create(modeldeployment())
    async with Operator(api, tmp_path):
        await eventually(lambda: ready(api) == ("False", "QuotaExceeded"))
        assert counts(api)["services"] == 1
        events = await eventually(lambda: [e for e in api.store.list("events") if e["reason"] == "QuotaExceeded"])
        assert events[0]["involvedObject"]["name"] == "digits"
        api.faults.due.remove(fault)
        edit(api, "modeldeployments", lambda o: o["metadata"].update(annotations={"looked": "at"}))
        await eventually(lambda: is_serving(api))


async def test_a_job_that_may_not_create_its_pod_says_so(api: FakeApi, tmp_path: Path) -> None:
    api.store.create(modeldeployment())
    async with Operator(api, tmp_path):
        job = (await eventually(lambda: api.store.list("jobs")))[0]["metadata"]
        about = {"kind": "Job", "name": job["name"], "namespace": "team-a", "uid": job["uid"]}
        api.store.create(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": "e1", "namespace": "team-a"},
                "involvedObject": about,
                "reason": "FailedCreate",
                "message": 'Error creating: pods "x" is forbidden: exceeded quota: few, requested: pods=1',
            }
        )
        await eventually(lambda: ready(api) == ("False", "QuotaExceeded"))


async def test_a_model_that_is_refused_takes_no_replica(api: FakeApi, tmp_path: Path) -> None:
    Actors(api.store, report=contract.Failed("ChecksumMismatch", "the bytes are not those of spec.model.sha256"))
    api.store.create(modeldeployment())
    async with Operator(api, tmp_path):
        await eventually(lambda: ready(api) == ("False", "ChecksumMismatch"))
        assert counts(api)["replicasets"] == 0


async def test_the_key_of_receipts_is_created_once_and_never_read(api: FakeApi, actors: Actors, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "1").write_bytes(b"m" * 32)
    flags = ("--feedback-url=http://feedback", f"--feedback-keys-dir={keys}")
    api.store.create(modeldeployment())
    for name in ("operator", "second"):
        async with Operator(api, tmp_path, *flags, name=name) as operator:
            await operator.leads()
            await eventually(lambda: is_serving(api))
            await quiet(api)
            assert await operator.stop() == 0
    (secret,) = api.store.list("secrets")
    subject = receipts.subject_of(api.store.list("modeldeployments")[0]["metadata"]["uid"])
    assert secret["stringData"] == {contract.RECEIPT_KEY_FILE: receipts.derived_key(b"m" * 32, 1, subject).hex()}
    asked = [r for r in api.requests if "/secrets" in r.path]
    assert [r.method for r in asked] == ["POST"] * 2, "once by each operator, the second time in vain"
    assert len(api.store.list("pods")) == 1


async def test_feedback_without_a_key_is_told_at_once(api: FakeApi, tmp_path: Path) -> None:
    flags = ("--feedback-url=http://feedback", f"--feedback-keys-dir={tmp_path / 'nothing'}")
    async with Operator(api, tmp_path, *flags) as operator:
        assert await operator.exit_code() != 0
        assert "no key for receipts" in operator.log
