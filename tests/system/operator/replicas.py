"""Who answers on the admin ports of a test's replicas? Real HTTP, a loopback address for each pod."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from evenkeel_runtime.contract import DIRECTIVES_PATH, SIGNALS_PATH
from evenkeel_runtime.serve.directives import Listener, read
from evenkeel_runtime.serve.signals import Signals

Object = dict[str, Any]
Answer = Callable[[web.Request, "FakeReplica"], Awaitable[web.StreamResponse]]


class FakeReplica:
    """One replica: the runtime's own counters, advanced by its load; `answer` may be one that lies."""

    def __init__(self, address: str, rate: Callable[[], float], *, latency_s: float, batch_s: float) -> None:
        self.address = address
        self.signals = Signals()
        self.signals.profile = ((1, batch_s), (8, 8 * batch_s))
        self.signals.max_rows = 8
        self.answer: Answer = honest
        self.told: list[Object] = []
        self.asked = 0
        self._rate, self._latency_s, self._batch_s = rate, latency_s, batch_s
        self._until = asyncio.get_running_loop().time()
        self._owed = 0.0

    def catch_up(self) -> None:
        """Have served what came since the last time."""
        now = asyncio.get_running_loop().time()
        self._owed += self._rate() * (now - self._until)
        self._until = now
        while self._owed >= 1.0:
            self._owed -= 1.0
            self.signals.arrivals += 1
            self.signals.arrived_rows += 1
            self.signals.latency.observe(self._latency_s)
            self.signals.batch(1, self._batch_s)


async def honest(request: web.Request, replica: FakeReplica) -> web.StreamResponse:
    """Answer as the runtime does."""
    replica.catch_up()
    return web.Response(body=replica.signals.render(None, 0, True), content_type="application/json")


class FakeReplicas:
    """Every replica of a test, behind one listener on all of loopback; `rate` requests per second, spread evenly."""

    def __init__(self, *, latency_s: float = 0.02, batch_s: float = 0.01) -> None:
        self.rate = 0.0
        self.port = 0
        self.known: dict[str, FakeReplica] = {}
        self.answer: Answer = honest
        self._latency_s, self._batch_s = latency_s, batch_s
        self._numbers = itertools.count(2)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> FakeReplicas:
        app = web.Application()
        app.add_routes([web.get(SIGNALS_PATH, self._signals), web.post(DIRECTIVES_PATH, self._directives)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "0.0.0.0", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None, "entered"
        await self._runner.cleanup()

    def start(self) -> str:
        """Return the address of a replica that starts now."""
        number = next(self._numbers)
        address = f"127.1.{number // 250}.{number % 250 + 1}"
        self.known[address] = FakeReplica(
            address, lambda: self.rate / max(1, len(self.known)), latency_s=self._latency_s, batch_s=self._batch_s
        )
        return address

    def stop(self, address: str) -> None:
        """End a replica: its requests go to the others."""
        self.known.pop(address, None)

    async def _signals(self, request: web.Request) -> web.StreamResponse:
        replica = self._asked(request)
        replica.asked += 1
        answer = self.answer if replica.answer is honest else replica.answer
        return await answer(request, replica)

    async def _directives(self, request: web.Request) -> web.Response:
        replica, body = self._asked(request), await request.read()
        replica.told.append(json.loads(body))
        replica.signals.follow(read(body, {}, Listener(replica.signals.boot, None)))
        return web.json_response({"generation": replica.signals.generation})

    def _asked(self, request: web.Request) -> FakeReplica:
        assert request.transport is not None, "connected"
        address = request.transport.get_extra_info("sockname")[0]
        if (found := self.known.get(address)) is None:
            raise web.HTTPServiceUnavailable
        return found
