"""How does a replica live: bind, load, answer, drain, end?

    start      the ports are bound and `live` answers 200 before torch is imported; `ready` is 503
    ready      the model is loaded, tried out and warm
    SIGTERM    `ready` is 503 again, everything else goes on for DRAIN_DELAY_S, while endpoints forget this replica;
               answers already carry `Connection: close`, so that clients reconnect elsewhere in their own time
    then       the listener closes, idle connections are closed, admitted requests are answered; the admin port
               answers to the end
    end        exit 0, at the latest 5 s before the grace period is over; a second SIGTERM ends it at once

A replica whose GPU is lost answers 503, drains likewise and ends with 1: another process has the GPU again. One of
several engines that is lost, with its GPU or its process, ends the replica too, and the others answer while it drains:
a replica that goes on with a part of its GPUs would hold all of them, and be taken for a whole one.

Connections that are still idle when the delay is over have been idle all through it, so closing them hits no request.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import uvloop

from evenkeel_runtime import report
from evenkeel_runtime.config import ADMIN_PORT_ENV, AUTO, PORT_ENV, Serve
from evenkeel_runtime.contract import Failed
from evenkeel_runtime.engine import memory
from evenkeel_runtime.engine.batching import Policy, Queue
from evenkeel_runtime.engine.cuda import DeviceLost
from evenkeel_runtime.engine.forward import Forward
from evenkeel_runtime.engine.modes import INLINE, PROCESS, Inline, Mode, Threaded, mode_for
from evenkeel_runtime.engine.process import EngineLost, Remote
from evenkeel_runtime.engine.threads import stretch
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.receipts import Issuer, Origin, subject_of
from evenkeel_runtime.serve import engines, metadata
from evenkeel_runtime.serve.admin import Admin
from evenkeel_runtime.serve.answer import Writer
from evenkeel_runtime.serve.canary import Traffic
from evenkeel_runtime.serve.connections import Server
from evenkeel_runtime.serve.feedback import Feedback
from evenkeel_runtime.serve.loading import Running, load
from evenkeel_runtime.serve.metrics import Info
from evenkeel_runtime.serve.oip import Reader
from evenkeel_runtime.serve.ports import bound
from evenkeel_runtime.serve.prediction import prediction_of
from evenkeel_runtime.serve.protocol import FAILED, Exchange
from evenkeel_runtime.serve.receipts import Receipts
from evenkeel_runtime.serve.service import Ready, Rendered, Service
from evenkeel_runtime.serve.tracing import tracer_for
from evenkeel_runtime.serve.v1 import Predictions
from evenkeel_runtime.serve.views import Outputs

if TYPE_CHECKING:
    from evenkeel_runtime.serve.rpc import RpcServer

RESERVE_S = 5.0
"""How long before the kubelet's SIGKILL this process ends by itself."""
FAREWELL_S = 2.0
"""How long a replica that has answered everything may take to tell its last counts."""
_POLL_S = 0.01
_GEN0 = 50_000

log = logging.getLogger("evenkeel")


def serve(config: Serve) -> int:
    """Run the server to its end and return the exit status."""
    started = time.monotonic()
    replica = _Replica(config, started)
    status = uvloop.run(replica.run())
    logging.shutdown()
    if replica.is_loading or config.feedback is not None:
        os._exit(status)  # a thread may be inside torch's import, a forward or a post, which cannot be interrupted
    return status


