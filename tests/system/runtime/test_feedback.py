"""Does every answer carry a receipt that the feedback service knows, and do labels reach it through a replica?"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from numpy.typing import NDArray

from evenkeel_runtime import receipts
from evenkeel_runtime.receipts import Receipt
from evenkeel_runtime.serve.feedback import THREADS, TIMEOUT_S
from tests.system.feedback.server import PATIENCE_S, Deployment, Service
from tests.system.runtime.replica import Answer, Replica, request_bytes

IMAGES: NDArray[np.float32] = np.random.default_rng(7).normal(size=(5, 12)).astype(np.float32)
CLASSES = 3


@pytest.fixture(scope="module")
def model() -> Deployment:
    return Deployment(classes=CLASSES)


@pytest.fixture(scope="module")
def replica(
    model: Deployment, service: Service, model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replica]:
    """A replica that gives receipts, shared by the module's tests: each leaves it serving."""
    folder = tmp_path_factory.mktemp("replica")
    told = model.told(folder / "key", service.url)
    found = Replica(model_dir / "perceptron.pt2", folder / "termination", told, speaks_grpc=True)
    try:
        found.await_ready()
        yield found
    finally:
        found.kill()


def document(images: NDArray[np.float32]) -> dict[str, Any]:
    entry = {"name": "image", "datatype": "FP32", "shape": list(images.shape), "data": images.reshape(-1).tolist()}
    return {"inputs": [entry]}


def opened(model: Deployment, text: str) -> Receipt:
    return receipts.opened(text, lambda key_id, subject: model.key if subject == model.subject else None)


def scores(answer: Answer) -> NDArray[np.float32]:
    """Return the model's scores, a row per row, whatever the protocol of the answer."""
    if "predictions" in answer.json:
        return np.array(answer.json["predictions"], np.float32)
    if "inference-header-content-length" in answer.headers:
        return np.frombuffer(answer.tensors, np.float32).reshape(-1, CLASSES)
    return np.array(answer.json["outputs"][0]["data"], np.float32).reshape(-1, CLASSES)


def v1(replica: Replica, images: NDArray[np.float32]) -> Answer:
    return replica.ask("POST", "/v1/models/m:predict", json.dumps({"instances": images.tolist()}).encode())


def post(replica: Replica, item: Any) -> tuple[int, Any]:
    answer = replica.ask("POST", "/v1/feedback", json.dumps(item).encode(), {"content-type": "application/json"})
    return answer.status, answer.json


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda replica, images: replica.infer(document(images)), id="JSON"),
        pytest.param(lambda replica, images: replica.infer({"id": "a7", **document(images)}), id="JSON with an id"),
        pytest.param(lambda replica, images: replica.rows(images), id="binary"),
        pytest.param(v1, id="KServe V1"),
    ],
)
def test_answers_say_what_was_predicted_in_header_and_body(
    ask: Callable[[Replica, NDArray[np.float32]], Answer], rows: int, replica: Replica, model: Deployment
) -> None:
    before_ms = int(time.time() * 1000)
    answers = [ask(replica, IMAGES[:rows]) for _ in range(3)]  # the first is put together, the others from its parts
    nonces = set()
    for answer in answers:
        text = answer.headers[receipts.HEADER]
        assert answer.status == 200
        assert answer.json["parameters"] == {receipts.HEADER: text}
        got = opened(model, text)
        assert (got.origin.revision, got.origin.classes, got.rows) == (model.revision, CLASSES, rows)
        assert before_ms <= got.time_ms <= time.time() * 1000
        values = scores(answer).astype(np.float64)
        shares = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
        for row in range(rows):
            class_, confidence = got.predicted(row)
            assert class_ == values[row].argmax()
            assert confidence == pytest.approx(shares[row].max(), abs=1e-4)
        assert rows > 1 or len(text) <= 200
        nonces.add(got.nonce)
    assert len(nonces) == len(answers)


def test_a_label_reaches_the_service_through_a_replica(replica: Replica, service: Service, model: Deployment) -> None:
    before = service.labels(model)
    text = replica.infer(document(IMAGES[:2])).headers[receipts.HEADER]
    items = [{"receipt": text, "row": row, "label": 1} for row in range(2)]
    assert post(replica, items) == (200, {"results": [{"outcome": "accepted"}] * 2})
    assert post(replica, items[0]) == (200, {"outcome": "duplicate"})
    assert service.labels(model) == before + 2


