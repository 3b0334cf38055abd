"""Do labels find the names of their classes, of however many revisions at once, and whatever is at hand or asked?"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp.test_utils import TestClient, TestServer

from evenkeel_operator.feedback.commits import Commits
from evenkeel_operator.feedback.names import Names
from evenkeel_operator.feedback.records import Series
from evenkeel_operator.feedback.service import Service
from evenkeel_operator.feedback.store import Store
from evenkeel_runtime.receipts import COUNTS
from tests.system.feedback.server import KEY_ID, MASTER, Deployment
from tests.system.feedback.test_service import counts

MODELS = 5


@pytest.fixture
async def service(open_store: Callable[[], Store]) -> AsyncIterator[Service]:
    """Yield one in this process that has the names of two revisions at hand, and is asked no right."""
    commits = Commits(open_store())
    found = Service({KEY_ID: MASTER}, commits, open_store(), open_store(), None, 86400)
    found._names = Names(most_revisions=2)
    yield found
    await commits.stop()


async def test_labels_of_more_revisions_than_are_at_hand_are_told_apart_by_name(service: Service) -> None:
    models = [Deployment(classes=2, is_named=True) for _ in range(MODELS)]
    names = [[f"spam-{number}", f"ham-{number}"] for number in range(MODELS)]
    async with TestClient(TestServer(service.application())) as client:
        for model, words in zip(models, names, strict=True):
            body = counts(model, classes=2, names=words, cohorts=[])
            async with client.post("/v1/predictions", data=body, headers=model.signed(COUNTS, body)) as answer:
                assert answer.status == 200, await answer.text()
            assert len(service._names) <= 2
        for _ in range(2):
            items = [
                {"receipt": model.receipt(1), "label": words[0]} for model, words in zip(models, names, strict=True)
            ]
            async with client.post("/v1/feedback", json=items) as answer:
                assert json.loads(await answer.read()) == {"results": [{"outcome": "accepted"}] * MODELS}
            assert len(service._names) <= 2


async def test_a_post_that_looks_something_up_waits_for_no_question(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How good a model is takes a while to say, and whoever reads all labels reads them for as long as he likes."""
    model = Deployment(classes=2, is_named=True)
    is_asked, may_answer = threading.Event(), threading.Event()

    def slow(subject: bytes, since_s: int) -> list[Series]:
        is_asked.set()
        assert may_answer.wait(30)
        return []

    monkeypatch.setattr(service._questions.store, "quality", slow)
    body = counts(model, classes=2, names=["spam", "ham"], cohorts=[], ids=[["order-17", model.receipt(1)]])
    async with TestClient(TestServer(service.application())) as client:
        async with client.post("/v1/predictions", data=body, headers=model.signed(COUNTS, body)) as answer:
            assert answer.status == 200, await answer.text()
        service._names = Names()
        question = asyncio.create_task(client.get(f"/v1/quality/-/{model.uid}"))
        try:
            await asyncio.to_thread(is_asked.wait, 30)
            item = {"id": "order-17", "model": f"-/{model.uid}", "label": "ham"}
            async with asyncio.timeout(5), client.post("/v1/feedback", json=item) as answer:
                assert await answer.json() == {"outcome": "accepted"}
        finally:
            may_answer.set()
            (await question).release()
