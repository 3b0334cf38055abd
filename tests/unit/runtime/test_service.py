"""Does every request get its own answer, and exactly one, whoever else leaves, is late or is sent away?"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evenkeel_runtime import config
from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.engine import modes
from evenkeel_runtime.engine.batching import Policy, Queue
from evenkeel_runtime.engine.cuda import DeviceLost
from evenkeel_runtime.engine.forward import Forward
from evenkeel_runtime.engine.modes import Inline, Mode, Threaded
from evenkeel_runtime.models.loaded import Call, Signature
from evenkeel_runtime.serve.answer import Writer
from evenkeel_runtime.serve.connections import Server
from evenkeel_runtime.serve.oip import Plan, Reader
from evenkeel_runtime.serve.protocol import Connection
from evenkeel_runtime.serve.service import Ready, Service
from evenkeel_runtime.serve.tally import Tally
from evenkeel_runtime.serve.tracing import Trace
from evenkeel_runtime.serve.v1 import Predictions
from evenkeel_runtime.serve.views import Outputs
from tests.unit.runtime.remotes import remote

INPUT, OUTPUT = (Tensor("x", "INT64", (-1,)),), (Tensor("y", "INT64", (-1,)),)
COUNT = 1_000_000 if os.environ.get("EVENKEEL_FUZZ") == "full" else 6_000
WAITING = 60
"""How many rows may wait: few enough that some requests are sent away."""


class Asking:
    """One client: what it asked, and all that it was told."""

    protocol = "http"
    succeeded = 200
    connection: object = None
    trace: Trace | None = None
    within_s = 0.0

    def __init__(self, values: list[int]) -> None:
        self.values = values
        self.headers: dict[bytes, bytes] = {}
        self.abandoned: Callable[[], None] | None = None
        self.assignment: int | None = None
        self.has_left = self.is_late = False
        self.told: list[tuple[int, list[int]]] = []

    def respond_head(self, head: bytes, body: bytes) -> None:
        self.abandoned = None
        self.told.append((200, np.frombuffer(body[-8 * len(self.values) :], np.int64).tolist()))

    def fail(self, status: int, message: str, more: bytes = b"") -> int:
        self.abandoned = None
        self.told.append((status, []))
        return status

    def body(self) -> tuple[bytes, int]:
        count = len(self.values)
        head = (
            b'{"inputs":[{"name":"x","datatype":"INT64","shape":[%d],"parameters":{"binary_data_size":%d}}],'
            b'"parameters":{"binary_data_output":true}}' % (count, 8 * count)
        )
        return head + np.array(self.values).tobytes(), len(head)


def answer(x: torch.Tensor) -> list[torch.Tensor]:
    return [x * 3 + 1]


def inline(call: Call, *told: Any) -> Mode:
    return Inline(waiting(), forward(call), *told)


def in_a_thread(call: Call, *told: Any) -> Mode:
    return Threaded(waiting(), [forward(call)], *told)


def in_two_engines(call: Call, *told: Any) -> Mode:
    return Threaded(waiting(), [remote(forward(call))[0] for _ in range(2)], *told)


MODES = [inline, in_a_thread, in_two_engines]
Makes = Callable[..., Mode]


def waiting() -> Queue:
    return Queue(Policy(16, WAITING))


def forward(call: Call) -> Forward:
    return Forward(Signature(INPUT, OUTPUT, 0, None), call, "cpu", 16)


def serving(mode: Makes, call: Call = answer) -> Service:
    """Return a service whose model answers 3 x + 1, unless told otherwise."""
    model = config.Model("Auto", "", False)
    told = config.Serve("m", "v1", Path("m"), model, "127.0.0.1", 0, 0, 0.0, 30.0, config.Limits())
    service = Service(told, lambda exchange, render: None)
    service.ready = Ready(
        mode=mode(call, service.answered, service.expired),
        reader=Reader(INPUT, OUTPUT, True, 100),
        writer=Writer("m", "v1", OUTPUT),
        predictions=Predictions(INPUT, OUTPUT, True, 100),
        shown=Outputs(OUTPUT, (), True),
        rows_per_second=1e6,
        metadata=b"{}",
        configuration={},
    )
    return service


def leave(client: Asking) -> None:
    if client.abandoned is not None:
        client.abandoned()
        client.abandoned, client.has_left = None, True


async def asked(service: Service, count: int, seed: int) -> list[Asking]:
    """Let so many clients ask, of whom some leave before they are answered; return when all is over."""
    ready = service.ready
    assert ready is not None
    chance = random.Random(seed)
    clients: list[Asking] = []
    open_: list[Asking] = []
    begun = 0
    while begun < count:
        for _ in range(min(chance.randint(1, 24), count - begun)):
            client = Asking([begun * 32 + row for row in range(chance.randint(1, 20 if chance.random() < 0.1 else 4))])
            begun += 1
            client.is_late = chance.random() < 0.05
            body, header_length = client.body()
            read = ready.reader.read(body, header_length)
            service.admit(ready, client, read, ready.writer, 0.0, 0.0 if client.is_late else None, len(body))
            clients.append(client)
            open_.append(client)
        for client in open_:
            if chance.random() < 0.1:
                leave(client)
        if chance.random() < 0.7:
            await asyncio.sleep(0)
        for client in open_:
            if chance.random() < 0.05:
                leave(client)
        open_ = [client for client in open_ if client.abandoned is not None]
    while ready.mode.queue.requests or service.metrics.in_flight:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.001)
    return clients


@pytest.mark.parametrize("mode", MODES)
async def test_no_answer_is_lost_or_another_ones(mode: Makes) -> None:
    service = serving(mode)
    seen: dict[int, int] = {}
    left = rows = 0
    parts = max(1, COUNT // 50_000)  # so that a million clients need not be kept
    for seed in range(parts):
        for client in await asked(service, COUNT // parts, seed):
            if client.has_left:
                left += 1
                assert client.told == []
                continue
            ((status, values),) = client.told
            seen[status] = seen.get(status, 0) + 1
            if status == 200:
                rows += len(values)
                assert not client.is_late
                assert values == [3 * value + 1 for value in client.values]
            else:
                assert status == 429 or (status == 504 and client.is_late)
    assert service.ready is not None
    service.ready.mode.stop()
    assert service.ready.mode.queue.rows == service.ready.mode.queue.bytes == 0
    assert set(seen) == {200, 429, 504}
    assert sum(seen.values()) + left == COUNT
    service.timings.bin()
    assert (service.metrics.requests, service.metrics.rows) == (seen, rows)
    assert service.metrics.preprocess.count == COUNT - seen[429]
    assert service.metrics.predict.count == service.metrics.queue.count == seen[200]
    assert service.metrics.postprocess.count == seen[200]
    assert service.signals.latency.count == seen[200] + left, "who gave up has waited, too"
    assert (service.metrics.cancelled, service.metrics.in_flight) == (left, 0)


async def test_a_lost_gpu_is_said_to_whoever_waits_and_to_who_runs_the_process() -> None:
    def lost(x: torch.Tensor) -> list[torch.Tensor]:
        raise DeviceLost("the GPU answers this process no more")

    service = serving(in_a_thread, lost)
    heard: list[DeviceLost] = []
    service.on_lost = heard.append
    clients = await asked(service, 40, 0)
    assert service.ready is not None
    service.ready.mode.stop()
    told = {status for client in clients for status, _ in client.told}
    assert 503 in told
    assert 200 not in told
    assert heard
    assert service.metrics.rejected["device_lost"] == len(heard)


async def test_an_engine_that_is_lost_gets_no_more_and_the_other_answers() -> None:
    """Who was with it is told so, and once; nobody's request is run again."""
    lost: list[int] = []

    def one_is_lost(x: torch.Tensor) -> list[torch.Tensor]:
        engine = threading.get_ident()
        if engine in (lost or [engine]):
            lost.append(engine)
            raise DeviceLost("the GPU answers this process no more")
        return answer(x)

    service = serving(in_two_engines, one_is_lost)
    heard: list[DeviceLost] = []
    service.on_lost = heard.append
    clients = [client for seed in range(20) for client in await asked(service, 20, seed)]
    assert service.ready is not None
    service.ready.mode.stop()
    told = [client.told for client in clients if not client.has_left]
    assert all(len(one) == 1 for one in told)
    statuses = [status for ((status, _),) in told]
    assert 1 <= statuses.count(503) <= 16, "a batch"
    assert statuses.count(200) > 200
    assert len(heard) == statuses.count(503)
    assert len(set(lost)) == 1


