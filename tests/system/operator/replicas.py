"""Who answers on the admin ports of a test's replicas? Real HTTP, a loopback address for each pod."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from evenkeel_runtime.contract import DIRECTIVES_PATH, SIGNALS_PATH, Canary
from evenkeel_runtime.serve.directives import BadDirective, Directive, Listener, read
from evenkeel_runtime.serve.signals import Signals
from evenkeel_runtime.serve.tally import Tally

Object = dict[str, Any]
Answer = Callable[[web.Request, "FakeReplica"], Awaitable[web.StreamResponse]]


class FakeReplica:
    """One replica: the runtime's own counters, advanced by its load; `answer` may be one that lies.

    With its ModelDeployment's `key` it follows what it is told of a canary, and counts what it sends there.
    """

    def __init__(
        self,
        address: str,
        rate: Callable[[], float],
        *,
        latency_s: float,
        batch_s: float,
        key: bytes | None = None,
    ) -> None:
        self.address = address
        self.key = key
        self.canary: Canary | None = None
        self.moment_ms = 0
        self.followed: list[Directive] = []
        """The directives that speak of a canary."""
        self.signals = Signals()
        self.signals.profile = ((1, batch_s), (8, 8 * batch_s))
        self.signals.max_rows = 8
        self.answer: Answer = honest
        self.received: list[Object] = []
        self.asked = 0
        self._rate, self._latency_s, self._batch_s = rate, latency_s, batch_s
        self._until = asyncio.get_running_loop().time()
        self._owed = self._canarys = 0.0
        self._tally: Tally | None = None
        self._canary_until = 0.0

    @property
    def canary_left_s(self) -> float:
        """For how long it goes on with the canary by itself."""
        return max(0.0, self._canary_until - asyncio.get_running_loop().time())

    def listens(self) -> Listener:
        """Return who is told."""
        return Listener(self.signals.boot, self.key, self.moment_ms)

    def follow(self, directive: Directive) -> None:
        """Do what a directive says."""
        self.signals.follow(directive)
        self.moment_ms = directive.moment_ms or self.moment_ms
        if not directive.says_canary:
            return
        self.followed.append(directive)
        self.canary = directive.canary
        self.forget(0.0 if self.canary is None else self.canary.expires_s)
        if self.canary is not None and (self._tally is None or self._tally.revision != self.canary.revision):
            self._tally = Tally(self.canary.revision, self.signals.target_s)

    def forget(self, after_s: float) -> None:
        """Go on with the canary for so long."""
        self._canary_until = asyncio.get_running_loop().time() + after_s

    def told(self) -> Object | None:
        """Return what the signals show of a canary, None where there never was one."""
        if self._tally is None:
            return None
        return self._tally.told() | {"expiresSeconds": self.canary_left_s, "momentMillis": self.moment_ms}

    def catch_up(self) -> None:
        """Have served what came since the last time."""
        now = asyncio.get_running_loop().time()
        self._owed += self._rate() * (now - self._until)
        self._until = now
        while self._owed >= 1.0:
            self._owed -= 1.0
            self.signals.arrivals += 1
            self.signals.arrived_rows += 1
            if self._goes_to_the_canary():
                continue
            self.signals.latency.observe(self._latency_s)
            self.signals.batch(1, self._batch_s)

    def _goes_to_the_canary(self) -> bool:
        if self.canary is None or self._tally is None or not self.canary_left_s:
            return False
        self._canarys += self.canary.share
        if self._canarys < 1.0:
            self._tally.beside.end(self._latency_s, self.signals.target_s, has_failed=False)
            return False
        self._canarys -= 1.0
        arm = self._tally.arms[self.canary.mode]
        arm.sent += 1
        arm.answered += 1
        arm.latency.observe(self._latency_s)
        return True


async def honest(request: web.Request, replica: FakeReplica) -> web.StreamResponse:
    """Answer as the runtime does."""
    replica.catch_up()
    body = replica.signals.render(None, 0, True, replica.told())
    return web.Response(body=body, content_type="application/json")


class FakeReplicas:
    """Every replica of a test, behind one listener on all of loopback; `rate` requests per second, spread evenly."""

    def __init__(self, *, latency_s: float = 0.02, batch_s: float = 0.01) -> None:
        self.rate = 0.0
        self.port = 0
        self.key: bytes | None = None
        """The key of the ModelDeployment whose replicas start."""
        self.refused: list[BadDirective] = []
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
            address,
            lambda: self.rate / max(1, len(self.known)),
            latency_s=self._latency_s,
            batch_s=self._batch_s,
            key=self.key,
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
        replica.received.append(json.loads(body))
        headers = {name.lower().encode(): value.encode() for name, value in request.headers.items()}
        try:
            replica.follow(read(body, headers, replica.listens()))
        except BadDirective as e:
            self.refused.append(e)
            return web.json_response({"error": e.message}, status=e.status)
        return web.json_response({"generation": replica.signals.generation})

    def _asked(self, request: web.Request) -> FakeReplica:
        assert request.transport is not None, "connected"
        address = request.transport.get_extra_info("sockname")[0]
        if (found := self.known.get(address)) is None:
            raise web.HTTPServiceUnavailable
        return found
