"""What does the admin port answer? The operator's questions, apart from the port that the Service leads to."""

from __future__ import annotations

from evenkeel_runtime.config import Limits
from evenkeel_runtime.contract import DIRECTIVES_PATH, SIGNALS_PATH
from evenkeel_runtime.serve.canary import Traffic
from evenkeel_runtime.serve.connections import Server
from evenkeel_runtime.serve.directives import BadDirective, Listener, read
from evenkeel_runtime.serve.protocol import Exchange, error_body
from evenkeel_runtime.serve.service import JSON, Service

LIMITS = Limits(
    body_bytes=64 << 10, header_bytes=16 << 10, connections=64, client_timeout_s=10.0, body_setting="nothing raises it"
)

_SIGNALS, _DIRECTIVES = SIGNALS_PATH.encode(), DIRECTIVES_PATH.encode()


class Admin:
    """The handler of the admin port of one replica."""

    def __init__(self, service: Service, traffic: Traffic) -> None:
        self._service = service
        self._traffic = traffic
        self.http = Server(self.handle, LIMITS)

    def handle(self, exchange: Exchange) -> None:
        path = exchange.path.partition(b"?")[0]
        if path == _SIGNALS and exchange.method == b"GET":
            service = self._service
            service.timings.bin()
            queue = service.ready.mode.queue if service.ready is not None else None
            body = service.signals.render(
                queue, service.metrics.in_flight, service.metrics.is_ready, self._traffic.told()
            )
            exchange.respond(200, JSON, body)
        elif path == _DIRECTIVES and exchange.method == b"POST":
            self._direct(exchange)
        elif path in (_SIGNALS, _DIRECTIVES):
            verb = "GET" if path == _SIGNALS else "POST"
            more = b"allow: %s\r\n" % verb.encode()
            exchange.respond(405, JSON, error_body(f"{path.decode()} takes {verb}"), more)
        else:
            exchange.respond(404, JSON, error_body(f"there is {SIGNALS_PATH} here, and {DIRECTIVES_PATH}"))

    def _direct(self, exchange: Exchange) -> None:
        signals, traffic = self._service.signals, self._traffic
        listener = Listener(signals.boot, traffic.key, traffic.moment_ms)
        try:
            directive = read(exchange.body, exchange.headers, listener)
            self._service.timings.bin()  # between the edges that held until now
            signals.follow(directive)
            traffic.follow(directive)
        except BadDirective as error:
            exchange.respond(error.status, JSON, error_body(error.message))
        else:
            exchange.respond(200, JSON, b'{"generation":%d}' % (signals.generation or 0))
