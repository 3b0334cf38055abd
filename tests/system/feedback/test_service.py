"""What does the service answer to labels, good and bad, and to whoever asks?"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from evenkeel_runtime.receipts import COUNTS, PASSED_ON
from tests.system.feedback.server import Deployment, Service

MINUTES_10 = 600.0
HALF_A_PAIR = chr(0xD800)
"""JSON can say half of a surrogate pair; UTF-8 cannot."""


def test_labels_are_counted_by_what_was_predicted_and_what_was_true(service: Service) -> None:
    model = Deployment()
    first = model.receipt(3)
    assert service.post({"receipt": first, "label": 3}) == {"outcome": "accepted"}
    assert service.post({"receipt": first, "label": 3}) == {"outcome": "duplicate"}
    got = service.post([{"receipt": model.receipt(3), "label": 5}, {"receipt": model.receipt(8), "label": "8"}])
    assert got == {"results": [{"outcome": "accepted"}, {"outcome": "accepted"}]}
    lines = "".join(json.dumps({"receipt": model.receipt(1), "label": 1}) + "\n" for _ in range(3))
    got = service.post(lines.encode(), **{"content-type": "application/x-ndjson"})
    assert [json.loads(line)["outcome"] for line in got.splitlines()] == ["accepted"] * 3
    (revision,) = service.quality(model)
    assert (revision["revision"], revision["task"], revision["labels"]) == (model.revision, "Classification", 6)
    cells = [cell for cohort in revision["cohorts"] for cell in cohort["confusion"]]
    assert sorted(cells) == [[1, 1, 3], [3, 3, 1], [3, 5, 1], [8, 8, 1]]
    assert revision["accuracy"] == pytest.approx(5 / 6)


def test_a_label_may_correct_an_earlier_one(service: Service) -> None:
    model = Deployment()
    item = {"receipt": model.receipt(3), "label": 3}
    assert service.post(item)["outcome"] == "accepted"
    assert service.post({**item, "label": 4})["reason"] == "AlreadyLabelled"
    assert service.post({**item, "label": 4, "corrects": True}) == {"outcome": "accepted", "reason": "Corrected"}
    assert service.post(item)["outcome"] == "duplicate"
    (revision,) = service.quality(model)
    assert [cohort["confusion"] for cohort in revision["cohorts"]] == [[[3, 4, 1]]]


def test_numbers_are_measured_by_their_errors(service: Service) -> None:
    model = Deployment(classes=0)
    text = model.issuer.numbers(int(time.time() * 1000), [1.0, 2.0]).decode()
    assert service.post({"receipt": text, "label": 1.5})["outcome"] == "accepted"
    assert service.post({"receipt": text, "row": 1, "label": 0})["outcome"] == "accepted"
    assert service.post({"receipt": text, "label": "one"})["reason"] == "NoNumber"
    (revision,) = service.quality(model)
    assert (revision["task"], revision["meanAbsoluteError"]) == ("Regression", 1.25)
    assert [row for cohort in revision["cohorts"] for row in cohort["deviations"]] == [[0, 1, 0.5, 0.25], [2, 1, 2, 4]]
    assert revision["rootMeanSquaredError"] == pytest.approx(((0.25 + 4) / 2) ** 0.5)


@pytest.mark.parametrize(
    ("predicted", "label", "reason"),
    [
        pytest.param(1e200, 1.0, "NoNumber", id="a prediction whose square is infinite"),
        pytest.param(-(2.0**53), 1.0, "NoNumber", id="the first prediction that is too large"),
        pytest.param(float("nan"), 1.0, "NoNumber", id="a prediction that is no number"),
        pytest.param(1.0, 2.0**53, "NoItem", id="the first label that is too large"),
        pytest.param(1.0, -1e200, "NoItem", id="a label far below"),
    ],
)
def test_numbers_that_cannot_be_summed_are_refused_by_name(
    predicted: float, label: float, reason: str, service: Service
) -> None:
    model = Deployment(classes=0)
    receipt = model.issuer.numbers(int(time.time() * 1000), [predicted, 1.0]).decode()
    got = service.post([{"receipt": receipt, "label": label}, {"receipt": receipt, "row": 1, "label": 3.0}])["results"]
    assert [one.get("reason") for one in got] == [reason, None]
    assert "2^53" in got[0]["message"]
    (revision,) = service.quality(model)
    assert (revision["labels"], revision["rootMeanSquaredError"]) == (1, 2.0)


def changed(text: str) -> str:
    raw = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    raw[-40] ^= 1
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


Item = dict[str, Any]


def own(model: Deployment) -> Item:
    """Return an item by a user's own id, whose model is known."""
    return {"id": "order-17", "model": f"-/{model.uid}", "label": 3}


