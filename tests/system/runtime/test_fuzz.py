"""Does anything that a client or a file may say bring a server down, or make it blame itself?

The short form runs with all tests; `make fuzz` runs a million requests and ten thousand files.
"""

from __future__ import annotations

import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.system.runtime.mutations import mutated
from tests.system.runtime.replica import Replica, binary_header, request_bytes

IS_FULL = os.environ.get("EVENKEEL_FUZZ") == "full"
REQUESTS = 1_000_000 if IS_FULL else 5_000
FILES = 10_000 if IS_FULL else 150
CONNECTIONS = 1000
CLIENT_TIMEOUT_S = 0.5
ANSWER_WITHIN_S = 30.0
GROWTH_BYTES = 64 << 20
SEED = int(os.environ.get("EVENKEEL_FUZZ_SEED", "1"))


def seeds() -> list[bytes]:
    image = np.arange(24, dtype=np.float32).reshape(2, 12)
    header = json.dumps(binary_header(image)).encode()
    length = f"Inference-Header-Content-Length: {len(header)}\r\nContent-Type: application/octet-stream\r\n"
    text = json.dumps(
        {
            "id": "a",
            "inputs": [{"name": "image", "datatype": "FP32", "shape": [2, 12], "data": image.ravel().tolist()}],
            "outputs": [{"name": "answer"}],
        }
    ).encode()
    v1 = json.dumps({"instances": image.tolist()}).encode()
    as_json = "Content-Type: application/json\r\nX-Request-Timeout-Ms: 5000\r\n"
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (text[:40], text[40:])) + b"0\r\n\r\n"
    return [
        request_bytes("POST", "/v2/models/m/infer", header + image.tobytes(), length),
        request_bytes("POST", "/v2/models/m/infer", text, as_json),
        request_bytes("POST", "/v2/models/m/versions/v1/infer", text),
        request_bytes("POST", "/v1/models/m:predict", v1, as_json),
        b"POST /v2/models/m/infer HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked,
        *(
            request_bytes(method, path)
            for method, path in (
                ("GET", "/v2"),
                ("GET", "/v2/health/ready"),
                ("GET", "/v2/models/m"),
                ("GET", "/v2/models/m/ready"),
                ("GET", "/v1/models/m"),
                ("HEAD", "/v2/models/m"),
            )
        ),
    ]


@dataclass(slots=True)
class Asked:
    """A request under way; `answer` is what came back until now."""

    stream: socket.socket
    request: bytes
    unsent: bytes
    answer: bytes
    until: float


