"""Who may post labels, and who may read how good a model is? What Kubernetes says, for each ModelDeployment alone."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from evenkeel_operator.feedback.access import Kubernetes
from evenkeel_operator.world.connection import Connection
from tests.system.feedback.server import Deployment, Service
from tests.system.operator.fakeapi.server import FakeApi
from tests.system.operator.harness import kubeconfig, modeldeployment

LABELS, QUALITY = "modeldeployments.evenkeel.dev/feedback", "modeldeployments.evenkeel.dev/quality"
ALICE, BOB = {"authorization": "Bearer token-of-alice"}, {"authorization": "Bearer token-of-bob"}


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    """Yield an API server that knows two users; alice owns team-a's digits, bob team-b's."""
    async with FakeApi() as found:
        found.reviews.users = {"token-of-alice": "alice", "token-of-bob": "bob"}
        found.reviews.granted = {
            (user, verb, resource, f"{namespace}/digits")
            for user, namespace in (("alice", "team-a"), ("bob", "team-b"))
            for verb, resource in (("create", LABELS), ("get", QUALITY))
        }
        yield found


@pytest.fixture
async def service(api: FakeApi, tmp_path: Path) -> AsyncIterator[Service]:
    flags = ("--path", str(tmp_path / "feedback.db"), "--kubeconfig", str(kubeconfig(tmp_path, api.url)))
    found = await asyncio.to_thread(Service, tmp_path, *flags, is_open=False)
    yield found
    found.kill()


def created(api: FakeApi, namespace: str, name: str = "digits") -> Deployment:
    """Create a ModelDeployment; return it as its replicas know it."""
    return Deployment(uid=api.store.create(modeldeployment(name, namespace))["metadata"]["uid"])


async def post(service: Service, model: Deployment, headers: dict[str, str]) -> tuple[int, Any]:
    item = {"receipt": model.receipt(3), "label": 3}
    return await asyncio.to_thread(service.ask, "POST", "/v1/feedback", item, headers)


async def quality(service: Service, place: str, headers: dict[str, str]) -> tuple[int, Any]:
    return await asyncio.to_thread(service.ask, "GET", f"/v1/quality/{place}", None, headers)


async def test_each_tenant_labels_and_sees_its_own_model_only(api: FakeApi, service: Service) -> None:
    models = {"team-a": created(api, "team-a"), "team-b": created(api, "team-b")}
    for headers, own, other in ((ALICE, "team-a", "team-b"), (BOB, "team-b", "team-a")):
        assert await post(service, models[own], headers) == (200, {"outcome": "accepted"})
        status, got = await post(service, models[other], headers)
        assert (status, got["outcome"], got["reason"]) == (200, "forged", "Foreign")
        status, got = await quality(service, f"{other}/digits", headers)
        assert (status, got["reason"]) == (403, "Forbidden")
    for headers, own in ((ALICE, "team-a"), (BOB, "team-b")):
        status, got = await quality(service, f"{own}/digits", headers)
        assert (status, [revision["labels"] for revision in got["revisions"]]) == (200, [1])


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param({}, "NoToken", id="without a token"),
        pytest.param({"authorization": "Basic YTpi"}, "NoToken", id="with a password"),
        pytest.param({"authorization": "Bearer stolen"}, "BadToken", id="with a token that nobody knows"),
        pytest.param({"authorization": "Bearer \xff"}, "BadToken", id="with bytes that are no text"),
    ],
)
async def test_nobody_is_served_without_a_known_token(
    headers: dict[str, str], reason: str, api: FakeApi, service: Service
) -> None:
    model = created(api, "team-a")
    for status, got in (await post(service, model, headers), await quality(service, "team-a/digits", headers)):
        assert (status, got["reason"]) == (401, reason)


async def test_a_narrowed_token_has_no_more_rights_than_it_says(api: FakeApi, service: Service) -> None:
    api.reviews.users["narrow-token"] = "alice"
    api.reviews.narrowed.add("narrow-token")
    model, narrow = created(api, "team-a"), {"authorization": "Bearer narrow-token"}
    for headers, want in ((ALICE, (200, None, 200)), (narrow, (200, "Foreign", 403)), (ALICE, (200, None, 200))):
        (status, got), (read, _) = await post(service, model, headers), await quality(service, "team-a/digits", headers)
        assert (status, got.get("reason"), read) == want


async def test_a_model_that_is_not_there_is_named(api: FakeApi, service: Service) -> None:
    status, got = await quality(service, "team-a/digits", ALICE)
    assert (status, got["error"]) == (404, "there is no ModelDeployment digits in namespace team-a")
    status, got = await post(service, Deployment(), ALICE)
    assert (status, got["outcome"], got["reason"]) == (200, "forged", "Foreign")


@pytest.mark.parametrize("review", ["tokenreviews", "subjectaccessreviews"])
async def test_nothing_is_promised_while_kubernetes_cannot_be_asked(
    review: str, api: FakeApi, service: Service
) -> None:
    model = created(api, "team-a")
    api.faults.add("POST", review, 500)
    status, got = await post(service, model, ALICE)
    assert (status, got["reason"]) == (503, "Unavailable")
    assert await post(service, model, ALICE) == (200, {"outcome": "accepted"})


async def test_labels_of_a_deleted_model_still_have_somebody_who_may_post_them(api: FakeApi, service: Service) -> None:
    model = created(api, "team-a")
    assert await post(service, model, ALICE) == (200, {"outcome": "accepted"})
    api.store.delete("modeldeployments", "team-a", "digits")
    await asyncio.to_thread(service.kill)
    await asyncio.to_thread(service.start)
    assert await post(service, model, ALICE) == (200, {"outcome": "accepted"})


async def test_only_what_the_store_has_not_seen_is_stored(api: FakeApi, tmp_path: Path) -> None:
    known, first = created(api, "team-a"), created(api, "team-b")
    connection = await Connection.open(str(kubeconfig(tmp_path, api.url)))
    try:
        kubernetes = Kubernetes(connection, ())
        kubernetes.recall([(known.subject, "team-a", "digits")])
        assert await kubernetes.place(known.subject) == ("team-a", "digits")
        assert kubernetes.unstored == set()
        assert await kubernetes.place(first.subject) == ("team-b", "digits")
        assert kubernetes.unstored == {(first.subject, "team-b", "digits")}
        second = created(api, "team-b", "prices")
        kubernetes.stored(kubernetes.unstored)
        kubernetes._listed_at = float("-inf")
        assert await kubernetes.place(second.subject) == ("team-b", "prices")
        assert kubernetes.unstored == {(second.subject, "team-b", "prices")}
    finally:
        await connection.close()


async def test_what_could_not_be_stored_is_stored_with_the_next_post_and_never_again(
    api: FakeApi, service: Service, tmp_path: Path
) -> None:
    model = created(api, "team-a")
    with contextlib.closing(sqlite3.connect(tmp_path / "feedback.db")) as database:
        for name, other, want in (("model", "away", (503, "Unavailable")), ("away", "model", (200, None))):
            database.execute(f"ALTER TABLE {name} RENAME TO {other}")
            status, got = await post(service, model, ALICE)
            assert (status, got.get("reason")) == want
        found = database.execute("SELECT subject, namespace, name FROM model").fetchall()
        assert found == [(model.subject, "team-a", "digits")]
        database.execute("ALTER TABLE model RENAME TO away")
        assert (await post(service, model, ALICE))[0] == 200