@pytest.mark.parametrize(
    ("item_of", "outcome", "reason"),
    [
        pytest.param(lambda m: {"receipt": changed(m.receipt()), "label": 3}, "forged", "BadSignature", id="forged"),
        pytest.param(lambda m: {"receipt": m.receipt()[:-20], "label": 3}, "malformed", "Truncated", id="truncated"),
        pytest.param(lambda m: {"receipt": m.receipt()[:40], "label": 3}, "malformed", "Truncated", id="a stump"),
        pytest.param(lambda m: {"receipt": "x y", "label": 3}, "malformed", "Malformed", id="no receipt"),
        pytest.param(
            lambda m: {"receipt": m.receipt(after_s=-31 * 86400), "label": 3}, "expired", "TooOld", id="expired"
        ),
        pytest.param(
            lambda m: {"receipt": m.receipt(after_s=MINUTES_10), "label": 3},
            "malformed",
            "InFuture",
            id="of a clock ten minutes ahead",
        ),
        pytest.param(lambda m: {"receipt": m.receipt(), "label": 10}, "malformed", "UnknownClass", id="no such class"),
        pytest.param(lambda m: {"receipt": m.receipt(), "label": -1}, "malformed", "UnknownClass", id="below 0"),
        pytest.param(lambda m: {"receipt": m.receipt(), "label": "cat"}, "malformed", "UnknownClass", id="a word"),
        pytest.param(lambda m: {"receipt": m.receipt(), "label": 2.5}, "malformed", "UnknownClass", id="a fraction"),
        pytest.param(lambda m: {"receipt": m.receipt(), "row": 1, "label": 3}, "malformed", "NoSuchRow", id="no row"),
        pytest.param(lambda m: {"receipt": m.receipt(), "row": -1, "label": 3}, "malformed", "NoItem", id="row -1"),
        pytest.param(lambda m: {"receipt": m.receipt()}, "malformed", "NoItem", id="no label"),
        pytest.param(lambda m: {"receipt": m.receipt(), "label": True}, "malformed", "NoItem", id="a truth value"),
        pytest.param(lambda m: {"receipt": m.receipt(), "label": 1e300}, "malformed", "NoItem", id="a huge number"),
        pytest.param(lambda m: {"label": 3}, "malformed", "NoItem", id="neither receipt nor id"),
        pytest.param(lambda m: {"receipt": m.receipt(), "lable": 3}, "malformed", "NoItem", id="a misspelt field"),
        pytest.param(lambda m: {"id": "nobody's", "label": 3}, "malformed", "UnknownId", id="an unknown id"),
        pytest.param(
            lambda m: {"receipt": m.receipt(10), "label": 3},
            "malformed",
            "UnknownClass",
            id="predicted a class too many",
        ),
        pytest.param(lambda m: {**own(m), "id": HALF_A_PAIR}, "malformed", "NoItem", id="an id that is no text"),
        pytest.param(lambda m: {**own(m), "id": "a\0"}, "malformed", "NoItem", id="an id with a NUL"),
        pytest.param(lambda m: {**own(m), "id": "a" * 129}, "malformed", "NoItem", id="an id that is too long"),
        pytest.param(lambda m: 7, "malformed", "NoItem", id="no object"),
    ],
)
def test_a_bad_item_is_answered_by_name_and_not_counted(
    item_of: Callable[[Deployment], Item], outcome: str, reason: str, service: Service
) -> None:
    model = Deployment()
    assert service.post({"receipt": model.receipt(), "label": 3})["outcome"] == "accepted"
    got = service.post([item_of(model)])["results"][0]
    assert (got["outcome"], got["reason"]) == (outcome, reason)
    assert got["message"]
    assert service.labels(model) == 1


