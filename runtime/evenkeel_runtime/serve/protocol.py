"""How do bytes on a socket become requests, and answers bytes, without anything in between?

One object per connection on httptools' parser. Requests may be pipelined: their answers leave in their order. A client
may be slow, silent, endless or gone; each costs a bounded amount of memory and time.

A client sends the same head again and again, with another body of the same length. The last one of a connection is kept
with what the parser made of it, and the next request that begins with the same bytes and is as long is not parsed.

Why this is sound: the kept request came in one piece, between two others, and was one blank line with as many bytes
behind it as its Content-Length says; so the same bytes in front of as many others, at the same place, are the same
request with another body. The parser, which does not see it, is between two requests before and after it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn, cast

import httptools

from evenkeel_runtime.serve.tracing import Trace, lines_of, trace_of

if TYPE_CHECKING:
    from evenkeel_runtime.serve.connections import Server

PIPELINED = 64
"""How many requests of one connection may be under way; more are read when answers have left."""
FAILED = "the server failed; its log says why"
LINGER_S = 5.0
"""How long a client that gets an error may go on sending before its connection is cut: cut at once, it would see a
reset instead of the answer."""
TRICKLE = 10
"""A body that keeps arriving may take so many times the client timeout in all."""

_KEPT_HEAD_BYTES = 4096
_PIECE_BYTES = 48
"""What a piece of a body costs beside its bytes: in chunks of two bytes, a body is twenty times as large in memory."""
_AGAIN = b"retry-after: 1\r\n"

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
"""What is passed on may have a status that is none of these (nginx's 499): it goes without a phrase, as HTTP allows."""

log = logging.getLogger("evenkeel")


@dataclass(slots=True)
class Head:
    """What the parser made of a request's head. `told` is what the handler made of it, for the next request that has
    the same one; `text` and `request_bytes` are the head's bytes and how many the request had with its body, where it
    is one that may be kept."""

    method: bytes
    path: bytes
    headers: dict[bytes, bytes]
    told: Any = None
    text: bytes = b""
    request_bytes: int = 0


class Exchange:
    """One request, and the one answer to it: a `Caller`. `abandoned` is called when the client goes before that."""

    protocol = "http"
    succeeded = 200
    __slots__ = ("abandoned", "answer", "assignment", "body", "connection", "head", "headers", "keep_alive", "within_s")

    def __init__(self, connection: Connection, head: Head, body: bytes, keep: bool) -> None:
        self.connection = connection
        self.head = head
        self.headers = head.headers
        self.body = body
        self.keep_alive = keep
        self.answer: bytes | None = None
        self.abandoned: Callable[[], None] | None = None
        self.assignment: int | None = None
        self.within_s = 0.0

    @property
    def method(self) -> bytes:
        return self.head.method

    @property
    def path(self) -> bytes:
        return self.head.path

    @property
    def trace(self) -> Trace | None:
        return trace_of(self.headers)

    def respond(self, status: int, content_type: bytes, body: bytes, more: bytes = b"") -> None:
        """Answer. `more` holds further header lines, each ended by CRLF."""
        if self.answer is None:
            self.respond_head(
                b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\n%scontent-length: %d\r\n"
                % (status, _REASONS.get(status, b""), content_type, more, len(body)),
                body if self.method != b"HEAD" else b"",
            )

    def fail(self, status: int, message: str, more: bytes = b"") -> int:
        """Answer with an error and return the status that was counted for it."""
        self.respond(status, b"application/json", error_body(message), more)
        return status

    def respond_head(self, head: bytes, body: bytes) -> None:
        """Answer with a head that is complete but for the line about the connection and the empty line."""
        if self.answer is not None:
            return
        self.abandoned = None
        if b"traceparent" in self.headers:
            head += lines_of(self.trace)
        if self.keep_alive and not self.connection.server.is_closing:
            self.answer = head + b"\r\n" + body
        else:
            self.keep_alive = False
            self.answer = head + b"connection: close\r\n\r\n" + body
        self.connection.flush()


class Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self.server = server
        self.exchanges: deque[Exchange] = deque()
        self._parser: Any = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._writable = True
        self._reading = True
        self._lingers_since: float | None = None
        self._closes = False
        self._last_data = self._loop.time()
        self._piece = b""  # what came in last, if it came between two requests
        self._head: Head | None = None  # of the last request, if it may be kept and nothing has come in since
        self._chunk_from: int | None = None  # bytes of body before the chunk that is being read
        self._before_chunk: dict[bytes, bytes] = {}
        self._is_surplus = False
        self._held_bytes = 0  # of an unfinished body, as the server counts them
        self._begin()

    def _begin(self) -> None:
        self._path = b""
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._body_bytes = 0
        self._header_bytes = 0
        self._in_headers = True
        self._since: float | None = None  # when the request that is being read began
        if self._held_bytes:
            self.server.receiving_bytes -= self._held_bytes
            self._held_bytes = 0

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is one, without saying so
        self._transport = transport
        self._is_surplus = self.server.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._begin()
        self.server.leave(self)
        exchanges, self.exchanges = self.exchanges, deque()
        for exchange in exchanges:
            if exchange.abandoned is not None:
                exchange.abandoned()

    def eof_received(self) -> bool:
        """Take a client that closes its side for gone: on the wire it looks the same, and its work is then dropped."""
        return False

    def pause_writing(self) -> None:
        self._writable = False
        self._pace()

    def resume_writing(self) -> None:
        self._writable = True
        self._pace()

    def data_received(self, data: bytes) -> None:
        if self._closes:
            return
        self._last_data = self._loop.time()
        head = self._head
        if head is not None and len(data) == head.request_bytes and data.startswith(head.text):
            self._admit(Exchange(self, head, data[len(head.text) :], True))
            return
        self._head = None
        is_between = self._since is None and not self._header_bytes
        self._piece = data if is_between else b""
        if self._in_headers:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "this server speaks HTTP/1.1 only")
            return
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, _Refused):
                return
            raise
        except httptools.HttpParserError as error:
            self._refuse(400, f"not an HTTP/1.1 request: {error}")
            return
        if self._in_headers and self._header_bytes > self.server.limits.header_bytes:
            self._refuse_headers()
        if self._body_bytes:
            self._hold()

    # what the parser calls

    def on_message_begin(self) -> None:
        self._since = self._last_data

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if self._is_surplus and self._path.partition(b"?")[0] not in self.server.vital:
            self._refuse(503, "too many connections; try again", _AGAIN)
            raise _Refused
        limit = self.server.limits.body_bytes
        length = self._headers.get(b"content-length")
        if length is not None and len(length) < 20 and int(length) > limit:
            self._refuse_body(f"has {int(length)} bytes, more")
        if self._headers.get(b"expect", b"").lower() == b"100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_chunk_header(self) -> None:
        """Count what comes with a chunk as headers: behind the last one there may be trailers.

        They are dropped: a field that comes behind the body is none of those that said how it is to be read.
        """
        self._in_headers, self._header_bytes, self._chunk_from = True, 0, self._body_bytes
        self._before_chunk, self._headers = self._headers, {}

    def on_chunk_complete(self) -> None:
        self._in_headers, self._chunk_from, self._headers = False, None, self._before_chunk

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self.server.limits.body_bytes:
            self._refuse_body("is longer")
        self._chunks.append(body)

    def _refuse_body(self, what: str) -> NoReturn:
        limits = self.server.limits
        self._refuse(
            413, f"the request's body {what} than the {limits.body_bytes} bytes allowed; {limits.body_setting}"
        )
        raise _Refused

    def on_message_complete(self) -> None:
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        parser = self._parser
        keep = parser.should_keep_alive() and not self._is_surplus
        exchange = Exchange(self, Head(parser.get_method(), self._path, self._headers), body, keep)
        self._head = self._kept(exchange)
        self._piece = b""
        self._begin()
        self._admit(exchange)

    def _kept(self, exchange: Exchange) -> Head | None:
        """Return the head of a request that is all of what came in last, if it may be kept."""
        head, headers, piece = exchange.head, exchange.headers, self._piece
        size = piece.find(b"\r\n\r\n", 0, _KEPT_HEAD_BYTES) + 4
        if (
            not exchange.keep_alive
            or len(piece) - size != len(exchange.body)
            or headers.get(b"content-length") != b"%d" % len(exchange.body)
            or b"transfer-encoding" in headers
            or b"expect" in headers
        ):
            return None
        head.text, head.request_bytes = piece[:size], len(piece)
        return head

    def _admit(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        if len(self.exchanges) >= PIPELINED:
            self._pace()
        try:
            self.server.handler(exchange)
        except Exception:
            log.exception("failed path=%s", exchange.path[:200])
            exchange.fail(500, FAILED)

    # answers

    def flush(self) -> None:
        """Write the answers that are complete, in the order of their requests."""
        exchanges = self.exchanges
        transport = self._transport
        while exchanges and (answer := exchanges[0].answer) is not None:
            exchange = exchanges.popleft()
            if transport is not None and self._lingers_since is None:  # what is behind the last answer is dropped
                transport.write(answer)
                if not exchange.keep_alive:
                    self._close()
                    return
        if not self._reading:
            self._pace()

    def close_if_idle(self) -> None:
        if not self.exchanges and self._since is None and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def check_time(self, now: float) -> None:
        limits = self.server.limits
        if self._transport is None:
            return
        if self._lingers_since is not None:
            if now - self._lingers_since > LINGER_S:
                self._transport.abort()
        elif self._since is None:
            if not self.exchanges and now - self._last_data > limits.keep_alive_s:
                self._transport.close()
        elif self._reading and (
            now - self._last_data > limits.client_timeout_s
            or now - self._since
            > limits.client_timeout_s * (1 if self._in_headers and self._chunk_from is None else TRICKLE)
        ):
            self._refuse(408, "the request did not arrive in time")

    def _refuse_headers(self) -> None:
        """Refuse headers or trailers that are too long; of what was counted in a chunk, its body is neither."""
        limit = self.server.limits.header_bytes
        body_bytes = 0 if self._chunk_from is None else self._body_bytes - self._chunk_from
        if self._header_bytes - body_bytes > limit:
            self._refuse(431, f"the request's headers are longer than {limit} bytes")

    def _hold(self) -> None:
        """Count an unfinished body among those that are being received, and refuse it where they are too much. One by
        itself may be as long as its own limit says."""
        server = self.server
        held = self._body_bytes + _PIECE_BYTES * len(self._chunks)
        server.receiving_bytes += held - self._held_bytes
        self._held_bytes = held
        if held < server.receiving_bytes > server.limits.receiving_bytes:
            message = f"{server.receiving_bytes - held} bytes of other requests are being received; try again"
            self._refuse(429, message, _AGAIN)

    def _refuse(self, status: int, message: str, more: bytes = b"") -> None:
        """Answer an unfinished request with an error and end the connection behind it, in its turn."""
        exchange = Exchange(self, Head(b"", b"", {}), b"", keep=False)
        self._begin()
        self._closes = True
        self.exchanges.append(exchange)
        self.server.on_refused(status)
        exchange.respond(status, b"application/json", error_body(message), more)

    def _close(self) -> None:
        """End the connection after what was written: a client that still sends is read from for a while."""
        transport = self._transport
        if transport is None:
            return
        self._closes = True
        self._lingers_since = self._loop.time()
        if not self._reading:
            self._reading = True
            transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()

    def _pace(self) -> None:
        """Read only while answers are being taken and not too many are owed."""
        wanted = self._writable and len(self.exchanges) < PIPELINED
        if self._transport is None or wanted == self._reading:
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
            self._last_data = self._loop.time()
        else:
            self._transport.pause_reading()


class _Refused(Exception):
    """Stops the parser: the request was answered before it was complete."""


def error_body(message: str) -> bytes:
    import orjson

    return orjson.dumps({"error": message})