class _Replica:
    def __init__(self, config: Serve, started: float) -> None:
        self._config = config
        self._started = started
        self._service = Service(config, aside)
        self._service.tracer = tracer_for(os.environ, config.name, config.version)
        self._feedback = None if config.feedback is None else Feedback(config.feedback)
        self._service.feedback = self._feedback
        service = self._service
        self._http = Server(service.handle, config.limits, service.metrics.reject_early, service.vital)
        self._rpc: RpcServer | None = None
        self._traffic = Traffic(self._service, None if config.feedback is None else config.feedback.key)
        if self._feedback is not None:
            self._feedback.pairs = self._traffic.pairs
        self._admin = Admin(self._service, self._traffic).http
        self._terminations = 0
        self._failure: Exception | None = None
        self._lost: DeviceLost | None = None
        self.is_loading = False

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._terminate, changed)
        self._service.on_lost = lambda error: self._lose(error, changed)
        host = self._config.host
        sock = bound(host, self._config.port, f"--port or {PORT_ENV}")
        listener = await loop.create_server(self._http.connection, sock=sock)
        port = listener.sockets[0].getsockname()[1]
        sock = bound(host, self._config.admin_port, f"--port, which it follows, or {ADMIN_PORT_ENV}")
        admin = await loop.create_server(self._admin.connection, sock=sock)
        admin_port = admin.sockets[0].getsockname()[1]
        log.info("listening host=%s port=%d admin_port=%d model=%s", host, port, admin_port, self._config.name)
        teller = None if self._feedback is None else loop.create_task(self._feedback.run())
        sweepers = [loop.create_task(self._http.sweep()), loop.create_task(self._admin.sweep())]
        self.is_loading = True
        threading.Thread(target=self._load, args=(loop, changed), name="load", daemon=True).start()
        try:
            if self._config.grpc_port is not None:
                await self._listen_for_rpc(self._config.grpc_port)
            await changed.wait()
        except ModelError as error:
            self._failure = error
        if self._failure is not None:
            failed = report.failed(self._failure)
            report.write(failed)
            log.error("failed reason=%s message=%s", failed.reason, failed.message)
            return 1
        await self._drain(listener)
        for sweeper in sweepers:
            sweeper.cancel()  # not before: a request whose client has fallen silent would hold the drain
        self._traffic.end()
        if self._feedback is not None and teller is not None:
            teller.cancel()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._feedback.push(), FAREWELL_S)
            self._feedback.end()
        if self._lost is not None:
            report.write(Failed(self._lost.reason, str(self._lost)))
            return 1
        return 0

    async def _listen_for_rpc(self, port: int) -> None:
        from evenkeel_runtime.serve.rpc import RpcServer

        self._rpc = RpcServer(self._service, self._config.limits)
        bound = await self._rpc.start(self._config.host, port)
        log.info("listening for gRPC host=%s port=%d", self._config.host, bound)

    @property
    def _unanswered(self) -> int:
        return self._http.exchanges + (self._rpc.calls if self._rpc else 0)

    def _terminate(self, changed: asyncio.Event) -> None:
        self._terminations += 1
        if self._terminations > 1:
            log.warning("second signal, ending now requests=%d", self._unanswered)
            logging.shutdown()
            os._exit(0 if not self._unanswered else 1)
        self._begin_to_drain(changed)

    def _lose(self, error: DeviceLost, changed: asyncio.Event) -> None:
        if self._lost is None:
            log.error("ending reason=%s message=%s", error.reason, error)
            self._lost = error
            self._begin_to_drain(changed)

    def _begin_to_drain(self, changed: asyncio.Event) -> None:
        self._service.is_draining = True
        self._service.metrics.is_ready = False
        self._http.is_closing = True
        changed.set()

    async def _drain(self, listener: asyncio.AbstractServer) -> None:
        loop = asyncio.get_running_loop()
        reserve_s = RESERVE_S if self._feedback is None else RESERVE_S + FAREWELL_S
        until = loop.time() + max(0.0, self._config.grace_period_s - reserve_s)
        log.info("draining delay_s=%g requests=%d", self._config.drain_delay_s, self._unanswered)
        if self._service.ready is not None:
            await asyncio.sleep(min(self._config.drain_delay_s, max(0.0, until - loop.time())))
        listener.close()
        self._http.close_idle()
        calls = asyncio.ensure_future(self._rpc.stop(max(0.0, until - loop.time()))) if self._rpc else None
        while self._http.connections and loop.time() < until:
            await asyncio.sleep(_POLL_S)
            if not self._http.exchanges:
                self._http.close_idle()
        if calls is not None:
            await calls
        if self._service.tracer is not None:
            await loop.run_in_executor(None, self._service.tracer.stop)
        log.info("drained unanswered=%d", self._unanswered)

    def _load(self, loop: asyncio.AbstractEventLoop, changed: asyncio.Event) -> None:
        """Load in a thread of its own. A failure ends the server; whether it still listens then does not matter."""
        try:
            config = self._config
            asked = config.path, config.model, config.limits.batch_rows
            count = engines.count_of(config.engines)
            several: tuple[Remote, ...] = ()
            if count == 1:
                running = load(*asked, is_fetched=config.is_fetched)
            else:
                running, several = engines.load(count, *asked)
            loop.call_soon_threadsafe(self._try_to_become_ready, running, several, loop, changed)
        except Exception as error:  # noqa: BLE001 - whatever the file or the model raises goes to the termination message
            self._fail(loop, changed, error)

    def _fail(self, loop: asyncio.AbstractEventLoop, changed: asyncio.Event, error: Exception) -> None:
        self._failure = error
        try:
            loop.call_soon_threadsafe(changed.set)
        except RuntimeError:
            return  # the loop has ended before the load did

    def _try_to_become_ready(
        self,
        running: Running,
        several: Sequence[Remote],
        loop: asyncio.AbstractEventLoop,
        changed: asyncio.Event,
    ) -> None:
        def lose(error: EngineLost) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended before the engine did
                loop.call_soon_threadsafe(self._lose, error, changed)

        try:
            self._become_ready(running, several)
            engines.watch(several, lose)
        except Exception as error:  # noqa: BLE001 - else the loop logs it, and the replica says for ever that it loads
            self._fail(loop, changed, error)

    def _become_ready(self, running: Running, several: Sequence[Remote] = ()) -> None:
        config, service, found = self._config, self._service, running.calibrated
        signature = running.loaded.signature
        has_batch = signature.batch is not None
        queue = Queue(Policy(found.max_rows, config.limits.queued_rows, config.limits.queued_bytes))
        rows = min(signature.batch or config.limits.rows, config.limits.rows) if has_batch else 1
        most_rows = config.limits.rows if found.max_rows else rows  # what cannot be cut may have no more than a call
        hear = service.answered, service.expired
        mode: Mode
        if several:
            name, mode = PROCESS, Threaded(queue, several, *hear)
        else:
            forward = Forward(signature, found.call, running.loaded.device, found.max_rows)
            name = mode_for(found.forward_s, found.largest_s(rows), running.loaded.device)
            mode = Inline(queue, forward, *hear) if name == INLINE else Threaded(queue, (forward,), *hear)
        count = max(1, len(several))
        parameters: dict[str, object] = {
            "execution_mode": name,
            "engines": count,
            "max_batch_size": max(1, found.max_rows),
            "call_path": found.path,
            "threads": found.threads,
            "device": running.loaded.device,
            "sha256": running.sha256,
            **({"classes": signature.classes} if signature.classes else {}),
            "precision": running.loaded.precision or config.model.precision,
            **({} if found.difference is None else {"difference_to_fp32": found.difference}),
            **({"not_batched": found.apart} if found.apart else {}),
            **running.loaded.parameters,
        }
        receipts = self._receipts(running)
        asked = (
            signature.inputs, signature.outputs, has_batch, most_rows, signature.dimensions, signature.way_out
        )  # fmt: skip
        service.ready = Ready(
            mode=mode,
            reader=Reader(*asked),
            writer=Writer(config.name, config.version, signature.outputs, signature.classes, has_batch),
            predictions=Predictions(*asked),
            shown=Outputs(signature.outputs, signature.classes, has_batch),
            rows_per_second=found.rows_per_second * count,
            metadata=metadata.of_model(
                config.name,
                config.version,
                running.loaded.platform,
                signature.inputs,
                signature.outputs,
                parameters,
            ),
            configuration=metadata.configuration_of(
                config.name, running.loaded.platform, signature.inputs, signature.outputs, most_rows * has_batch
            ),
            receipts=receipts,
        )
        load_s = time.monotonic() - self._started
        metrics = service.metrics
        metrics.load_s = service.signals.load_s = load_s
        metrics.difference = found.difference
        slower = stretch(found.threads * count)
        service.signals.profile = tuple((rows, seconds * slower) for rows, seconds in found.profile)
        service.signals.max_rows = found.max_rows
        service.signals.engines = several
        metrics.info = Info(running.loaded.format, running.sha256, name, max(1, found.max_rows), running.torch_version)
        gc.collect()
        gc.freeze()
        memory.give_back()
        gc.set_threshold(_GEN0, 20, 100)
        metrics.is_ready = not service.is_draining
        self.is_loading = False
        log.info(
            "ready model=%s format=%s mode=%s engines=%d max_batch=%d threads=%d call=%s forward_us=%s load_s=%.2f",
            config.name, running.loaded.format, name, count, found.max_rows, found.threads, found.path,
            "unknown" if found.forward_s is None else f"{found.forward_s * 1e6:.0f}", load_s,
        )  # fmt: skip
        if config.model.precision not in (AUTO, running.loaded.precision or AUTO):
            log.warning(
                "computed in %s, as its file says, and not in %s", running.loaded.precision, config.model.precision
            )
        if found.apart:
            level = logging.INFO if found.max_rows else logging.WARNING
            log.log(level, "requests do not share a call: %s", found.apart)

    def _receipts(self, running: Running) -> Receipts | None:
        told, loaded = self._config.feedback, running.loaded
        if told is None or self._feedback is None:
            return None
        prediction = prediction_of(loaded.signature, loaded.parameters)
        if prediction is None:
            log.warning("answers carry no receipts: the model's file does not say what it predicts")
            return None
        origin = Origin(
            told.key_id, subject_of(told.uid), self._config.version, prediction.classes, bool(prediction.told_names)
        )
        receipts = Receipts(Issuer(told.key, origin), prediction)
        self._feedback.use(receipts)
        return receipts


def aside(exchange: Exchange, render: Callable[[], Rendered]) -> None:
    """Render in a thread: a scrape of the metrics delays no request."""

    def answer(done: asyncio.Future[Rendered]) -> None:
        if done.cancelled():
            return
        if (error := done.exception()) is None:
            exchange.respond(*done.result())
        else:
            log.error("failed path=%s", exchange.path[:200], exc_info=error)
            exchange.fail(500, FAILED)

    asyncio.get_running_loop().run_in_executor(None, render).add_done_callback(answer)