def test_whoever_comes_too_late_is_told_for_how_long_labels_are_taken(service: Service) -> None:
    got = service.post({"receipt": Deployment().receipt(after_s=-31 * 86400), "label": 3})
    assert "31.0 days old" in got["message"]
    assert "for 30 days (feedback.horizonDays" in got["message"]


def test_a_replayed_receipt_counts_once_beside_new_ones(service: Service) -> None:
    model = Deployment()
    old = {"receipt": model.receipt(), "label": 3}
    service.post(old)
    got = service.post([old, {"receipt": model.receipt(), "label": 3}, old])
    assert [one["outcome"] for one in got["results"]] == ["duplicate", "accepted", "duplicate"]
    assert service.labels(model) == 2


def test_a_million_items_are_refused_as_a_whole(service: Service) -> None:
    model = Deployment()
    receipt = model.receipt()
    items = json.dumps([{"receipt": receipt, "label": 3}]).encode()[1:-1]
    status, got = service.ask("POST", "/v1/feedback", b"[" + b",".join([items] * 40_000) + b"]")
    assert (status, got["reason"]) == (413, "BadRequest")
    assert "10000 of one post" in got["error"]
    small = b'{"label":1}'
    status, got = service.ask("POST", "/v1/feedback", b"[" + b",".join([small] * 1_000_000) + b"]")
    assert (status, got["reason"]) == (413, "TooLarge")
    assert service.quality(model) == []


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        pytest.param(b"", "application/json", 400, id="nothing"),
        pytest.param(b"{", "application/json", 400, id="half an object"),
        pytest.param(b"[" * 100_000, "application/json", 400, id="a deep hole"),
        pytest.param(b"\xff", "application/json", 400, id="no text"),
        pytest.param(b"a=b", "application/x-www-form-urlencoded", 415, id="a form"),
    ],
)
def test_what_is_no_post_is_refused(body: bytes, content_type: str, status: int, service: Service) -> None:
    got, answer = service.ask("POST", "/v1/feedback", body, {"content-type": content_type})
    assert got == status
    assert answer["error"]


def test_a_replica_speaks_for_its_own_model_only(service: Service) -> None:
    mine, other = Deployment(), Deployment()
    items = [{"receipt": mine.receipt(), "label": 3}, {"receipt": other.receipt(), "label": 3}]
    body = json.dumps(items).encode()
    got = service.post(body, **mine.signed(PASSED_ON, body))["results"]
    assert [(one["outcome"], one.get("reason")) for one in got] == [("accepted", None), ("forged", "Foreign")]
    assert (service.labels(mine), service.labels(other)) == (1, 0)


def counts(model: Deployment, n: int = 5, **more: Any) -> bytes:
    start = int(time.time()) // 900 * 900
    told = {
        "process": "ab" * 8,
        "revision": model.revision,
        "assignment": 2,
        "classes": 10,
        "cohorts": [{"start": start, "counts": [[3, n]]}],
        **more,
    }
    return json.dumps(told).encode()


def test_what_replicas_tell_counts_once(service: Service) -> None:
    model = Deployment()
    for n in (5, 7, 6):
        body = counts(model, n)
        assert service.ask("POST", "/v1/predictions", body, model.signed(COUNTS, body)) == (200, {})
    assert [revision["predictions"] for revision in service.quality(model)] == [7]


