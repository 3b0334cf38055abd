"""Does the protocol class find the same requests however their bytes are cut, and survive any bytes?"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel_runtime.config import Limits
from evenkeel_runtime.serve.connections import SURPLUS, Server
from evenkeel_runtime.serve.protocol import PIPELINED, Exchange
from evenkeel_runtime.serve.server import aside

PATIENCE_S = 60.0


class Wire(asyncio.Transport):
    """A transport that keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_ended = False
        self.reads = True

    def write(self, data: Any) -> None:
        assert not self.is_ended
        self.sent += bytes(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_ended = True

    def close(self) -> None:
        self.is_ended = True

    def abort(self) -> None:
        self.is_ended = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


class Conversation:
    """A connection whose requests are kept unanswered until told."""

    def __init__(self, limits: Limits | None = None, answers: bool = True, server: Server | None = None) -> None:
        """On a server of its own, or one more connection of another conversation's."""
        self.exchanges: list[Exchange] = []
        self._answers = answers
        self.server = server or Server(self._handle, limits or Limits(), vital=frozenset((b"/live",)))
        self.wire = Wire()
        self.connection = self.server.connection()
        self.connection.connection_made(self.wire)

    def _handle(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        if self._answers:
            exchange.respond(200, b"text/plain", exchange.body)


def request(path: str, body: bytes, is_chunked: bool) -> bytes:
    head = f"POST /{path} HTTP/1.1\r\nHost: t\r\n"
    if not is_chunked:
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    pieces = [body[start : start + 7] for start in range(0, len(body), 7)]
    chunks = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


requests = st.tuples(st.text("abc", min_size=1, max_size=5), st.binary(max_size=60), st.booleans())


@given(st.lists(requests, min_size=1, max_size=8), st.data())
async def test_cuts_do_not_matter(sent: list[tuple[str, bytes, bool]], data: st.DataObject) -> None:
    talk = Conversation()
    wire = b"".join(request(*one) for one in sent)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=12)))
    for start, stop in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        talk.connection.data_received(wire[start:stop])
    assert [(one.path.decode(), one.body) for one in talk.exchanges] == [(f"/{path}", body) for path, body, _ in sent]
    assert talk.wire.sent.count(b"HTTP/1.1 200 OK") == len(sent)


def told(exchange: Exchange) -> tuple[object, ...]:
    return exchange.method, exchange.path, exchange.headers, exchange.body, exchange.keep_alive


HEADS = (
    b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 04\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n",
)
bodies = st.sampled_from([b"\r\n\r\n", b"1234", b"abcd", b"GET "])
repeated = st.tuples(st.sampled_from(HEADS), bodies, st.none() | st.integers(1, 90))


@given(st.lists(repeated, min_size=1, max_size=12), st.sets(st.integers(1, 11)))
async def test_request_is_the_same_however_often_its_head_came_before(
    sent: list[tuple[bytes, bytes, int | None]], joined: set[int]
) -> None:
    talk = Conversation()
    want: list[tuple[object, ...]] = []
    pieces = [b""]
    for number, (head, body, cut) in enumerate(sent):
        wire = head + body + (b"\r\n0\r\n\r\n" if b"chunked" in head else b"")
        alone = Conversation()
        alone.connection.data_received(wire)
        want += [told(exchange) for exchange in alone.exchanges]
        if number not in joined:
            pieces.append(b"")
        pieces[-1] += wire[:cut]
        pieces += [wire[cut:]] if cut else []
    for piece in pieces:
        talk.connection.data_received(piece)
    assert len(want) == len(sent)
    assert [told(exchange) for exchange in talk.exchanges] == want


CHUNKED = b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "piece", "times", "want"),
    [
        pytest.param(b"GET /x HTTP/1.1\r\nname: ", b"v" * 100, 20, b"HTTP/1.1 431 ", id="a header without end"),
        pytest.param(CHUNKED + b"0\r\n", b"name: value\r\n", 100, b"HTTP/1.1 431 ", id="trailers without end"),
        pytest.param(CHUNKED + b"0\r\nname: ", b"v" * 100, 20, b"HTTP/1.1 431 ", id="a trailer without end"),
        pytest.param(CHUNKED + b"fff\r\n", b"v" * 100, 40, b"", id="a large chunk in many pieces"),
        pytest.param(CHUNKED, b"1\r\nv\r\n", 1000, b"", id="many small chunks"),
        pytest.param(CHUNKED + b"0\r\na: b\r\n\r\n", b"", 1, b"HTTP/1.1 200 ", id="a trailer within the limit"),
        pytest.param(
            CHUNKED + b"0\r\n\r\nGET /x HTTP/1.1\r\nname: ", b"v" * 100, 20, b"HTTP/1.1 431 ", id="behind a chunked one"
        ),
    ],
)
async def test_headers_and_trailers_are_held_to_their_limit(
    first: bytes, piece: bytes, times: int, want: bytes
) -> None:
    talk = Conversation(Limits(header_bytes=1000))
    talk.connection.data_received(first)
    for _ in range(times):
        talk.connection.data_received(piece)
    assert want in talk.wire.sent
    assert talk.wire.is_ended is (b"431" in want)


