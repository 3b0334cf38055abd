"""Does a replica tell the operator what happened to its requests, and move its histogram when told to?"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import numpy as np

from evenkeel_runtime.contract import DIRECTIVES_PATH, SIGNALS_PATH
from tests.system.runtime.replica import Replica

IMAGE = np.zeros((2, 12), np.float32)


def signals(replica: Replica) -> Any:
    answer = replica.admin("GET", SIGNALS_PATH)
    assert answer.status == 200
    return answer.json


def test_requests_are_counted_once_each(perceptron: Replica) -> None:
    before = signals(perceptron)
    for _ in range(5):
        assert perceptron.rows(IMAGE).status == 200
    assert perceptron.infer(b"{}").status == 400
    after = signals(perceptron)
    assert after["bootId"] == before["bootId"]
    assert after["uptimeSeconds"] > before["uptimeSeconds"]
    assert after["arrivals"] - before["arrivals"] == 5
    assert after["arrivedRows"] - before["arrivedRows"] == 10
    assert after["arrivedSquareRows"] - before["arrivedSquareRows"] == 20
    assert sum(after["latency"]["counts"]) - sum(before["latency"]["counts"]) == 5
    assert after["failed"] == after["rejected"] == after["inFlight"] == after["queuedRequests"] == 0
    _, batches, rows, seconds = (sum(column) for column in zip(*after["batches"], strict=True))
    assert (batches, rows) == (after["arrivals"], after["arrivedRows"])
    assert 0 < seconds <= after["busySeconds"] * 1.001 < after["uptimeSeconds"]


def test_the_profile_is_measured_before_the_first_request(perceptron: Replica) -> None:
    found = signals(perceptron)
    assert found["ready"] is True
    assert found["profile"][0][0] == 1
    assert found["profile"][-1][0] == found["maxBatchRows"]
    assert all(0 < seconds < 1 for _, seconds in found["profile"])
    assert found["loadSeconds"] > 0


def test_a_directive_moves_the_edge_and_an_older_one_is_refused(perceptron: Replica) -> None:
    told = perceptron.admin("POST", DIRECTIVES_PATH, b'{"generation": 3, "latencyTargetSeconds": 0.123}')
    assert (told.status, told.json) == (200, {"generation": 3})
    found = signals(perceptron)
    assert found["latency"]["targetSeconds"] == 0.123
    assert 0.123 in found["latency"]["edges"]
    older = perceptron.admin("POST", DIRECTIVES_PATH, b'{"generation": 2, "latencyTargetSeconds": 1}')
    assert older.status == 409
    assert "older than 3" in older.json["error"]
    assert signals(perceptron)["latency"]["targetSeconds"] == 0.123
    assert perceptron.admin("POST", DIRECTIVES_PATH, b"{").status == 400


def test_the_admin_port_answers_nothing_else_and_the_other_port_no_signals(perceptron: Replica) -> None:
    assert perceptron.admin("POST", SIGNALS_PATH, b"{}").status == 405
    assert perceptron.admin("GET", DIRECTIVES_PATH).status == 405
    assert perceptron.admin("GET", "/v2/models/m").status == 404
    assert perceptron.ask("GET", SIGNALS_PATH).status == 404
    with socket.create_connection(("127.0.0.1", perceptron.admin_port), timeout=60) as stream:
        stream.sendall(b"POST /v2/directives HTTP/1.1\r\nhost: t\r\ncontent-length: 70000\r\n\r\n")
        assert b" 413 " in stream.recv(1000)


def test_a_model_that_cannot_keep_up_says_what_waits(start: Callable[..., Replica]) -> None:
    replica = start("long.pt2", EVENKEEL_MAX_QUEUED_ROWS="2", EVENKEEL_MAX_BATCH_SIZE="1")
    replica.await_ready()
    row = {"inputs": [{"name": "row", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0]}]}
    body = json.dumps(row).encode()
    head = f"POST /v2/models/m/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with replica.connect() as stream:
        stream.sendall((head + body) * 8)
        answers = b""
        while answers.count(b"HTTP/1.1 ") < 8 or not answers.endswith(b"}"):
            answers += stream.recv(65536)
    refused = answers.count(b"HTTP/1.1 429")
    found = signals(replica)
    assert refused > 0
    assert (found["arrivals"], found["rejected"]) == (8, refused)
    assert sum(found["latency"]["counts"]) == 8 - refused
