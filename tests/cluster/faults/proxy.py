"""What does an API server do on its worst day? A proxy before a real one that does it on demand.

It stands between one operator and the API server, so that nobody else is hit. It logs in with the kubeconfig's
certificate and needs none itself. Whatever is injected is counted: a test asks whether its fault came to pass.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

from tests.cluster.kubectl import wait_until

_NOT_PASSED_ON = {"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "content-encoding"}


@dataclass
class Fault:
    """The next `times` requests of these verbs whose path holds `path` are answered with `status`, not carried out.

    `is_lost` instead carries them out and loses the answer: the connection breaks.
    """

    verbs: tuple[str, ...]
    path: str = "/"
    status: int = 500
    times: int = 1
    retry_after_s: int | None = None
    is_lost: bool = False
    on_watches: bool = False
    hits: int = 0

    def takes(self, request: web.Request, is_watch: bool) -> bool:
        """Whether this request is hit; counts it if so."""
        if self.times <= 0 or request.method not in self.verbs or self.path not in request.path:
            return False
        if self.on_watches != is_watch:
            return False
        self.times -= 1
        self.hits += 1
        return True


class Proxy:
    """Passes everything on, and injects what it was told to."""

    def __init__(self, kubeconfig: str, folder: Path) -> None:
        self._folder = folder
        self._server, self._tls = _login(Path(kubeconfig), folder)
        self._faults: list[Fault] = []
        self._watches: set[_Watch] = set()
        self._open = asyncio.Event()
        self._waiting = 0
        self._loop = asyncio.new_event_loop()
        self._port = 0

    @property
    def kubeconfig(self) -> str:
        """The path of a kubeconfig for those who shall go through the proxy."""
        path = self._folder / "kubeconfig"
        cluster = {"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{self._port}"}}
        context = {"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [cluster],
                    "users": [{"name": "proxy", "user": {}}],
                    "contexts": [context],
                    "current-context": "proxy",
                }
            )
        )
        return str(path)

    def inject(self, fault: Fault) -> Fault:
        """Arm `fault`; return it, for its count."""
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Disarm every fault."""
        self._faults.clear()

    def cut_watches(self) -> int:
        """Break every watch off in the middle; return how many there were."""
        return self._each_watch(_Watch.cut)

    def expire_watches(self) -> int:
        """End every watch with an ERROR event 410, as etcd's compaction does; return how many there were."""
        return self._each_watch(_Watch.expire)

    @contextmanager
    def watch_gap(self) -> Iterator[None]:
        """Nothing is heard inside the block, and what happened inside is never told: 410 for every watch after it."""
        self._loop.call_soon_threadsafe(self._open.clear)
        had = self.cut_watches()
        yield
        wait_until(f"{had} watches wait", lambda: self._waiting >= had)
        self._loop.call_soon_threadsafe(self._open.set)

    def _each_watch(self, act: Callable[[_Watch], None]) -> int:
        async def on_all() -> int:
            watches = list(self._watches)
            for watch in watches:
                act(watch)
            return len(watches)

        return asyncio.run_coroutine_threadsafe(on_all(), self._loop).result(timeout=10)

    async def _serve(self, started: threading.Event, stop: asyncio.Event) -> None:
        self._open.set()
        self._stop = stop
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        async with aiohttp.ClientSession(connector=connector, read_bufsize=2**20) as self._session:
            app = web.Application(client_max_size=2**24)
            app.router.add_route("*", "/{path:.*}", self._handle)
            runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self._port = runner.addresses[0][1]
            started.set()
            await stop.wait()
            for watch in self._watches:
                watch.cut()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        is_watch = request.query.get("watch") == "true"
        if is_watch and not self._open.is_set():
            self._waiting += 1
            try:
                await self._open.wait()
            finally:
                self._waiting -= 1
            return _status(410, "Expired", "too old resource version")
        fault = next((f for f in self._faults if f.takes(request, is_watch)), None)
        if fault is not None and not fault.is_lost:
            return _status(fault.status, "Injected", "injected by a test", fault.retry_after_s)
        try:
            return await self._pass_on(request, is_watch, is_lost=fault is not None)
        except (aiohttp.ClientError, OSError):
            _break(request)
            return web.Response(status=502)

    async def _pass_on(self, request: web.Request, is_watch: bool, *, is_lost: bool) -> web.StreamResponse:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _NOT_PASSED_ON}
        body = await request.read()
        async with self._session.request(
            request.method,
            self._server + str(request.rel_url),
            headers=headers,
            data=body or None,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        ) as answer:
            if is_watch and answer.status == 200:
                return await self._stream(request, answer)
            content = await answer.read()
            if is_lost:
                _break(request)
            passed = {k: v for k, v in answer.headers.items() if k.lower() not in _NOT_PASSED_ON}
            return web.Response(status=answer.status, body=content, headers=passed)

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        watch = _Watch(request, answer)
        self._watches.add(watch)
        try:
            async for line in answer.content:  # whole events: a line each
                await response.write(line)
        except aiohttp.ClientError:
            if not watch.is_expired:
                raise
        finally:
            self._watches.discard(watch)
        if watch.is_expired:
            await response.write(_EXPIRED)
        return response


class _Watch:
    """One open watch."""

    def __init__(self, request: web.Request, answer: aiohttp.ClientResponse) -> None:
        self._request = request
        self._answer = answer
        self.is_expired = False

    def cut(self) -> None:
        _break(self._request)

    def expire(self) -> None:
        self.is_expired = True
        self._answer.close()


_GONE = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410}
_EXPIRED = json.dumps({"type": "ERROR", "object": {**_GONE, "message": "too old resource version"}}).encode() + b"\n"


@contextmanager
def running(kubeconfig: str, folder: Path) -> Iterator[Proxy]:
    """A proxy before the API server of `kubeconfig`, in a thread of its own."""
    proxy = Proxy(kubeconfig, folder)
    started, stop = threading.Event(), asyncio.Event()

    def serve() -> None:
        asyncio.set_event_loop(proxy._loop)
        proxy._loop.run_until_complete(proxy._serve(started, stop))
        proxy._loop.run_until_complete(proxy._loop.shutdown_asyncgens())
        proxy._loop.close()

    thread = threading.Thread(target=serve, name="proxy")
    thread.start()
    assert started.wait(timeout=10), "the proxy does not start"
    try:
        yield proxy
    finally:
        proxy._loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=10)


def _break(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _status(code: int, reason: str, message: str, retry_after_s: int | None = None) -> web.Response:
    body = {**_GONE, "reason": reason, "code": code, "message": message}
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return web.json_response(body, status=code, headers=headers)


def _login(kubeconfig: Path, folder: Path) -> tuple[str, ssl.SSLContext]:
    """Return the server of the current context, and a TLS context that logs in there by certificate."""
    content = yaml.safe_load(kubeconfig.read_text())
    context = next(c["context"] for c in content["contexts"] if c["name"] == content["current-context"])
    cluster = next(c["cluster"] for c in content["clusters"] if c["name"] == context["cluster"])
    user = next(u["user"] for u in content["users"] if u["name"] == context["user"])
    pair = folder / "client.pem"
    pair.touch(mode=0o600)
    pair.write_bytes(b"".join(base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key")))
    tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    tls.load_cert_chain(pair)
    return cluster["server"], tls