async def test_a_trailer_is_no_header() -> None:
    talk = Conversation()
    talk.connection.data_received(CHUNKED + b"2\r\nab\r\n0\r\nContent-Encoding: gzip\r\n\r\n")
    (exchange,) = talk.exchanges
    assert (exchange.headers, exchange.body) == ({b"transfer-encoding": b"chunked"}, b"ab")


async def test_a_body_in_chunks_may_take_as_long_as_any_other() -> None:
    talk = Conversation(Limits(client_timeout_s=10.0))
    now = asyncio.get_running_loop().time()
    talk.connection.data_received(CHUNKED + b"fff\r\n")
    talk.connection._last_data = now + 45  # it keeps arriving
    talk.connection.check_time(now + 50)
    assert talk.wire.sent == b""
    talk.connection._last_data = now + 101
    talk.connection.check_time(now + 102)
    assert talk.wire.sent.startswith(b"HTTP/1.1 408 ")


@given(st.permutations(range(6)))
async def test_answers_leave_in_the_order_of_their_requests(order: list[int]) -> None:
    talk = Conversation(answers=False)
    for index in range(6):
        talk.connection.data_received(request("x", str(index).encode(), False))
    for index in order:
        talk.exchanges[index].respond(200, b"text/plain", b"<%d>" % index)
    positions = [talk.wire.sent.index(b"<%d>" % index) for index in range(6)]
    assert positions == sorted(positions)


@given(st.lists(st.binary(max_size=80), max_size=10))
async def test_any_bytes_end_in_an_answer_or_in_waiting(pieces: list[bytes]) -> None:
    talk = Conversation()
    for piece in pieces:
        talk.connection.data_received(piece)
    assert talk.wire.sent == b"" or talk.wire.sent.startswith(b"HTTP/1.1 ")


async def test_reading_pauses_while_too_many_answers_are_owed() -> None:
    talk = Conversation(answers=False)
    for _ in range(PIPELINED):
        talk.connection.data_received(request("x", b"", False))
    assert not talk.wire.reads
    talk.exchanges[0].respond(200, b"text/plain", b"")
    assert talk.wire.reads
    talk.connection.pause_writing()
    assert not talk.wire.reads
    talk.connection.resume_writing()
    assert talk.wire.reads


async def test_client_that_leaves_is_noticed_once() -> None:
    talk = Conversation(answers=False)
    for _ in range(2):
        talk.connection.data_received(request("x", b"", False))
    left: list[int] = []
    for index, exchange in enumerate(talk.exchanges):
        exchange.abandoned = lambda index=index: left.append(index)
    talk.exchanges[0].respond(200, b"text/plain", b"")
    talk.connection.connection_lost(None)
    assert left == [1]
    talk.exchanges[1].respond(200, b"text/plain", b"")  # too late, and harmless
    assert talk.server.exchanges == 0


async def test_slow_clients_by_the_clock() -> None:
    talk = Conversation(Limits(client_timeout_s=10.0))
    now = asyncio.get_running_loop().time()
    talk.connection.check_time(now + 11)
    assert talk.wire.sent == b""  # idle is not slow
    talk.connection.data_received(b"POST /x HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
    talk.connection.check_time(now + 9)
    assert talk.wire.sent == b""
    talk.connection.check_time(now + 11)
    assert talk.wire.sent.startswith(b"HTTP/1.1 408 ")
    assert talk.wire.is_ended


async def test_draining_ends_connections_with_their_next_answer() -> None:
    talk = Conversation()
    talk.connection.data_received(request("x", b"", False))
    assert b"connection: close" not in talk.wire.sent
    talk.server.is_closing = True
    talk.connection.data_received(request("x", b"", False))
    assert talk.wire.sent.endswith(b"connection: close\r\n\r\n")
    assert talk.wire.is_ended


async def test_what_is_pipelined_behind_the_last_answer_is_dropped() -> None:
    talk = Conversation(answers=False)
    talk.server.is_closing = True
    talk.connection.data_received(request("x", b"", False) + request("x", b"", False))
    for exchange, body in zip(talk.exchanges, (b"first", b"second"), strict=True):
        exchange.respond(200, b"text/plain", body)
    assert talk.wire.sent.endswith(b"connection: close\r\n\r\nfirst")
    assert talk.server.exchanges == 0


LIVE = b"GET /live HTTP/1.1\r\nHost: t\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "want"),
    [
        pytest.param(LIVE, b"HTTP/1.1 200 ", id="whether it lives"),
        pytest.param(LIVE.replace(b"live", b"live?verbose"), b"HTTP/1.1 200 ", id="with a query"),
        pytest.param(request("x", b"body", False), b"HTTP/1.1 503 ", id="anything else"),
        pytest.param(b"POST /x HTTP/1.1\r\nContent-Length: 9\r\n\r\n", b"HTTP/1.1 503 ", id="before its body came"),
    ],
)
async def test_a_connection_beyond_the_limit_is_for_one_question_about_health(sent: bytes, want: bytes) -> None:
    first = Conversation(Limits(connections=1))
    beyond = Conversation(server=first.server)
    assert beyond.wire.sent == b""
    beyond.connection.data_received(sent)
    assert beyond.wire.sent.startswith(want)
    assert b"connection: close" in beyond.wire.sent
    assert beyond.wire.is_ended
    first.connection.data_received(request("x", b"body", False))
    assert first.wire.sent.startswith(b"HTTP/1.1 200 ")


