"""How does a request get to a replica of the canary, and its answer back?

HTTP/1.1 over connections that are kept open, one request at a time on each, on the event loop of the requests
themselves: no task and no thread per request, only callbacks. Every request has one outcome, an answer or why there is
none, and a time by which it has it.

A kept connection may be closed by the other side just when it is used again. That is nobody's failure, so a request
that was lost on one before a byte came back is sent once more, on a new connection; inference can be asked twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import httptools

from evenkeel_runtime import receipts
from evenkeel_runtime.contract import MIRROR, SPLIT
from evenkeel_runtime.serve.directives import Place
from evenkeel_runtime.serve.protocol import Exchange
from evenkeel_runtime.serve.tally import Failure

MOST_UNDER_WAY = 256
"""Requests on their way to the canary at once, each on a connection of its own."""
MOST_IDLE = 32
"""Connections to one replica of the canary that are kept though nobody uses them."""
MOST_ANSWER_BYTES = 256 << 20
REST_S = 1.0
"""How long a replica that could not be connected to is not asked again."""

_LARGE = 64 << 10
"""A body from this size is not copied behind its head."""
_NOT_SENT = frozenset(
    (b"connection", b"content-length", b"expect", b"host", b"keep-alive", b"te", b"trailer", b"transfer-encoding")
)
_OF_THE_CONNECTION = frozenset(
    (b"connection", b"content-length", b"keep-alive", b"transfer-encoding", b"upgrade", b"traceparent", b"tracestate")
)
"""Headers that are written anew for the client: they are about one connection, or the exchange adds them itself."""
_MARKS = {mode: f"{receipts.ONWARD_HEADER}: {mode.lower()}\r\n".encode() for mode in (SPLIT, MIRROR)}
_ID = receipts.ID_HEADER.encode()


@dataclass(frozen=True, slots=True)
class Answer:
    """`head` is complete but for the line about the connection and the empty line."""

    status: int
    head: bytes
    body: bytes


Outcome = Answer | Failure
Done = Callable[[Outcome], None]


def head_of(exchange: Exchange, mode: str) -> bytes:
    """Return the head of the request as it is passed on. A copy that nobody sees does not bear the user's own id."""
    mirrored = mode == MIRROR
    lines = [
        b"%s: %s\r\n" % pair
        for pair in exchange.headers.items()
        if pair[0] not in _NOT_SENT and not (mirrored and pair[0] == _ID)
    ]
    return b"POST %s HTTP/1.1\r\nhost: canary\r\n%s%scontent-length: %d\r\n\r\n" % (
        exchange.path,
        b"".join(lines),
        _MARKS[mode],
        len(exchange.body),
    )


class Onward:
    """The way to every replica of the canary."""

    def __init__(self) -> None:
        self._peers: dict[Place, _Peer] = {}
        self._turn = 0
        self.under_way = 0

    def use(self, places: Sequence[Place]) -> None:
        """Ask these from now on. What others have in hand, they may finish."""
        for place in self._peers.keys() - set(places):
            self._peers.pop(place).close()
        for place in places:
            if place not in self._peers:
                self._peers[place] = _Peer(place)

    def send(
        self, head: bytes, body: bytes, within_s: float, done: Done, *, wants_body: bool = True
    ) -> Attempt | Failure:
        """Send a request and call `done` once with its outcome, later; return why not, where it cannot be sent.

        Where nobody wants the answer's body, none is kept.
        """
        if self.under_way >= MOST_UNDER_WAY:
            return Failure.BUSY
        peer = self._least_busy()
        if peer is None:
            return Failure.UNREACHABLE
        return Attempt(self, peer, (head, body), within_s, done, wants_body)

    def _least_busy(self) -> _Peer | None:
        """Return who has least in hand, of equals each in its turn; None where all have to rest."""
        now = asyncio.get_running_loop().time()
        peers = list(self._peers.values())
        self._turn += 1
        start = self._turn % (len(peers) or 1)
        awake = [peer for peer in (*peers[start:], *peers[:start]) if peer.rests_until <= now]
        return min(awake, key=lambda peer: peer.under_way, default=None)


