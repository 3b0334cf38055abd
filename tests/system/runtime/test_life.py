"""Does a replica begin, fail and end as Kubernetes needs it?"""

from __future__ import annotations

import hashlib
import http.client
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from evenkeel_runtime.contract import Failed, Reason
from tests.system.feedback.server import Deployment
from tests.system.runtime.replica import PATIENCE_S, Replica, binary_header, read_answer, request_bytes
from tests.system.runtime.test_engine import await_metric, long_request

IMAGE = np.ones((1, 12), np.float32)


def test_live_before_ready(start: Callable[..., Replica]) -> None:
    replica = start("perceptron.pt2")
    replica.await_status("/v2/health/live", 200)
    assert replica.ask("GET", "/v2/health/ready").status == 503
    answer = replica.rows(IMAGE)
    assert answer.status == 503
    assert answer.headers["retry-after"]
    replica.await_ready()
    assert replica.rows(IMAGE).status == 200


def test_sigterm_while_loading_ends_at_once(start: Callable[..., Replica]) -> None:
    replica = start("perceptron.pt2")
    replica.await_status("/v2/health/live", 200)
    replica.terminate()
    assert replica.wait() == 0


class Client(threading.Thread):
    """Asks as fast as it is answered, over kept or new connections, until told to stop."""

    def __init__(self, replica: Replica, keeps_connections: bool) -> None:
        super().__init__()
        self.replica, self.keeps = replica, keeps_connections
        self.answered = 0
        self.failures: list[str] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        import json

        header = json.dumps(binary_header(IMAGE)).encode()
        connection: http.client.HTTPConnection | None = None
        while not self.stopped.is_set():
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.replica.port, timeout=PATIENCE_S)
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    return  # the listener is closed: by then no endpoint leads here
            try:
                connection.request(
                    "POST",
                    "/v2/models/m/infer",
                    header + IMAGE.tobytes(),
                    {"Inference-Header-Content-Length": str(len(header))},
                )
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    self.failures.append(f"status {response.status}")
                self.answered += 1
                if not self.keeps or response.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                return
        if connection is not None:
            connection.close()


def at_work(replica: Replica) -> list[Client]:
    """Return clients each of which has been answered a few times, half of them over connections that are kept."""
    clients = [Client(replica, keeps_connections=number % 2 == 0) for number in range(8)]
    for client in clients:
        client.start()
    while min(client.answered for client in clients) < 5 and not any(client.failures for client in clients):
        time.sleep(0.01)
    return clients


def failures_when_sent_away(clients: list[Client]) -> list[str]:
    """Let the clients end, as the endpoints of a cluster are gone before the delay is over; return what failed."""
    for client in clients:
        client.stopped.set()
    for client in clients:
        client.join()
    return [failure for client in clients for failure in client.failures]


def test_drain_under_load_fails_no_request(start: Callable[..., Replica]) -> None:
    replica = start("perceptron.pt2", EVENKEEL_DRAIN_DELAY_S="1.5")
    replica.await_ready()
    clients = at_work(replica)
    replica.terminate()
    replica.await_status("/v2/health/ready", 503)
    assert replica.ask("GET", "/v2/health/live").status == 200
    during = replica.rows(IMAGE)  # a new connection while endpoints still lead here
    assert during.status == 200
    assert during.headers["connection"] == "close"
    failures = failures_when_sent_away(clients)
    assert replica.wait() == 0
    assert failures == []


def test_admitted_requests_are_answered_after_the_listener_closed(start: Callable[..., Replica]) -> None:
    replica = start("long.pt2", EVENKEEL_DRAIN_DELAY_S="0")
    replica.await_ready()
    streams = [replica.connect() for _ in range(4)]
    idle = replica.connect()
    for stream in streams:
        stream.sendall(long_request())
    await_metric(replica, "inference_requests_in_flight", 4)
    replica.terminate()
    for stream in streams:
        status, head, _ = read_answer(stream)
        assert status == 200
        assert b"connection: close" in head
        stream.close()
    assert idle.recv(1) == b""
    idle.close()
    assert replica.wait() == 0


def test_idle_connections_do_not_hold_up_the_end(start: Callable[..., Replica]) -> None:
    replica = start("perceptron.pt2", EVENKEEL_DRAIN_DELAY_S="0")
    replica.await_ready()
    with replica.connect() as kept:
        kept.sendall(request_bytes("GET", "/v2/health/live"))
        read_answer(kept)
        replica.terminate()
        assert replica.wait() == 0


def test_a_request_that_stalls_does_not_hold_up_the_end(start: Callable[..., Replica]) -> None:
    replica = start("perceptron.pt2", EVENKEEL_DRAIN_DELAY_S="0", EVENKEEL_CLIENT_TIMEOUT_S="1")
    replica.await_ready()
    with replica.connect() as stalled:
        stalled.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: t\r\nContent-Le")
        replica.await_status("/v2/health/live", 200)  # what was sent before has been read
        began = time.monotonic()
        replica.terminate()
        assert read_answer(stalled)[0] == 408
        assert replica.wait() == 0
        assert time.monotonic() - began < 12  # the grace period would end it after 25 s


def test_second_signal_means_now(start: Callable[..., Replica]) -> None:
    replica = start("perceptron.pt2", EVENKEEL_DRAIN_DELAY_S="3000", EVENKEEL_GRACE_PERIOD_S="3600")
    replica.await_ready()
    replica.terminate()
    replica.await_status("/v2/health/ready", 503)
    replica.process.send_signal(signal.SIGTERM)
    assert replica.wait() == 0


def test_grace_period_bounds_the_drain(start: Callable[..., Replica]) -> None:
    replica = start("perceptron.pt2", EVENKEEL_DRAIN_DELAY_S="3000", EVENKEEL_GRACE_PERIOD_S="6")
    replica.await_ready()
    replica.terminate()
    assert replica.wait() == 0


def test_model_that_does_not_run(start: Callable[..., Replica]) -> None:
    replica = start("unrunnable.pt2")
    assert replica.wait() == 1
    found = replica.report()
    assert isinstance(found, Failed)
    assert found.reason == Reason.LOAD_FAILED
    assert "mat1 and mat2" in found.message or "shapes cannot be multiplied" in found.message


def test_failure_after_the_load_is_reported(start: Callable[..., Replica], tmp_path: Path) -> None:
    told = Deployment().told(tmp_path / "key", revision="v" * 300)  # more than a receipt can hold
    replica = start("perceptron.pt2", **told)
    assert replica.wait() == 1
    found = replica.report()
    assert isinstance(found, Failed)
    assert found.reason == Reason.LOAD_FAILED


def test_file_that_is_not_the_pinned_one(start: Callable[..., Replica], model_dir: Path) -> None:
    wrong = hashlib.sha256(b"another").hexdigest()
    replica = start("perceptron.pt2", EVENKEEL_MODEL_SHA256=wrong)
    assert replica.wait() == 1
    found = replica.report()
    assert isinstance(found, Failed)
    assert found.reason == Reason.MODEL_CHANGED
    assert wrong in found.message
    assert hashlib.sha256((model_dir / "perceptron.pt2").read_bytes()).hexdigest() in found.message


def test_file_that_is_not_there(start: Callable[..., Replica]) -> None:
    replica = start("missing.pt2")
    assert replica.wait() == 1
    found = replica.report()
    assert isinstance(found, Failed)
    assert found.reason == Reason.MODEL_NOT_FOUND