async def test_a_place_within_the_limit_is_free_again_when_its_connection_ends() -> None:
    first = Conversation(Limits(connections=1))
    Conversation(server=first.server)
    first.connection.connection_lost(None)
    talk = Conversation(server=first.server)
    talk.connection.data_received(request("x", b"body", False))
    assert first.exchanges[0].body == b"body"
    assert b"connection: close" not in talk.wire.sent


async def test_connections_beyond_the_limit_are_bounded_and_the_last_to_come_is_heard() -> None:
    first = Conversation(Limits(connections=1))
    beyond = [Conversation(server=first.server) for _ in range(SURPLUS + 5)]
    assert [talk.wire.is_ended for talk in beyond] == [True] * 5 + [False] * SURPLUS
    assert len(first.server.connections) == 1 + SURPLUS
    beyond[-1].connection.data_received(LIVE)
    assert beyond[-1].wire.sent.startswith(b"HTTP/1.1 200 ")
    for talk in [first, *beyond]:
        talk.connection.connection_lost(None)
    assert not first.server.connections


def half(size: int) -> bytes:
    """Return a request that is announced twice as long as what comes of it."""
    return b"POST /x HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (2 * size) + bytes(size)


async def test_bodies_that_are_being_received_are_bounded_together() -> None:
    first = Conversation(Limits(receiving_bytes=1000))
    second, third = Conversation(server=first.server), Conversation(server=first.server)
    first.connection.data_received(half(600))
    second.connection.data_received(half(600))
    assert first.wire.sent == b""
    assert second.wire.sent.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: 1\r\n" in second.wire.sent
    third.connection.data_received(request("x", bytes(5000), False))  # complete at once: it is not waited for
    assert third.wire.sent.startswith(b"HTTP/1.1 200 ")
    first.connection.data_received(bytes(600))
    assert first.wire.sent.startswith(b"HTTP/1.1 200 ")
    assert first.server.receiving_bytes == 0


async def test_a_body_by_itself_may_be_as_long_as_its_own_limit_says() -> None:
    talk = Conversation(Limits(receiving_bytes=1000))
    talk.connection.data_received(half(5000))
    assert talk.wire.sent == b""
    talk.connection.connection_lost(None)
    assert talk.server.receiving_bytes == 0


async def test_pieces_count_for_what_they_take_in_memory() -> None:
    first = Conversation(Limits(receiving_bytes=10_000))
    second = Conversation(server=first.server)
    first.connection.data_received(half(1))
    second.connection.data_received(CHUNKED + b"2\r\nvv\r\n" * 300)  # 600 bytes, of which each second one costs 50
    assert second.wire.sent.startswith(b"HTTP/1.1 429 ")


async def test_a_status_that_http_does_not_name_is_passed_on() -> None:
    talk = Conversation(answers=False)
    talk.connection.data_received(request("x", b"", False))
    talk.exchanges[0].respond(499, b"text/plain", b"gone")
    assert talk.wire.sent.startswith(b"HTTP/1.1 499 \r\n")
    assert talk.wire.sent.endswith(b"\r\n\r\ngone")


def fails(*_: object) -> Any:
    raise RuntimeError("no page")


async def test_a_handler_that_fails_answers_so() -> None:
    talk = Conversation(answers=False)
    talk.connection.data_received(request("x", b"", False))
    talk.server.handler = fails
    talk.connection.data_received(request("x", b"", False))
    assert talk.wire.sent == b""
    talk.exchanges[0].respond(200, b"text/plain", b"")
    assert [talk.wire.sent.count(line) for line in (b"HTTP/1.1 200 OK", b"HTTP/1.1 500 Internal")] == [1, 1]
    assert not talk.wire.is_ended


async def test_a_page_that_cannot_be_rendered_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    talk = Conversation(answers=False)
    talk.connection.data_received(request("metrics", b"", False))
    aside(talk.exchanges[0], fails)
    async with asyncio.timeout(PATIENCE_S):
        while not talk.wire.sent:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
    assert talk.wire.sent.startswith(b"HTTP/1.1 500 ")
    assert "no page" in caplog.text


@pytest.mark.parametrize(
    ("is_chunked", "want"),
    [
        (False, "the request's body has 9 bytes, more than the 8 bytes allowed; EVENKEEL_MAX_BODY_BYTES raises it"),
        (True, "the request's body is longer than the 8 bytes allowed; EVENKEEL_MAX_BODY_BYTES raises it"),
    ],
)
async def test_a_body_that_is_too_long_is_told_what_raises_the_limit(is_chunked: bool, want: str) -> None:
    talk = Conversation(Limits(body_bytes=8))
    talk.connection.data_received(request("x", b"123456789", is_chunked))
    assert talk.wire.sent.startswith(b"HTTP/1.1 413 ")
    assert want.encode() in talk.wire.sent
