"""Does Prometheus learn how good models are, from either database, and only who may know?"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from evenkeel_runtime.receipts import COUNTS, PASSED_ON
from tests.system.feedback.server import PATIENCE_S, Deployment, Service
from tests.system.feedback.test_access import QUALITY
from tests.system.operator.fakeapi.server import FakeApi
from tests.system.operator.harness import kubeconfig, modeldeployment

OFTEN = ("--quality-seconds", "0.1")


def awaited(service: Service, pattern: str, headers: dict[str, str] | None = None) -> str:
    """Return the metrics as soon as a line of them is so."""
    until = time.monotonic() + PATIENCE_S
    while True:
        status, text = service.ask("GET", "/metrics", None, headers)
        assert status == 200
        if re.search(pattern, text, re.MULTILINE):
            return str(text)
        assert time.monotonic() < until, text
        time.sleep(0.05)


def test_labels_become_numbers_on_each_database(database: tuple[str, ...], start: Callable[..., Service]) -> None:
    service, model = start(*database, *OFTEN), Deployment(classes=2)
    at = f'namespace="-",name="{model.uid}",revision="{model.revision}"'
    labels = [{"receipt": model.receipt(n % 2), "label": n // 2 % 2} for n in range(10)]
    service.post(labels[:6])
    text = awaited(service, rf"^evenkeel_quality_labels{{{at}}} 6$")
    assert f'evenkeel_quality{{{at},metric="Accuracy"}} 0.5\n' in text
    assert "evenkeel_quality_predictions{" not in text
    cohort = {"start": int(time.time()) // 900 * 900, "counts": [[0, 7]]}
    told = {"revision": model.revision, "assignment": 2, "classes": 2, "process": "ab" * 8, "cohorts": [cohort]}
    body = json.dumps(told).encode()
    assert service.ask("POST", "/v1/predictions", body, model.signed(COUNTS, body))[0] == 200
    service.post(labels)
    text = awaited(service, rf"^evenkeel_quality_labels{{{at}}} 10$")
    awaited(service, rf"^evenkeel_quality_predictions{{{at}}} 7$")
    assert len(re.findall(r"^evenkeel_quality_(?:lower|upper)\{", text, re.MULTILINE)) == 2 * (1 + 3 * (2 + 2))
    assert service.stop() == 0
    assert "Traceback" not in service.log


def test_numbers_become_errors_on_each_database(database: tuple[str, ...], start: Callable[..., Service]) -> None:
    service, model = start(*database, *OFTEN), Deployment(classes=0)
    receipt = model.issuer.numbers(int(time.time() * 1000), [2.5]).decode()
    service.post({"receipt": receipt, "label": 2.0})
    text = awaited(service, "^evenkeel_quality_labels")
    assert re.search(r'^evenkeel_quality\{.*metric="MAE"\} 0\.5$', text, re.MULTILINE)


async def test_quality_is_told_to_who_may_know_it_of_every_model(tmp_path: Path) -> None:
    async with FakeApi() as api:
        api.reviews.users = {"token-of-prometheus": "prometheus", "token-of-alice": "alice"}
        api.reviews.granted = {("prometheus", "get", QUALITY, "/"), ("alice", "get", QUALITY, "team-a/digits")}
        uid = api.store.create(modeldeployment())["metadata"]["uid"]
        flags = ("--path", str(tmp_path / "feedback.db"), "--kubeconfig", str(kubeconfig(tmp_path, api.url)), *OFTEN)
        service = await asyncio.to_thread(Service, tmp_path, *flags, is_open=False)
        try:
            model = Deployment(uid=uid)
            item = json.dumps({"receipt": model.receipt(3), "label": 3}).encode()
            signed = model.signed(PASSED_ON, item)
            assert await asyncio.to_thread(service.ask, "POST", "/v1/feedback", item, signed) == (
                200,
                {"outcome": "accepted"},
            )
            prometheus = {"authorization": "Bearer token-of-prometheus"}
            at = r'\{namespace="team-a",name="digits",revision="digits-0123abcd"\}'
            await asyncio.to_thread(awaited, service, rf"^evenkeel_quality_labels{at} 1$", prometheus)
            for others in ({}, {"authorization": "Bearer token-of-alice"}, {"authorization": "Bearer stolen"}):
                status, text = await asyncio.to_thread(service.ask, "GET", "/metrics", None, others)
                assert (status, "evenkeel_quality" in text, "evenkeel_feedback_items_total" in text) == (
                    200,
                    False,
                    True,
                )
        finally:
            service.kill()