class _Peer:
    """One replica of the canary."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.under_way = 0
        self.rests_until = 0.0
        self.idle: list[_Connection] = []
        self._is_closed = False

    def rest(self) -> None:
        self.rests_until = asyncio.get_running_loop().time() + REST_S

    def keep(self, connection: _Connection) -> None:
        if self._is_closed or len(self.idle) >= MOST_IDLE:
            connection.abort()
        else:
            self.idle.append(connection)

    def close(self) -> None:
        self._is_closed = True
        idle, self.idle = self.idle, []
        for connection in idle:
            connection.abort()


class Attempt:
    """One request on its way."""

    __slots__ = (
        "_connecting",
        "_connection",
        "_done",
        "_onward",
        "_peer",
        "_timer",
        "is_over",
        "is_reused",
        "request",
        "wants_body",
    )

    def __init__(
        self,
        onward: Onward,
        peer: _Peer,
        request: tuple[bytes, bytes],
        within_s: float,
        done: Done,
        wants_body: bool,
    ) -> None:
        self.request = request
        self.wants_body = wants_body
        self.is_over = False
        self._onward, self._peer, self._done = onward, peer, done
        self._connecting: asyncio.Task[None] | None = None
        self._connection: _Connection | None = None
        onward.under_way += 1
        peer.under_way += 1
        self._timer = asyncio.get_running_loop().call_later(within_s, self.end, Failure.LATE)
        self.is_reused = bool(peer.idle)
        if self.is_reused:
            self._connection = peer.idle.pop()
            self._connection.begin(self)
        else:
            self._connect()

    def cancel(self) -> None:
        """Forget it: there is no outcome."""
        if not self.is_over:
            self._close()

    def end(self, outcome: Outcome) -> None:
        """Tell the outcome, if it is the first."""
        if not self.is_over:
            if self._connecting is not None:
                self._peer.rest()  # it did not take the connection in time
            self._close()
            self._done(outcome)

    def _close(self) -> None:
        self.is_over = True
        self._timer.cancel()
        self._onward.under_way -= 1
        self._peer.under_way -= 1
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.leave(self)

    def lost(self, has_begun: bool) -> None:
        """The connection has ended before the answer did."""
        self._connection = None
        if self.is_over:
            return
        if self.is_reused and not has_begun:
            self.is_reused = False
            self._connect()
        else:
            self.end(Failure.UNREACHABLE)

    def _connect(self) -> None:
        self._connecting = asyncio.get_running_loop().create_task(self._connected())

    async def _connected(self) -> None:
        place = self._peer.place
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self._peer), place.host, place.port
            )
        except OSError:
            self._connecting = None
            self._peer.rest()
            self.end(Failure.UNREACHABLE)
            return
        self._connecting = None
        self._connection = connection
        connection.begin(self)


class _Connection(asyncio.Protocol):
    """One kept-open connection."""

    def __init__(self, peer: _Peer) -> None:
        self._peer = peer
        self._parser: Any = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._attempt: Attempt | None = None
        self._begin()

    def begin(self, attempt: Attempt) -> None:
        """Send an attempt's request."""
        self._attempt = attempt
        self._begin()
        transport = self._transport
        if transport is None:
            self._attempt = None
            attempt.lost(has_begun=False)
            return
        head, body = attempt.request
        if len(body) < _LARGE:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)

    def leave(self, attempt: Attempt) -> None:
        """End with the attempt, if its answer is still owed: whoever answers is to see that nobody waits."""
        if self._attempt is attempt:
            self._attempt = None
            self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _begin(self) -> None:
        self._lines: list[bytes] = []
        self._chunks: list[bytes] = []
        self._reason = b""
        self._body_bytes = 0
        self._messages = 0
        self._is_complete = self._keeps = False
        self._status = 0

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, without saying so

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self in self._peer.idle:
            self._peer.idle.remove(self)
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.lost(has_begun=self._messages > 0)

    def data_received(self, data: bytes) -> None:
        attempt = self._attempt
        if attempt is None:  # nobody has asked
            self.abort()
            return
        self._body_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._break(attempt)
            return
        if self._is_complete:
            self._finish(attempt)
        elif self._body_bytes > MOST_ANSWER_BYTES:
            self._break(attempt)

    # what the parser calls

    def on_message_begin(self) -> None:
        self._messages += 1

    def on_status(self, status: bytes) -> None:
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() not in _OF_THE_CONNECTION:
            self._lines.append(b"%s: %s\r\n" % (name, value))

    def on_body(self, body: bytes) -> None:
        if self._attempt is not None and self._attempt.wants_body:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        # Behind this the parser is at the next message already, and no longer knows.
        if not self._is_complete:
            self._is_complete = True
            self._status = self._parser.get_status_code()
            self._keeps = self._parser.should_keep_alive()

    # the outcome

    def _finish(self, attempt: Attempt) -> None:
        self._attempt = None
        chunks, status = self._chunks, self._status
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        lines = b"".join(self._lines)
        head = b"HTTP/1.1 %d %s\r\n%scontent-length: %d\r\n" % (status, self._reason, lines, len(body))
        if self._messages == 1 and self._keeps:
            self._peer.keep(self)
        else:
            self.abort()
        attempt.end(Answer(status, head, body) if self._messages == 1 else Failure.BROKEN)

    def _break(self, attempt: Attempt) -> None:
        self._attempt = None
        self.abort()
        attempt.end(Failure.BROKEN)