class Refusing(Writer):
    """A writer that cannot write one of the answers."""

    def write(self, plan: Plan, arrays: list[Any], receipt: bytes | None = None) -> tuple[bytes, bytes]:
        if arrays[0][0] == 3 * 7 + 1:
            raise KeyError("complex64")
        return super().write(plan, arrays, receipt)


@pytest.mark.parametrize("mode", MODES)
async def test_an_answer_that_cannot_be_written_fails_alone(mode: Makes, caplog: pytest.LogCaptureFixture) -> None:
    service = serving(mode)
    ready = service.ready
    assert ready is not None
    clients = [Asking([value]) for value in (6, 7, 8)]
    for client in clients:
        body, header_length = client.body()
        read = ready.reader.read(body, header_length)
        service.admit(ready, client, read, Refusing("m", "v1", OUTPUT), 0.0, None, len(body))
    for _ in range(1000):
        if not service.metrics.in_flight:
            break
        await asyncio.sleep(0.001)
    ready.mode.stop()
    assert [client.told for client in clients] == [[(200, [19])], [(500, [])], [(200, [25])]]
    assert service.metrics.in_flight == 0
    assert service.signals.failed == 1
    assert "the model's answer cannot be written rows=1 error=KeyError: 'complex64'" in caplog.text


class Wire(asyncio.Transport):
    """A client of one connection, which keeps what it is answered."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self._connection: Connection = server.connection()
        self._connection.connection_made(self)

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    @property
    def answers(self) -> list[int]:
        return [int(np.frombuffer(answer[-8:], np.int64)[0]) for answer in self.written]

    def ask(self, *values: int, more: bytes = b"") -> None:
        """Send a request for each number, all of them at once."""
        sent = b""
        for value in values:
            body, json_bytes = Asking([value]).body()
            head = b"inference-header-content-length: %d\r\n%s" % (json_bytes, more)
            sent += self._request(b"/v2/models/m/infer", head, body)
        self._connection.data_received(sent)

    def predict(self, value: int) -> None:
        """Ask the same by KServe's V1 protocol."""
        self._connection.data_received(self._request(b"/v1/models/m:predict", b"", b'{"instances":[%d]}' % value))

    def _request(self, path: bytes, head: bytes, body: bytes) -> bytes:
        return b"POST %s HTTP/1.1\r\n%scontent-length: %d\r\n\r\n" % (path, head, len(body)) + body


