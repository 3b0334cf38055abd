"""Does the generator of the bench on the cluster keep its times, and tell what became of each request?"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest

from evenkeel_operator.decide.readings import read
from evenkeel_runtime.contract import SIGNALS_PATH
from tests.bench.trace import excerpt, expected, figures, pods
from tests.bench.trace.figures import Request
from tests.bench.trace.model import model
from tests.system.runtime.replica import Replica, free_ports

ROOT = Path(__file__).parents[3]
LEAD_S = 5.0


async def follow(port: int, request: bytes, schedule: list[float], folder: Path) -> list[Request]:
    """Return what the generator wrote."""
    (folder / "request").write_bytes(request)
    (folder / "schedule").write_text(json.dumps(schedule))
    begin = time.monotonic() + LEAD_S
    places = [str(port), str(folder / "request"), str(folder / "schedule"), repr(begin), str(folder / "out")]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.trace.generator", *places, cwd=ROOT
    )
    assert await process.wait() == 0
    return figures.read(folder / "out")


async def test_a_replica_answers_every_request_of_a_schedule(tmp_path: Path) -> None:
    served = model(cost_s=0.001)
    (tmp_path / "model.pt2").write_bytes(served.content)
    schedule = excerpt.schedule(excerpt.flat(20.0, 3), 1)
    replica = Replica(tmp_path / "model.pt2", tmp_path / "term", {"EVENKEEL_MODEL_NAME": "traced"})
    try:
        await asyncio.to_thread(replica.await_ready)
        before = read(replica.admin("GET", SIGNALS_PATH).body)
        got = await follow(replica.port, pods.http_request("traced", served.body), schedule, tmp_path)
        after = read(replica.admin("GET", SIGNALS_PATH).body)
    finally:
        replica.terminate()
        replica.wait()
    assert [request.due for request in got] == pytest.approx(schedule, abs=1e-5)
    assert {request.failure for request in got} == {""}
    assert all(request.due - 1e-5 <= request.sent < request.answered for request in got)
    assert after.arrivals - before.arrivals == len(schedule)
    assert expected.roofline([(0.0, before), (10.0, after)]).seconds(1) > 0.0


async def test_who_does_not_answer_is_told_of_and_holds_up_nobody(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        answers.append(len(answers))
        if len(answers) == 1:
            await asyncio.sleep(2.0)
        if len(answers) == 2:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    answers: list[int] = []
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        got = await follow(port, pods.http_request("m", b"{}"), [0.0, 0.5, 1.0], tmp_path)
    assert [request.failure for request in got] == ["", "cut", ""]
    assert got[0].latency_s >= 2.0
    assert got[2].answered < got[0].answered, "the third did not wait for the first"


async def test_nobody_there_is_a_failure_of_each(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    got = await follow(port, pods.http_request("m", b"{}"), [0.0, 0.1], tmp_path)
    assert [request.failure for request in got] == ["ConnectionRefusedError"] * 2
