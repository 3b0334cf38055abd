"""Where did a request spend its time, in the words of OpenTelemetry? Three spans: request, queue, forward.

Off unless OTEL_EXPORTER_OTLP_ENDPOINT (or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) names a collector; then nothing of it is
imported, and a request pays for one comparison. The spans are made when the answer is written, from times that were
taken anyway, and leave in batches from a thread of the SDK's. The SDK's other variables hold: OTEL_TRACES_SAMPLER,
OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES. A request that carries a W3C trace context joins that trace.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_SERVER_ERROR = {"http": range(500, 600), "grpc": (2, 4, 12, 13, 14, 15)}
"""Which codes are the server's fault: of HTTP, and of gRPC as OpenTelemetry counts them for servers."""
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(rb"[\x20-\x7e]{0,512}")

log = logging.getLogger("evenkeel")


@dataclass(frozen=True, slots=True)
class Trace:
    """The W3C trace context that a request carries (W3C, "Trace Context")."""

    parent: str
    state: str = ""


def lines_of(trace: Trace | None) -> bytes:
    """Return the trace context as the answer carries it back, so that whoever has the answer can find the trace."""
    if trace is None:
        return b""
    state = f"tracestate: {trace.state}\r\n" if trace.state else ""
    return f"traceparent: {trace.parent}\r\n{state}".encode()


def trace_of(headers: Mapping[bytes, bytes]) -> Trace | None:
    """Return the trace context in a request's headers; one that is malformed is none, as the W3C asks."""
    parent = headers.get(b"traceparent")
    if parent is None or not _TRACEPARENT.fullmatch(parent):
        return None
    state = headers.get(b"tracestate", b"")
    return Trace(parent.decode(), state.decode() if _TRACESTATE.fullmatch(state) else "")


@dataclass(frozen=True, slots=True)
class Stay:
    """When a request waited for the model and when it was in it, by `time.perf_counter`."""

    admitted: float
    began: float
    ended: float
    batch_rows: int


class Tracer:
    """Sends spans to the collector that the environment names."""

    def __init__(self, model: str, version: str) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace = trace
        self._extract = TraceContextTextMapPropagator().extract
        self._attributes = {"model.name": model, "model.version": version}
        # What the environment says of the service comes after these, and wins.
        self._provider = TracerProvider(resource=Resource.create({"service.name": model, "service.version": version}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("evenkeel")

    def record(
        self, given: Trace | None, protocol: str, code: int, begun: float, ended: float, stay: Stay | None
    ) -> None:
        """Make the spans of one request; `begun` and `ended` are by `time.perf_counter`."""
        epoch_ns = time.time_ns() - round(time.perf_counter() * 1e9)

        def at(moment: float) -> int:
            return epoch_ns + round(moment * 1e9)

        carried = {} if given is None else {"traceparent": given.parent, "tracestate": given.state}
        context = self._extract(carried)
        name = "http.response.status_code" if protocol == "http" else "rpc.grpc.status_code"
        span = self._tracer.start_span(
            "infer",
            context,
            self._trace.SpanKind.SERVER,
            attributes={**self._attributes, name: code},
            start_time=at(begun),
        )
        if code in _SERVER_ERROR[protocol]:
            span.set_status(self._trace.StatusCode.ERROR)
        if stay is not None:
            inside = self._trace.set_span_in_context(span)
            self._part("queue", inside, at(stay.admitted), at(stay.began), {})
            self._part("forward", inside, at(stay.began), at(stay.ended), {"batch.rows": stay.batch_rows})
        span.end(at(ended))

    def _part(self, name: str, context: Any, start: int, end: int, attributes: dict[str, int]) -> None:
        self._tracer.start_span(name, context, attributes=attributes, start_time=start).end(end)

    def stop(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def tracer_for(environ: Mapping[str, str], model: str, version: str) -> Tracer | None:
    """Return what sends spans, or None where no collector is named, or the extra is not installed."""
    if not any(environ.get(name) for name in ENDPOINTS) or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        return Tracer(model, version)
    except ModuleNotFoundError as missing:
        log.warning("no spans module=%s: install evenkeel[runtime,otel], or unset %s", missing.name, ENDPOINTS[0])
        return None
