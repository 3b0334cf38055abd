"""What happens to a request between the socket and the model, and what does each address answer?"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import orjson

from evenkeel_runtime.config import Serve
from evenkeel_runtime.engine.batching import Batch, Work, retry_after_s
from evenkeel_runtime.engine.cuda import DeviceLost
from evenkeel_runtime.failure import last_line
from evenkeel_runtime.models.loaded import BadInput
from evenkeel_runtime.serve import stacks
from evenkeel_runtime.serve.answer import Writer
from evenkeel_runtime.serve.body import BadRequest
from evenkeel_runtime.serve.encoding import decode
from evenkeel_runtime.serve.headers import Told, told_by
from evenkeel_runtime.serve.metadata import of_server
from evenkeel_runtime.serve.metrics import CONTENT_TYPE, Metrics
from evenkeel_runtime.serve.oip import Reader
from evenkeel_runtime.serve.protocol import Exchange
from evenkeel_runtime.serve.signals import Signals
from evenkeel_runtime.serve.tally import is_failure
from evenkeel_runtime.serve.timings import Timings
from evenkeel_runtime.serve.tracing import Stay, Tracer
from evenkeel_runtime.serve.v1 import Predictions

if TYPE_CHECKING:
    from evenkeel_runtime.engine.forward import Answers
    from evenkeel_runtime.engine.modes import Mode
    from evenkeel_runtime.serve.caller import Caller, Form
    from evenkeel_runtime.serve.canary import Canary
    from evenkeel_runtime.serve.feedback import Feedback
    from evenkeel_runtime.serve.oip import Asked
    from evenkeel_runtime.serve.receipts import Receipts
    from evenkeel_runtime.serve.views import Outputs

JSON = b"application/json"
FEEDBACK_PATH = b"/v1/feedback"
LOADING = "the model is still loading"

_VITAL = (b"/", b"/v2/health/live", b"/v2/health/ready", b"/health", b"/healthz", b"/ping", b"/metrics")

Rendered = tuple[int, bytes, bytes]
"""An answer's status, content type and body."""

log = logging.getLogger("evenkeel")


@dataclass(frozen=True, slots=True)
class Ready:
    """A model that can be asked, and the words that requests and answers need for it."""

    mode: Mode
    reader: Reader
    writer: Writer
    predictions: Predictions
    shown: Outputs
    rows_per_second: float
    metadata: bytes
    configuration: dict[str, Any]
    receipts: Receipts | None = None


