"""Does every request get its own answer, and exactly one, whoever else leaves, is late or is sent away?"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evenkeel_runtime import config
from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.engine.batching import Policy, Queue
from evenkeel_runtime.engine.forward import Forward
from evenkeel_runtime.engine.modes import Inline, Mode, Threaded
from evenkeel_runtime.models.loaded import Signature
from evenkeel_runtime.serve.answer import Writer
from evenkeel_runtime.serve.oip import Plan, Reader
from evenkeel_runtime.serve.service import Ready, Service
from evenkeel_runtime.serve.tracing import Trace
from evenkeel_runtime.serve.v1 import Predictions
from evenkeel_runtime.serve.views import Outputs

INPUT, OUTPUT = (Tensor("x", "INT64", (-1,)),), (Tensor("y", "INT64", (-1,)),)
COUNT = 1_000_000 if os.environ.get("EVENKEEL_FUZZ") == "full" else 6_000
WAITING = 60
"""How many rows may wait: few enough that some requests are sent away."""


class Asking:
    """One client: what it asked, and all that it was told."""

    protocol = "http"
    succeeded = 200
    trace: Trace | None = None

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

    def body(self) -> tuple[bytes, bytes]:
        count = len(self.values)
        head = (
            b'{"inputs":[{"name":"x","datatype":"INT64","shape":[%d],"parameters":{"binary_data_size":%d}}],'
            b'"parameters":{"binary_data_output":true}}' % (count, 8 * count)
        )
        return head + np.array(self.values).tobytes(), b"%d" % len(head)


def serving(mode: type[Inline] | type[Threaded]) -> Service:
    """Return a service whose model answers 3 x + 1."""
    model = config.Model("Auto", "", False)
    told = config.Serve("m", "v1", Path("m"), model, "127.0.0.1", 0, 0, 0.0, 30.0, config.Limits())
    service = Service(told, lambda exchange, render: None)
    forward = Forward(Signature(INPUT, OUTPUT, 0, None), lambda x: [x * 3 + 1], "cpu", 16)
    found: Mode = mode(Queue(Policy(16, WAITING)), forward, service.answered, service.expired)
    service.ready = Ready(
        mode=found,
        reader=Reader(INPUT, OUTPUT, True, 100),
        writer=Writer("m", "v1", OUTPUT),
        predictions=Predictions(INPUT, OUTPUT, True, 100),
        shown=Outputs(OUTPUT, (), True),
        rows_per_second=1e6,
        metadata=b"{}",
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


@pytest.mark.parametrize("mode", [Inline, Threaded])
async def test_no_answer_is_lost_or_another_ones(mode: type[Inline] | type[Threaded]) -> None:
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
    assert (service.metrics.requests, service.metrics.rows) == (seen, rows)
    assert (service.metrics.cancelled, service.metrics.in_flight) == (left, 0)


class Refusing(Writer):
    """A writer that cannot write one of the answers."""

    def write(self, plan: Plan, arrays: list[Any], receipt: bytes | None = None) -> tuple[bytes, bytes]:
        if arrays[0][0] == 3 * 7 + 1:
            raise KeyError("complex64")
        return super().write(plan, arrays, receipt)


@pytest.mark.parametrize("mode", [Inline, Threaded])
async def test_an_answer_that_cannot_be_written_fails_alone(
    mode: type[Inline] | type[Threaded], caplog: pytest.LogCaptureFixture
) -> None:
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
