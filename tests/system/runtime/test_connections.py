"""Does the server survive what connections do: pipelines, trickles, silence, floods, and endings?"""

from __future__ import annotations

import json
import socket

import numpy as np
import pytest

from tests.system.runtime.replica import Replica, binary_header, read_answer, request_bytes

IMAGE = np.ones((1, 12), np.float32)


def infer_request(rows: int) -> bytes:
    image = np.ones((rows, 12), np.float32)
    header = json.dumps(binary_header(image)).encode()
    more = f"Inference-Header-Content-Length: {len(header)}\r\n"
    return request_bytes("POST", "/v2/models/m/infer", header + image.tobytes(), more)


def test_pipelined_answers_come_in_order(perceptron: Replica) -> None:
    with perceptron.connect() as stream:
        rows = [5, 1, 33, 2, 64, 7] * 20
        requests = [part for count in rows for part in (infer_request(count), request_bytes("GET", "/v2/health/live"))]
        stream.sendall(b"".join(requests))
        for count in rows:
            status, _, body = read_answer(stream)
            assert status == 200
            assert f'"shape":[{count},3]'.encode() in body
            assert read_answer(stream)[2] == b'{"live":true}'


def test_request_that_comes_byte_by_byte(perceptron: Replica) -> None:
    with perceptron.connect() as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in infer_request(1):
            stream.sendall(bytes([byte]))
        assert read_answer(stream)[0] == 200


def test_chunked_body(perceptron: Replica) -> None:
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = json.dumps(
        {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 12], "data": [1.0] * 12}]}
    ).encode()
    with perceptron.connect() as stream:
        stream.sendall(head)
        for start in range(0, len(body), 17):
            piece = body[start : start + 17]
            stream.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        stream.sendall(b"0\r\n\r\n")
        assert read_answer(stream)[0] == 200


def test_expect_continue(perceptron: Replica) -> None:
    request = infer_request(1).replace(b"Host: t\r\n", b"Host: t\r\nExpect: 100-continue\r\n")
    head, _, body = request.partition(b"\r\n\r\n")
    with perceptron.connect() as stream:
        stream.sendall(head + b"\r\n\r\n")
        want = b"HTTP/1.1 100 Continue\r\n\r\n"
        assert stream.recv(len(want), socket.MSG_WAITALL) == want
        stream.sendall(body)
        assert read_answer(stream)[0] == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, id="TLS on a plain port"),
        pytest.param(b"GARBAGE\r\n\r\n", 400, id="no HTTP"),
        pytest.param(b"GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400, id="a negative length"),
        pytest.param(
            b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            id="two lengths (smuggling)",
        ),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, 431, id="endless headers"),
        pytest.param(
            b"POST /v2/models/m/infer HTTP/1.1\r\nContent-Length: 68157440\r\n\r\n", 413, id="65 MiB announced"
        ),
        pytest.param(b"GET / HTTP/1.1\r\nHost", 408, id="half a header, then silence"),
        pytest.param(
            b"POST /v2/models/m/infer HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\nhalf",
            408,
            id="half a body, then silence",
        ),
    ],
)
def test_what_is_no_request_is_answered_and_the_connection_ends(perceptron: Replica, sent: bytes, status: int) -> None:
    with perceptron.connect() as stream:
        stream.sendall(sent)
        got, head, body = read_answer(stream)
        assert got == status
        assert b"connection: close" in head
        assert json.loads(body)["error"]
        assert stream.recv(1) == b""
    assert perceptron.rows(IMAGE).status == 200


def test_65_mib_that_are_really_sent(perceptron: Replica) -> None:
    answer = perceptron.infer(bytes(65 << 20))
    assert answer.status == 413
    assert perceptron.rows(IMAGE).status == 200


def test_endless_chunks_end_with_413(perceptron: Replica) -> None:
    piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    with perceptron.connect() as stream:
        stream.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(66):
            stream.sendall(piece)
        assert read_answer(stream)[0] == 413


def test_more_connections_than_allowed_are_told_so_and_may_ask_for_health(perceptron: Replica) -> None:
    """A probe of a full replica that is sent away would have it killed."""
    held: list[socket.socket] = []
    try:
        statuses = []
        for _ in range(45):
            stream = perceptron.connect()
            held.append(stream)
            stream.sendall(infer_request(1))
            statuses.append(read_answer(stream)[0])
        assert statuses.count(200) == 40
        assert statuses.count(503) == 5
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/m/ready", "/v1/models/m", "/metrics"):
            answer = perceptron.ask("GET", path)
            assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert perceptron.ask("GET", "/v2/models/m").status == 503
    finally:
        for stream in held:
            stream.close()
    perceptron.await_status("/v2/models/m", 200)


def test_connection_close_is_obeyed(perceptron: Replica) -> None:
    with perceptron.connect() as stream:
        stream.sendall(request_bytes("GET", "/v2/health/live", headers="Connection: close\r\n"))
        assert b"connection: close" in read_answer(stream)[1]
        assert stream.recv(1) == b""