class Service:
    """The state of one replica, and the handler of its requests."""

    def __init__(self, config: Serve, aside: Callable[[Exchange, Callable[[], Rendered]], None]) -> None:
        """`aside` answers with what a function returns that takes its time, without holding up others."""
        self.name, self.version = config.name, config.version
        self.metrics = Metrics(config.name, config.version, has_triton_names=config.has_triton_metrics)
        self.tracer: Tracer | None = None
        self.signals = Signals()
        self.timings = Timings(self.metrics, self.signals)
        self.ready: Ready | None = None
        self.is_draining = False
        self.on_lost: Callable[[DeviceLost], None] | None = None
        self.feedback: Feedback | None = None
        self.canary: Canary | None = None
        self._aside = aside
        self._most_bytes = config.limits.body_bytes
        self._alone: object = None
        """The connection that was answered last, if nobody else was with it: when it asks again, it is likely the only
        one that does, and nobody has to be waited for."""
        self._infer_paths = {
            f"/v2/models/{config.name}/infer".encode(),
            f"/v2/models/{config.name}/versions/{config.version}/infer".encode(),
        }
        self._predict_path = f"/v1/models/{config.name}:predict".encode()
        self.vital = frozenset(
            (*_VITAL, f"/v1/models/{config.name}".encode(), f"/v2/models/{config.name}/ready".encode())
        )
        """What whoever watches over replicas asks, of a full one too."""
        self._static: dict[bytes, Callable[[Exchange], None]] = {
            b"/": self._alive,
            b"/v2": self._server_metadata,
            b"/v2/health/live": self._live,
            b"/v2/health/ready": self._health,
            b"/health": self._health,
            b"/healthz": self._live,
            b"/ping": self._health,
            b"/metrics": self._metrics,
            b"/v1/models": self._v1_models,
            f"/v1/models/{config.name}".encode(): self._v1_model,
            **({stacks.PATH.encode(): self._profile} if config.takes_profiles else {}),
        }

    def handle(self, exchange: Exchange) -> None:
        if (told := exchange.head.told) is not None:  # the same head came before, and asked for an inference
            self.infer(exchange, is_v1=told.is_v1)
            return
        path = exchange.path.partition(b"?")[0]
        if path in self._infer_paths or path == self._predict_path:
            if exchange.method != b"POST":
                self._error(exchange, 405, f"{_text(path)} takes POST", b"allow: POST\r\n")
                return
            self.infer(exchange, is_v1=path == self._predict_path)
            return
        if path == FEEDBACK_PATH:
            self._pass_on(exchange)
            return
        handler = self._static.get(path.rstrip(b"/") or path)
        if handler is None:
            route = self._v1_route if path.startswith(b"/v1/models/") else self._model_route
            route(exchange, unquote(_text(path)))
        elif exchange.method in (b"GET", b"HEAD"):
            handler(exchange)
        else:
            self._error(exchange, 405, f"{_text(path)} takes GET", b"allow: GET, HEAD\r\n")

    # inference

    def infer(
        self, exchange: Exchange, *, is_v1: bool = False, since: float | None = None, plain: bytes | None = None
    ) -> None:
        """Answer, or let the canary answer. `since` is when a request arrived that the canary has had, and lost;
        `plain` is the body of one that came compressed."""
        begun = time.perf_counter()
        ready = self.ready
        if ready is None:
            self.reject(exchange, 503, "not_ready", LOADING, b"retry-after: 1\r\n", begun)
            return
        if self.canary is not None and since is None and plain is None and self.canary.takes(exchange, begun):
            return
        head, body = exchange.head, exchange.body if plain is None else plain
        at_once = head.told is not None and exchange.connection is self._alone and since is None
        try:
            told: Told = head.told or told_by(exchange.headers, is_v1)
            if told.is_compressed and plain is None:
                self._decode(exchange, is_v1, since, begun)
                return
            asked = ready.predictions.read(body) if is_v1 else ready.reader.read(body, told.json_bytes)
        except BadRequest as error:
            self.reject(exchange, error.status, "invalid", error.message, b"", begun)
            return
        head.told = told
        exchange.body = b""  # `asked` holds what was read; as JSON, 32 requests fill the cache
        form = ready.predictions if is_v1 else ready.writer
        deadline = None if told.waits_s is None else told.waits_s + (begun if since is None else since)
        self.admit(ready, exchange, asked, form, begun, deadline, len(body), at_once=at_once)

    def _decode(self, exchange: Exchange, is_v1: bool, since: float | None, begun: float) -> None:
        decode(
            exchange,
            self._most_bytes,
            lambda plain: self.infer(exchange, is_v1=is_v1, since=since, plain=plain),
            lambda error: self.reject(exchange, error.status, "invalid", error.message, b"", begun),
        )

    def admit(
        self,
        ready: Ready,
        caller: Caller,
        asked: Asked,
        form: Form,
        begun: float,
        deadline: float | None,
        size: int,
        *,
        at_once: bool = False,
    ) -> None:
        """Let a request that was read, from a body of `size` bytes, wait for the model, or send it away."""
        asked.caller, asked.form, asked.begun = caller, form, begun
        plan = asked.plan
        signals = self.signals
        signals.arrivals += 1
        signals.arrived_rows += plan.rows
        signals.arrived_square_rows += plan.rows * plan.rows
        work = Work(plan.rows, plan.kind, asked, deadline, size)
        queue = ready.mode.queue
        if not queue.admit(work, time.perf_counter()):
            wait = retry_after_s(queue.rows, ready.rows_per_second)
            message = f"the queue is full ({queue.rows} rows wait, {queue.bytes} bytes)"
            signals.rejected += 1
            self.reject(caller, 429, "queue_full", message, b"retry-after: %d\r\n" % wait, begun)
            return
        self.metrics.in_flight += 1
        caller.abandoned = lambda: self._abandoned(work)
        ready.mode.wake(at_once=at_once)

    def answered(self, batch: Batch, answers: Answers | Exception, began: float, took: float) -> None:
        """Write each request its own rows. What is counted is counted behind that: a client waits for none of it."""
        metrics, timings, tracer = self.metrics, self.timings, self.tracer
        finished = began + took
        receipts = None if self.ready is None else self.ready.receipts
        now = time.perf_counter()
        for index, work in enumerate(batch.works):
            if work.cancelled:
                continue
            metrics.in_flight -= 1
            asked: Asked = work.payload
            caller = asked.caller
            answer = answers if isinstance(answers, Exception) else answers[index]
            if isinstance(answer, Exception):
                self._failed(work, answer, began, finished)
                continue
            start = now
            try:
                receipt = None if receipts is None else receipts.issue(answer, caller.headers, caller.assignment)
                head, body = asked.form.write(asked.plan, answer, receipt)
            except Exception as error:  # noqa: BLE001 - a model may answer anything, and others wait for theirs
                self._failed(work, error, began, finished, "the model's answer cannot be written")
                continue
            caller.respond_head(head, body)
            now = time.perf_counter()
            metrics.rows += work.rows
            within_s = caller.within_s
            timings.moments += (caller.succeeded, asked.begun, work.admitted, began, finished, start, now, within_s)
            if tracer is not None:
                stay = Stay(work.admitted, began, finished, batch.rows)
                tracer.record(caller.trace, caller.protocol, caller.succeeded, asked.begun, now, stay)
        self._alone = batch.works[0].payload.caller.connection if len(batch.works) == 1 else None
        if timings.is_full:
            timings.bin()
        metrics.batch_rows.observe(batch.rows)
        metrics.compute.observe(took, len(batch.works))
        self.signals.batch(batch.rows, time.perf_counter() - began)

    def _failed(
        self, work: Work, why: Exception, began: float, finished: float, what: str = "the model failed"
    ) -> None:
        caller, begun = work.payload.caller, work.payload.begun
        self.metrics.preprocess.observe(work.admitted - begun)
        self.metrics.queue.observe(began - work.admitted)
        self.metrics.predict.observe(finished - work.admitted)
        if isinstance(why, BadInput):
            return self.reject(caller, 400, "invalid", f"inputs: {why}", b"", begun)
        if isinstance(why, DeviceLost) and self.on_lost is not None:
            self.on_lost(why)
            return self.reject(caller, 503, "device_lost", f"{why}; try again", b"retry-after: 1\r\n", begun)
        self.signals.failed += 1
        where = f" traceparent={caller.trace.parent}" if caller.trace else ""
        log.error("%s rows=%d error=%s%s", what, work.rows, last_line(why), where)
        self._error(caller, 500, f"{what}: {last_line(why)}", code_since=begun)

    def expired(self, work: Work) -> None:
        caller, begun = work.payload.caller, work.payload.begun
        self.metrics.in_flight -= 1
        self.metrics.preprocess.observe(work.admitted - begun)
        self.metrics.reject("deadline")
        self.signals.rejected += 1
        self._error(caller, 504, "the request's time was over before its turn came", code_since=begun)

    def _abandoned(self, work: Work) -> None:
        if not work.cancelled and self.ready is not None:
            caller, begun = work.payload.caller, work.payload.begun
            self.metrics.preprocess.observe(work.admitted - begun)
            self.ready.mode.queue.cancel(work)
            self.metrics.in_flight -= 1
            self.metrics.cancelled += 1
            # Who gives up has waited for so long at least: where all do after a second, only what was fast is answered.
            waited_s = time.perf_counter() - begun
            self.signals.latency.observe(waited_s)
            self.metrics.end_beside(caller.within_s, waited_s, has_failed=False)

    # feedback

    def _pass_on(self, exchange: Exchange) -> None:
        """Labels go to the feedback service, and its answer to the client: none is acknowledged here."""
        if self.feedback is None:
            self._error(exchange, 404, "this replica has no feedback service; its answers carry no receipts")
        elif exchange.method != b"POST":
            self._error(exchange, 405, f"{_text(FEEDBACK_PATH)} takes POST", b"allow: POST\r\n")
        else:
            self.feedback.pass_on(exchange)

    # everything else

    @property
    def is_ready(self) -> bool:
        return self.ready is not None and not self.is_draining

    def not_ours(self, name: str, version: str) -> str | None:
        """Return why there is no such model here, None where it is this one; an empty version is any."""
        if name != self.name:
            return f"there is no model {name[:200]!r} here, only {self.name!r}"
        if version and version != self.version:
            return f"there is no version {version[:200]!r} of {name!r} here, only {self.version!r}"
        return None

    def _model_route(self, exchange: Exchange, path: str) -> None:
        """`/v2/models/{model}[/versions/{version}][/ready|/infer]`, where model and version have to be ours."""
        parts = path.strip("/").split("/")
        if parts[:2] != ["v2", "models"] or len(parts) < 3:
            self._error(exchange, 404, f"there is nothing at {path[:200]}")
            return
        name, version, rest = parts[2], "", parts[3:]
        if rest[:1] == ["versions"] and len(rest) > 1:
            version, rest = rest[1], rest[2:]
        if why := self.not_ours(name, version):
            self._error(exchange, 404, why)
            return
        if rest == ["infer"]:
            if exchange.method == b"POST":
                self.infer(exchange)
            else:
                self._error(exchange, 405, "infer takes POST", b"allow: POST\r\n")
        elif rest not in ([], ["ready"], ["config"]):
            self._error(exchange, 404, f"there is nothing at {path[:200]}")
        elif exchange.method not in (b"GET", b"HEAD"):
            self._error(exchange, 405, f"{path[:200]} takes GET", b"allow: GET, HEAD\r\n")
        elif rest == ["ready"]:
            self._health(exchange)
        elif self.ready is None:
            self._error(exchange, 503, LOADING, b"retry-after: 1\r\n")
        else:
            exchange.respond(200, JSON, orjson.dumps(self.ready.configuration) if rest else self.ready.metadata)

    def _v1_route(self, exchange: Exchange, path: str) -> None:
        """Whatever is not `/v1/models/{model}` or its `:predict`, where model is ours."""
        name, _, verb = path.removeprefix("/v1/models/").partition(":")
        if why := self.not_ours(name, ""):
            self._error(exchange, 404, why)
        elif verb:
            self._error(exchange, 404, f"{name} has no :{verb[:40]}, only :predict")
        else:
            self._error(exchange, 404, f"there is nothing at {path[:200]}")

    def _live(self, exchange: Exchange) -> None:
        exchange.respond(200, JSON, b'{"live":true}')

    def _alive(self, exchange: Exchange) -> None:
        """Answer as KServe's V1 servers do at their root, where its client asks whether they live."""
        exchange.respond(200, JSON, b'{"status":"alive"}')

    def _health(self, exchange: Exchange) -> None:
        if self.is_ready:
            exchange.respond(200, JSON, b'{"ready":true}')
        else:
            why = "this replica is shutting down" if self.is_draining else LOADING
            exchange.respond(503, JSON, orjson.dumps({"ready": False, "error": why}))

    def _v1_models(self, exchange: Exchange) -> None:
        exchange.respond(200, JSON, orjson.dumps({"models": [self.name]}))

    def _v1_model(self, exchange: Exchange) -> None:
        body = {"name": self.name, "ready": self.is_ready}
        exchange.respond(200 if self.is_ready else 503, JSON, orjson.dumps(body))

    def _server_metadata(self, exchange: Exchange) -> None:
        exchange.respond(200, JSON, orjson.dumps(of_server()))

    def _metrics(self, exchange: Exchange) -> None:
        self.timings.bin()
        queued = self.ready.mode.queue.requests if self.ready else 0
        self._aside(exchange, lambda: (200, CONTENT_TYPE, self.metrics.render(queued)))

    def _profile(self, exchange: Exchange) -> None:
        seconds = stacks.seconds_of(_text(exchange.path.partition(b"?")[2]))
        if seconds is None:
            self._error(exchange, 400, f"seconds has to be a number up to {stacks.MOST_S:g}")
            return
        self._aside(exchange, lambda: stacks.rendered(seconds))

    def reject(self, caller: Caller, status: int, reason: str, message: str, more: bytes, begun: float) -> None:
        self.metrics.reject(reason)
        self._error(caller, status, message, more, begun)

    def _error(
        self, caller: Caller, status: int, message: str, more: bytes = b"", code_since: float | None = None
    ) -> None:
        code = caller.fail(status, message, more)
        if code_since is not None:
            now = time.perf_counter()
            self.metrics.answered(code, now - code_since)
            if is_failure(status):
                self.metrics.end_beside(caller.within_s, now - code_since, has_failed=True)
            if self.tracer is not None:
                self.tracer.record(caller.trace, caller.protocol, code, code_since, now, None)


def _text(value: bytes) -> str:
    return value.decode("latin-1")