def test_no_request_is_answered_with_a_fault_of_the_server(start: Callable[..., Replica]) -> None:
    replica = start("perceptron.pt2", EVENKEEL_CLIENT_TIMEOUT_S=str(CLIENT_TIMEOUT_S))
    replica.await_ready()
    _ask_all(replica, min(2000, REQUESTS // 10), random.Random(0))
    before = replica.metric("process_resident_memory_bytes")
    statuses, wrong = _ask_all(replica, REQUESTS, random.Random(SEED))
    print(f"{REQUESTS} requests: {dict(sorted(statuses.items()))}")
    assert not wrong, wrong[:3]
    assert min(statuses[200], statuses[400]) > 0, "both valid and refused requests were among them"
    replica.await_ready()
    grown = replica.metric("process_resident_memory_bytes") - before
    assert grown < GROWTH_BYTES, f"the server has grown by {grown / 1e6:.0f} MB"


def _ask_all(replica: Replica, count: int, chance: random.Random) -> tuple[Counter[int], list[tuple[str, bytes]]]:
    """Ask on a connection of its own each, many at once."""
    found = seeds()
    poll = select.epoll()
    open_: dict[int, Asked] = {}
    statuses: Counter[int] = Counter()
    wrong: list[tuple[str, bytes]] = []
    asked, swept = 0, time.monotonic()

    def end(number: int, status: int, why: str = "") -> None:
        one = open_.pop(number)
        poll.unregister(number)
        one.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT
        one.stream.close()
        statuses[status] += 1
        if why:
            wrong.append((why, one.request))

    with ExitStack() as left:
        left.callback(poll.close)
        left.callback(_close_all, open_)
        while asked < count or open_:
            while asked < count and len(open_) < CONNECTIONS:
                request = mutated(found, chance)
                if not request.strip(b"\r\n"):
                    continue  # nothing is asked
                stream = socket.create_connection(("127.0.0.1", replica.port), timeout=30)
                stream.setblocking(False)
                asked += 1
                open_[stream.fileno()] = Asked(stream, request, request, b"", time.monotonic() + ANSWER_WITHIN_S)
                poll.register(stream.fileno(), select.EPOLLIN | select.EPOLLOUT)
            for number, events in poll.poll(0.2):
                one = open_[number]
                try:
                    if events & select.EPOLLOUT and one.unsent:
                        one.unsent = one.unsent[one.stream.send(one.unsent) :]
                        if not one.unsent:
                            poll.modify(number, select.EPOLLIN)
                    data = one.stream.recv(1 << 16) if events & ~select.EPOLLOUT else b"-"
                except BlockingIOError:
                    continue
                except OSError as error:
                    end(number, -1, f"cut: {error}")
                    continue
                if events & ~select.EPOLLOUT:
                    one.answer += data
                    if not data:
                        end(number, 0, f"no answer but {one.answer!r}")
                    elif (status := _status(one)) is not None:
                        end(number, status, _fault(one, status))
            if (now := time.monotonic()) > swept + 0.5:
                swept = now
                for number in [number for number, one in open_.items() if now > one.until]:
                    end(number, 0, f"no answer in time but {open_[number].answer!r}")
                assert replica.process.poll() is None, f"the server ended with {replica.process.returncode}"
    return statuses, wrong


def _close_all(open_: dict[int, Asked]) -> None:
    for one in open_.values():
        one.stream.close()


def _status(one: Asked) -> int | None:
    """Return the status of the first final answer once it is complete."""
    answer = one.answer
    while answer.startswith(b"HTTP/1.1 100") and b"\r\n\r\n" in answer:
        answer = answer.partition(b"\r\n\r\n")[2]
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return None
    lines = head.lower().split(b"\r\n")
    length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
    if one.request.lstrip(b"\r\n").startswith(b"HEAD "):
        length = 0
    if len(body) < length:
        return None
    one.answer = head + separator + body[:length]  # a changed request may be two
    return int(head.split(b" ", 2)[1])


def _fault(one: Asked, status: int) -> str:
    if status == 504 and b"timeout" in one.request.lower():
        return ""
    if status >= 500:
        return f"{one.answer!r}"
    body = one.answer.partition(b"\r\n\r\n")[2]
    return f"an error without a message: {one.answer!r}" if status >= 400 and body and not _message(body) else ""


def _message(body: bytes) -> object:
    try:
        return json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return None


def test_no_file_brings_the_loader_down(model_dir: Path, tmp_path: Path) -> None:
    """Files are tried in processes of their own, which are asked what became of each."""
    folder = tmp_path / "files"
    folder.mkdir()
    outcomes: Counter[str] = Counter()
    for first in range(0, FILES, 500):
        words = [str(model_dir), str(SEED + first), str(min(500, FILES - first)), str(folder)]
        got = subprocess.run(
            [sys.executable, "-m", "tests.system.runtime.fuzzed_files", *words],
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        assert got.returncode == 0, f"{got.returncode}: {got.stdout[-500:]} {got.stderr[-3000:]}"
        outcomes.update(json.loads(got.stdout.splitlines()[-1]))
    print(f"{FILES} files: {dict(outcomes)}")
    assert outcomes["FormatRefused"], "files were refused"


@pytest.fixture(autouse=True)
def _as_many_sockets_as_needed() -> Iterator[None]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * CONNECTIONS + 512), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