@pytest.mark.parametrize(
    ("headers_of", "reason"),
    [
        pytest.param(lambda m, body: {}, "NoSignature", id="by nobody"),
        pytest.param(lambda m, body: m.signed(COUNTS, body + b" "), "BadSignature", id="with another body"),
        pytest.param(lambda m, body: m.signed(PASSED_ON, body), "BadSignature", id="signed for another purpose"),
        pytest.param(
            lambda m, body: {**m.signed(COUNTS, body), "evenkeel-subject": Deployment().uid},
            "BadSignature",
            id="for another ModelDeployment",
        ),
        pytest.param(
            lambda m, body: {**m.signed(COUNTS, body), "evenkeel-subject": "me"}, "BadSignature", id="for no uid"
        ),
        pytest.param(
            lambda m, body: {**m.signed(COUNTS, body), "evenkeel-signature": "\xff"},
            "BadSignature",
            id="with bytes that are no text",
        ),
        pytest.param(
            lambda m, body: {**m.signed(COUNTS, body), "evenkeel-time": "9" * 400},
            "BadSignature",
            id="at a time that is none",
        ),
        pytest.param(
            lambda m, body: m.signed(COUNTS, body, after_s=MINUTES_10), "ClockSkew", id="by a clock ten minutes ahead"
        ),
        pytest.param(
            lambda m, body: m.signed(COUNTS, body, after_s=-MINUTES_10), "ClockSkew", id="by a clock ten minutes behind"
        ),
    ],
)
def test_counts_of_others_are_refused(
    headers_of: Callable[[Deployment, bytes], dict[str, str]], reason: str, service: Service
) -> None:
    model = Deployment()
    body = counts(model)
    status, got = service.ask("POST", "/v1/predictions", body, headers_of(model, body))
    assert (status, got["reason"]) == (401, reason)
    assert service.quality(model) == []


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"revision": ""}, id="no revision"),
        pytest.param({"assignment": 3}, id="an assignment that nobody knows"),
        pytest.param({"cohorts": [{"start": 900, "assignment": 3, "counts": []}]}, id="nor of a cohort"),
        pytest.param({"cohorts": [{"start": 1, "counts": []}]}, id="a cohort that starts in between"),
        pytest.param({"cohorts": [{"start": 9_000_000_000_000, "counts": []}]}, id="a cohort to come"),
        pytest.param({"cohorts": [{"start": 900, "counts": [[10, 1]]}]}, id="a class that is none"),
        pytest.param({"cohorts": [{"start": 900, "counts": [[3, -1]]}]}, id="less than nothing"),
        pytest.param({"names": ["a"]}, id="names of other classes"),
        pytest.param({"revision": HALF_A_PAIR}, id="a revision that is no text"),
        pytest.param({"ids": [[HALF_A_PAIR, "r"]]}, id="an id that is no text"),
        pytest.param({"names": [HALF_A_PAIR] * 10}, id="names that are no texts"),
        pytest.param({"process": "ab" * 7}, id="a process of fewer bytes"),
        pytest.param({"process": "ab" * 4000}, id="a process of many bytes"),
        pytest.param({"pairs": [["ab" * 12, 0, 900, 10, "digits-0123abcd", 3]]}, id="a pair of a class that is none"),
        pytest.param({"pairs": [["ab" * 12, 0, 900, 3, "digits-0123abcd", 10]]}, id="a canary's class that is none"),
        pytest.param({"pairs": [["ab" * 13, 0, 900, 3, "digits-0123abcd", 3]]}, id="a pair of a longer nonce"),
    ],
)
def test_counts_that_cannot_be_are_refused(more: dict[str, Any], service: Service) -> None:
    model = Deployment()
    body = counts(model, **more)
    status, got = service.ask("POST", "/v1/predictions", body, model.signed(COUNTS, body))
    assert (status, got["reason"]) == (400, "BadRequest")
    assert service.quality(model) == []


