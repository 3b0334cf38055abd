"""What does whoever trains again get? Each label by its class's name, and never a part that looks like the whole."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evenkeel_operator.feedback.records import Source, Told
from evenkeel_operator.feedback.sqlite import SqliteStore
from evenkeel_operator.feedback.store import Store
from evenkeel_runtime.receipts import COUNTS, Assignment, nonce_or_none
from tests.system.feedback.databases import spoil
from tests.system.feedback.server import PATIENCE_S, Deployment, Service
from tests.system.feedback.test_service import counts
from tests.system.feedback.test_store import label, nonce


def test_names_are_those_of_the_revision_on_whichever_side_they_were_told(service: Service) -> None:
    model = Deployment(classes=2, is_named=True)
    for assignment, names in ((0, ["spam", "ham"]), (1, [])):
        body = counts(model, classes=2, names=names, assignment=assignment, cohorts=[])
        assert service.ask("POST", "/v1/predictions", body, model.signed(COUNTS, body))[0] == 200
    assert service.post({"receipt": model.receipt(1), "label": "spam"}) == {"outcome": "accepted"}
    _, text = service.ask("GET", f"/v1/labels/-/{model.uid}")
    (line,) = map(json.loads, text.splitlines())
    assert (line["predicted"], line["label"]) == ("ham", "spam")


def test_labels_that_cannot_all_be_read_break_off(tmp_path: Path, start: Callable[..., Service]) -> None:
    path, model = tmp_path / "spoilt.db", Deployment()
    store = SqliteStore(path)
    source, now_ms = Source(model.subject, model.revision, 0, 10), int(time.time() * 1000)
    store.write([label(n, source=source, time_ms=now_ms) for n in range(3000)], [], now_ms // 1000)
    store.close()
    spoil(path, nonce(2999))
    service = start("--path", str(path))
    with pytest.raises(http.client.IncompleteRead) as got:
        service.ask("GET", f"/v1/labels/-/{model.uid}")
    assert len(got.value.partial.splitlines()) >= 1000
    assert "labels not told to their end" in service.log
    assert service.ask("GET", "/healthz") == (200, "ok\n")


def test_what_a_request_had_drawn_is_told_with_its_label(service: Service) -> None:
    model = Deployment()
    for number, assignment in enumerate(Assignment):
        receipt = model.receipt(number, assignment=assignment)
        assert service.post({"receipt": receipt, "label": 1}) == {"outcome": "accepted"}
    got = {revision["assignment"]: revision["accuracy"] for revision in service.quality(model)}
    assert got == {"Stable": 0, "Canary": 1, "Unassigned": 0}
    _, text = service.ask("GET", f"/v1/labels/-/{model.uid}")
    lines = [json.loads(line) for line in text.splitlines()]
    got = {line["assignment"]: line["predicted"] for line in lines}
    assert got == {"Stable": 0, "Canary": 1, "Unassigned": 2}


def test_a_label_is_told_with_the_id_that_its_user_has_given(
    database: tuple[str, ...], start: Callable[..., Service]
) -> None:
    """Whether it was posted by the id or by the receipt; a prediction without an id has none."""
    service, model = start(*database), Deployment()
    given = [model.receipt(class_) for class_ in range(3)]
    body = counts(model, cohorts=[], ids=[["order-0", given[0]], ["order-1", given[1]], ["order-9", model.receipt(9)]])
    assert service.ask("POST", "/v1/predictions", body, model.signed(COUNTS, body))[0] == 200
    service.post({"id": "order-0", "model": f"-/{model.uid}", "label": 0})
    service.post([{"receipt": receipt, "label": 1} for receipt in given[1:]])
    _, text = service.ask("GET", f"/v1/labels/-/{model.uid}")
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["predicted"]: line.get("id") for line in lines} == {0: "order-0", 1: "order-1", 2: None}
    assert ["id" in line for line in lines if line["predicted"] == 2] == [False]


def test_an_id_is_forgotten_when_its_prediction_can_no_longer_be_labelled(
    database: tuple[str, ...], open_store: Callable[[], Store], start: Callable[..., Service]
) -> None:
    """It may be a person's name: its label stays for as long as labels are kept, without it."""
    store, model, now_s = open_store(), Deployment(), int(time.time())
    source = Source(model.subject, model.revision, 0, 10)
    for number, days in ((1, 1), (3, 3)):
        receipt = model.receipt(number, after_s=-86400.0 * days)
        labelled = label(number, source=source, time_ms=(now_s - 86400 * days) * 1000, nonce=nonce_or_none(receipt))
        told = Told(source, b"process!", (), {}, ids=((f"order-{number}", receipt),))
        store.write([labelled], [told], now_s - 86400 * days)
    service = start(*database, "--horizon-days", "2", "--retention-days", "90")
    until = time.monotonic() + PATIENCE_S
    while len(found := store.receipts(model.subject, ["order-1", "order-3"])) > 1:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert list(found) == ["order-1"]
    _, text = service.ask("GET", f"/v1/labels/-/{model.uid}")
    assert [json.loads(line).get("id") for line in text.splitlines()].count(None) == 1
    assert len(text.splitlines()) == 2
