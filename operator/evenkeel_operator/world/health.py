"""Is this process alive, and may a rollout of the operator go on? Plain HTTP for the kubelet and for Prometheus.

Alive is judged by our own heart beats, not by the event loop alone: a watch that died in silence or a worker that
hangs leaves the loop turning. Ready is also a standby without the Lease: during `helm upgrade` the new pod must become
ready before the old one, which holds the Lease, is stopped.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable

from aiohttp import web

from evenkeel_operator.world import metrics

Probe = Callable[[], Iterable[str]]
"""Returns what is wrong; nothing when all is well."""


class Health:
    """Serves /healthz, /readyz and /metrics."""

    def __init__(self, *, alive: Probe, ready: Probe, standing: Callable[[], str]) -> None:
        self._alive = alive
        self._ready = ready
        self._standing = standing
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, port: int) -> None:
        """Listen on `port`, on any free one where that is 0; raises OSError when it is taken."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        listener = _listener(port)
        await web.SockSite(self._runner, listener).start()
        self.port = listener.getsockname()[1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return self._answer(self._alive())

    async def _readyz(self, _: web.Request) -> web.Response:
        return self._answer(self._ready())

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4"})

    def _answer(self, wrong: Iterable[str]) -> web.Response:
        if found := list(wrong):
            return web.Response(status=503, text="\n".join(found) + "\n")
        return web.Response(text=f"ok {self._standing()}\n")


def _listener(port: int) -> socket.socket:
    """Return a socket that listens on every address, of IPv4 and IPv6 where there is both."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))