def test_classes_are_named_as_the_replicas_tell(service: Service) -> None:
    model = Deployment(classes=2, is_named=True)
    item = {"receipt": model.receipt(1), "label": "ham"}
    status, got = service.ask("POST", "/v1/feedback", item)
    assert (status, got["reason"]) == (503, "Unavailable"), "a name means nothing before the names are there"
    body = counts(model, classes=2, names=["spam", "ham"], cohorts=[])
    assert service.ask("POST", "/v1/predictions", body, model.signed(COUNTS, body))[0] == 200
    assert service.post(item) == {"outcome": "accepted"}
    assert service.post({**item, "label": "jam"})["reason"] == "UnknownClass"
    (revision,) = service.quality(model)
    assert (revision["classes"], revision["accuracy"]) == (["spam", "ham"], 1.0)
    _, text = service.ask("GET", f"/v1/labels/-/{model.uid}")
    (line,) = map(json.loads, text.splitlines())
    assert (line["predicted"], line["label"], line["row"]) == ("ham", "ham", 0)


def test_a_users_own_id_stands_for_the_receipt(service: Service) -> None:
    model = Deployment()
    body = counts(model, cohorts=[], ids=[["order-17", model.receipt(3)]])
    assert service.ask("POST", "/v1/predictions", body, model.signed(COUNTS, body))[0] == 200
    item = {"id": "order-17", "model": f"-/{model.uid}", "label": 3}
    assert service.post(item) == {"outcome": "accepted"}
    assert service.post(item) == {"outcome": "duplicate"}
    assert service.labels(model) == 1


def test_through_a_replica_an_id_alone_labels_once_and_replaces_nothing(service: Service) -> None:
    """Whoever reaches a replica may guess an id: what others have said stays."""
    model = Deployment()
    receipt = model.receipt(3)
    body = counts(model, cohorts=[], ids=[["order-17", receipt], ["order-18", model.receipt(4)]])
    assert service.ask("POST", "/v1/predictions", body, model.signed(COUNTS, body))[0] == 200
    items = [
        {"id": "order-18", "label": 5, "corrects": True},
        {"id": "nobody's", "label": 5, "corrects": True},
        {"id": "order-17", "label": 3},
        {"id": "order-17", "label": 5},
        {"id": "order-17", "label": 5, "corrects": True},
    ]
    body = json.dumps(items).encode()
    got = service.post(body, **model.signed(PASSED_ON, body))["results"]
    refused = ("forged", "ReceiptNeeded")
    assert [(one["outcome"], one.get("reason")) for one in got] == [
        *(refused, refused, ("accepted", None), ("duplicate", "AlreadyLabelled"), refused)
    ]
    assert "receipt" in got[-1]["message"]
    assert "token" in got[-1]["message"]
    body = json.dumps({"receipt": receipt, "label": 6, "corrects": True}).encode()
    assert service.post(body, **model.signed(PASSED_ON, body))["reason"] == "Corrected", "a receipt is proof"
    with_right = {"id": "order-17", "model": f"-/{model.uid}", "label": 7, "corrects": True}
    assert service.post(with_right)["reason"] == "Corrected", "so is a right, which is asked nobody here"
    (revision,) = service.quality(model)
    assert [cohort["confusion"] for cohort in revision["cohorts"]] == [[[3, 7, 1]]]


def test_the_service_describes_itself(service: Service) -> None:
    status, got = service.ask("GET", "/openapi.json")
    assert status == 200
    assert got["openapi"].startswith("3.1")
    assert {"/v1/feedback", "/v1/quality/{namespace}/{name}"} <= got["paths"].keys()
    assert got["components"]["schemas"]["Answer"]["properties"]["outcome"]["enum"] == [
        "accepted", "duplicate", "expired", "forged", "malformed",
    ]  # fmt: skip


def test_what_becomes_of_items_is_told_to_prometheus(service: Service) -> None:
    service.post({"receipt": Deployment().receipt(), "label": 3})
    _, text = service.ask("GET", "/metrics")
    assert 'evenkeel_feedback_items_total{outcome="accepted"}' in text


def test_labels_outlive_the_process(database: tuple[str, ...], start: Callable[..., Service]) -> None:
    service, model = start(*database), Deployment()
    item = {"receipt": model.receipt(), "label": 3}
    assert service.post(item)["outcome"] == "accepted"
    service.kill()
    service.start()
    assert service.post(item)["outcome"] == "duplicate"
    assert service.labels(model) == 1
    assert service.stop() == 0
