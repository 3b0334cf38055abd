"""How does a replica live: bind, load, answer, drain, end?

    start      the port is bound and `live` answers 200 before torch is imported; `ready` is 503
    ready      the model is loaded, tried out and warm
    SIGTERM    `ready` is 503 again, everything else goes on for DRAIN_DELAY_S, while endpoints forget this replica;
               answers already carry `Connection: close`, so that clients reconnect elsewhere in their own time
    then       the listener closes, idle connections are closed, admitted requests are answered
    end        exit 0, at the latest 5 s before the grace period is over; a second SIGTERM ends it at once

Connections that are still idle when the delay is over have been idle all through it, so closing them hits no request.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable

import uvloop

from evenkeel_runtime import report
from evenkeel_runtime.config import Serve
from evenkeel_runtime.engine.batching import Policy, Queue
from evenkeel_runtime.engine.forward import Forward
from evenkeel_runtime.engine.modes import INLINE, Inline, Mode, Threaded, mode_for
from evenkeel_runtime.serve.answer import Writer
from evenkeel_runtime.serve.loading import Running, load
from evenkeel_runtime.serve.metrics import CONTENT_TYPE, Info
from evenkeel_runtime.serve.oip import Reader
from evenkeel_runtime.serve.protocol import Exchange, Server
from evenkeel_runtime.serve.service import Ready, Service, metadata
from evenkeel_runtime.serve.v1 import Predictions

RESERVE_S = 5.0
"""How long before the kubelet's SIGKILL this process ends by itself."""
_POLL_S = 0.01
_GEN0 = 50_000

log = logging.getLogger("evenkeel")


def serve(config: Serve) -> int:
    """Run the server to its end and return the exit status."""
    started = time.monotonic()
    replica = _Replica(config, started)
    status = uvloop.run(replica.run())
    logging.shutdown()
    if replica.is_loading:
        os._exit(status)  # a thread is inside torch's import or a forward, which cannot be interrupted
    return status


class _Replica:
    def __init__(self, config: Serve, started: float) -> None:
        self._config = config
        self._started = started
        self._service = Service(config, self._render)
        self._http = Server(self._service.handle, config.limits, self._service.metrics.reject_early)
        self._terminations = 0
        self._failure: Exception | None = None
        self.is_loading = False

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._terminate, changed)
        listener = await loop.create_server(self._http.connection, sock=_bound(self._config.host, self._config.port))
        port = listener.sockets[0].getsockname()[1]
        log.info("listening host=%s port=%d model=%s", self._config.host, port, self._config.name)
        sweeper = loop.create_task(self._http.sweep())
        self.is_loading = True
        threading.Thread(target=self._load, args=(loop, changed), name="load", daemon=True).start()
        await changed.wait()
        sweeper.cancel()
        if self._failure is not None:
            failed = report.failed(self._failure)
            report.write(failed)
            log.error("failed reason=%s message=%s", failed.reason, failed.message)
            return 1
        await self._drain(listener)
        return 0

    def _terminate(self, changed: asyncio.Event) -> None:
        self._terminations += 1
        if self._terminations > 1:
            log.warning("second signal, ending now requests=%d", self._http.exchanges)
            logging.shutdown()
            os._exit(0 if not self._http.exchanges else 1)
        self._service.is_draining = True
        self._service.metrics.is_ready = False
        self._http.is_closing = True
        changed.set()

    async def _drain(self, listener: asyncio.AbstractServer) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + max(0.0, self._config.grace_period_s - RESERVE_S)
        log.info("draining delay_s=%g requests=%d", self._config.drain_delay_s, self._http.exchanges)
        if self._service.ready is not None:
            await asyncio.sleep(min(self._config.drain_delay_s, max(0.0, until - loop.time())))
        listener.close()
        self._http.close_idle()
        while self._http.connections and loop.time() < until:
            await asyncio.sleep(_POLL_S)
            if not self._http.exchanges:
                self._http.close_idle()
        log.info("drained unanswered=%d", self._http.exchanges)

    def _load(self, loop: asyncio.AbstractEventLoop, changed: asyncio.Event) -> None:
        """Load in a thread of its own. A failure ends the server; whether it still listens then does not matter."""
        try:
            running = load(self._config.path, self._config.model, self._config.limits.batch_rows)
            loop.call_soon_threadsafe(self._become_ready, running)
        except Exception as error:  # noqa: BLE001 - whatever the file or the model raises goes to the termination message
            self._fail(loop, changed, error)

    def _fail(self, loop: asyncio.AbstractEventLoop, changed: asyncio.Event, error: Exception) -> None:
        self._failure = error
        try:
            loop.call_soon_threadsafe(changed.set)
        except RuntimeError:
            return  # the loop has ended before the load did

    def _become_ready(self, running: Running) -> None:
        config, service, found = self._config, self._service, running.calibrated
        signature = running.loaded.signature
        forward = Forward(signature, found.call, running.loaded.device, found.max_rows)
        queue = Queue(Policy(found.max_rows, config.limits.queued_rows))
        name = mode_for(found.forward_s, running.loaded.device)
        kind: Callable[..., Mode] = Inline if name == INLINE else Threaded
        mode = kind(queue, forward, service.answered, service.expired)
        parameters: dict[str, object] = {
            "execution_mode": name,
            "max_batch_size": max(1, found.max_rows),
            "call_path": found.path,
            "threads": found.threads,
            "device": running.loaded.device,
            "sha256": running.sha256,
            "precision": config.model.precision,
            **({} if found.difference is None else {"difference_to_fp32": found.difference}),
            **running.loaded.parameters,
        }
        service.ready = Ready(
            mode=mode,
            reader=Reader(signature.inputs, signature.outputs, signature.batch is not None, config.limits.rows),
            writer=Writer(config.name, config.version, signature.outputs),
            predictions=Predictions(
                signature.inputs, signature.outputs, signature.batch is not None, config.limits.rows
            ),
            rows_per_second=found.rows_per_second,
            metadata=metadata(
                config.name,
                config.version,
                running.loaded.platform,
                signature.inputs,
                signature.outputs,
                parameters,
            ),
        )
        load_s = time.monotonic() - self._started
        metrics = service.metrics
        metrics.load_s = load_s
        metrics.difference = found.difference
        metrics.info = Info(running.loaded.format, running.sha256, name, max(1, found.max_rows), running.torch_version)
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GEN0, 20, 100)
        metrics.is_ready = not service.is_draining
        self.is_loading = False
        log.info(
            "ready model=%s format=%s mode=%s max_batch=%d threads=%d call=%s forward_us=%s load_s=%.2f",
            config.name, running.loaded.format, name, found.max_rows, found.threads, found.path,
            "unknown" if found.forward_s is None else f"{found.forward_s * 1e6:.0f}", load_s,
        )  # fmt: skip

    def _render(self, exchange: Exchange, render: Callable[[], bytes]) -> None:
        """Render the metrics in a thread: a scrape delays no request."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(None, render)
        future.add_done_callback(lambda done: exchange.respond(200, CONTENT_TYPE, done.result()))


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    sock.listen(1024)
    return sock