def test_a_replica_passes_on_nobody_elses_labels(replica: Replica, service: Service) -> None:
    other = Deployment(classes=CLASSES)
    status, got = post(replica, {"receipt": other.receipt(1), "label": 1})
    assert (status, got["outcome"], got["reason"]) == (200, "forged", "Foreign")
    assert service.labels(other) == 0


def test_a_bad_post_is_answered_as_the_service_answers_it(replica: Replica) -> None:
    answer = replica.ask("POST", "/v1/feedback", b"{", {"content-type": "application/json"})
    assert (answer.status, answer.json["reason"]) == (400, "BadRequest")
    answer = replica.ask("GET", "/v1/feedback")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_users_own_id_stands_for_the_receipt(replica: Replica, protocol: str) -> None:
    name = f"order-17-{protocol}"
    if protocol == "http":
        replica.infer(document(IMAGES[:1]), **{receipts.ID_HEADER: name})
    else:
        image = triton_grpc.InferInput("image", [1, 12], "FP32")
        image.set_data_from_numpy(IMAGES[:1])
        with triton_grpc.InferenceServerClient(f"127.0.0.1:{replica.grpc_port}") as client:
            client.infer("m", [image], headers={receipts.ID_HEADER: name})
    item = {"id": name, "label": 1}
    until = time.monotonic() + PATIENCE_S
    while (got := post(replica, item)[1])["outcome"] != "accepted":
        assert (got["outcome"], got["reason"]) == ("malformed", "UnknownId")
        assert time.monotonic() < until
        time.sleep(0.1)
    assert post(replica, item)[1]["outcome"] == "duplicate"
    got = post(replica, {**item, "label": 2, "corrects": True})[1]
    assert (got["outcome"], got["reason"]) == ("forged", "ReceiptNeeded")
    assert post(replica, {**item, "label": 2})[1]["reason"] == "AlreadyLabelled", "the first label stays"


def test_no_label_is_acknowledged_while_the_service_is_away(
    start: Callable[..., Replica], service: Service, tmp_path: Path
) -> None:
    model = Deployment(classes=CLASSES)
    replica = start("perceptron.pt2", **model.told(tmp_path / "key", service.url))
    replica.await_ready()
    item = {"receipt": replica.infer(document(IMAGES[:1])).headers[receipts.HEADER], "label": 1}
    service.kill()
    answer = replica.ask("POST", "/v1/feedback", json.dumps(item).encode(), {"content-type": "application/json"})
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert "nothing was stored" in answer.json["error"]
    assert receipts.HEADER in replica.infer(document(IMAGES[:4])).headers, "predictions need no feedback service"
    service.start()
    assert post(replica, item) == (200, {"outcome": "accepted"})
    assert service.labels(model) == 1
    replica.terminate()
    assert replica.wait() == 0
    assert [revision["predictions"] for revision in service.quality(model)] == [5], "told before it ends"


def test_a_silent_service_does_not_hold_up_the_end(start: Callable[..., Replica], tmp_path: Path) -> None:
    posts = 40
    with socket.create_server(("127.0.0.1", 0), backlog=2 * posts) as silent:
        told = Deployment(classes=CLASSES).told(tmp_path / "key", f"http://127.0.0.1:{silent.getsockname()[1]}")
        replica = start("perceptron.pt2", **told, EVENKEEL_GRACE_PERIOD_S="9")
        replica.await_ready()
        replica.infer(document(IMAGES[:1]))
        with contextlib.ExitStack() as held:
            for _ in range(posts):
                held.enter_context(replica.connect()).sendall(request_bytes("POST", "/v1/feedback", b"{}"))
            silent.accept()[0].close()  # the first one is under way
            replica.terminate()
            assert replica.process.wait(posts / THREADS * TIMEOUT_S / 2) == 0, "no post is waited for"


@pytest.mark.parametrize("is_told", [pytest.param(False, id="nothing told"), pytest.param(True, id="the key missing")])
def test_without_a_key_a_replica_serves_without_receipts(
    is_told: bool, start: Callable[..., Replica], tmp_path: Path
) -> None:
    told = Deployment().told(tmp_path / "key")
    (tmp_path / "key" / "key").unlink()
    replica = start("perceptron.pt2", **(told if is_told else {}))
    replica.await_ready()
    for answer in (replica.infer(document(IMAGES[:1])), replica.rows(IMAGES), v1(replica, IMAGES)):
        assert answer.status == 200
        assert receipts.HEADER not in answer.headers
        assert "parameters" not in answer.json
    status, got = post(replica, {"receipt": "x", "label": 1})
    assert (status, "no feedback service" in got["error"]) == (404, True)