async def test_the_text_of_a_request_is_not_kept_until_its_turn() -> None:
    service = serving(inline)
    server = Server(service.handle, config.Limits())
    wire = Wire(server)
    wire.predict(4)
    (connection,) = server.connections
    assert [exchange.body for exchange in connection.exchanges] == [b""]
    await asyncio.sleep(0)
    assert [answer.rpartition(b"\r\n")[2] for answer in wire.written] == [b'{"predictions":[13]}']


async def test_a_client_that_is_alone_is_not_kept_waiting_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "MOST_PATIENCE", 0.0)
    service = serving(inline)
    server = Server(service.handle, config.Limits())
    one, other = Wire(server), Wire(server)

    async def turn() -> tuple[list[int], list[int], int]:
        await asyncio.sleep(0)
        return one.answers, other.answers, service.metrics.batch_rows.count

    one.ask(0)
    assert await turn() == ([1], [], 1)
    one.ask(1)
    assert (one.answers, service.metrics.batch_rows.count) == ([1, 4], 2), "it waits, though nobody else is there"
    other.ask(10)
    one.ask(2)
    assert (one.answers, other.answers) == ([1, 4], []), "one of two was served alone"
    assert await turn() == ([1, 4, 7], [31], 3)
    one.ask(3)
    assert one.answers == [1, 4, 7], "the other one may be about to ask again"
    assert await turn() == ([1, 4, 7, 10], [31], 4)
    one.ask(4, 5, 6)
    assert one.answers == [1, 4, 7, 10], "what comes in one piece shares a call"
    assert await turn() == ([1, 4, 7, 10, 13, 16, 19], [31], 5)


async def test_what_a_head_says_holds_for_all_requests_that_have_it_and_no_others() -> None:
    wire = Wire(Server(serving(inline).handle, config.Limits()))
    for value in (1, 2, 3):
        wire.ask(value)
        await asyncio.sleep(0)
    assert wire.answers == [4, 7, 10]
    for value in (4, 5, 6):
        wire.predict(value)
        await asyncio.sleep(0)
    assert [answer.rpartition(b"\r\n")[2] for answer in wire.written[3:]] == [
        b'{"predictions":[%d]}' % want for want in (13, 16, 19)
    ]
    for value in (7, 8, 9):
        wire.ask(value, more=b"x-request-timeout-ms: 1000\r\n")
        await asyncio.sleep(0.6)  # longer than the time of the first two together: each has its own
    assert wire.answers[6:] == [22, 25, 28]
    for _ in range(2):
        wire.ask(1, more=b"x-request-timeout-ms: soon\r\n")
    assert [answer[9:12] for answer in wire.written[9:]] == [b"400", b"400"]


async def test_what_could_have_been_the_canary_s_is_counted_beside_it_however_it_ends() -> None:
    """Answered, failed, left by its client; and answered, though it could not have been the canary's."""
    service = serving(inline)
    ready = service.ready
    assert ready is not None
    tally = service.metrics.canary = Tally("digits-91cc", 0.1)
    clients = [Asking([value]) for value in (6, 7, 8, 9)]
    for client, within_s in zip(clients, (60.0, 60.0, 60.0, 0.0), strict=True):
        client.within_s = within_s
        body, header_length = client.body()
        read = ready.reader.read(body, header_length)
        service.admit(ready, client, read, Refusing("m", "v1", OUTPUT), time.perf_counter(), None, len(body))
    leave(clients[2])
    for _ in range(1000):
        if not service.metrics.in_flight:
            break
        await asyncio.sleep(0.001)
    ready.mode.stop()
    service.timings.bin()
    assert [status for client in clients for status, _ in client.told] == [200, 500, 200]
    assert tally.beside.told() == {"ended": 3, "late": 0, "failed": 1}
    assert service.signals.latency.count == 3
