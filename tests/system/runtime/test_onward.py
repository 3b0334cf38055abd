"""Does every request that is passed on get exactly one answer, whatever the canary does, and whoever leaves?"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from evenkeel_runtime.serve.directives import Place
from evenkeel_runtime.serve.onward import MOST_UNDER_WAY, Answer, Attempt, Onward, Outcome
from evenkeel_runtime.serve.tally import Failure

PATIENCE_S = 60.0
COUNT = 600
Behaviour = Callable[[bytes, asyncio.StreamWriter], bytes | None]
"""Given a request's body, what the canary sends; None: nothing, and nothing more on this connection."""


def good(body: bytes, writer: asyncio.StreamWriter) -> bytes:
    return b"HTTP/1.1 200 OK\r\nx-from: canary\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def closing(body: bytes, writer: asyncio.StreamWriter) -> bytes:
    asyncio.get_running_loop().call_soon(writer.close)
    return good(body, writer).replace(b"x-from", b"connection: close\r\nx-from")


def leaving(body: bytes, writer: asyncio.StreamWriter) -> bytes:
    asyncio.get_running_loop().call_soon(writer.close)
    return good(body, writer)


def chunked(body: bytes, writer: asyncio.StreamWriter) -> bytes:
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def failing(body: bytes, writer: asyncio.StreamWriter) -> bytes:
    return b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"


def silent(body: bytes, writer: asyncio.StreamWriter) -> None:
    return None


def babbling(body: bytes, writer: asyncio.StreamWriter) -> bytes:
    return b"what? " * 10


def twice(body: bytes, writer: asyncio.StreamWriter) -> bytes:
    return good(body, writer) * 2


def dying(body: bytes, writer: asyncio.StreamWriter) -> bytes:
    asyncio.get_running_loop().call_soon(writer.transport.abort)
    return b""


def dying_inside(body: bytes, writer: asyncio.StreamWriter) -> bytes:
    asyncio.get_running_loop().call_later(0.001, writer.close)
    return good(body, writer)[:-1]


@asynccontextmanager
async def canary(behave: Callable[[], Behaviour]) -> AsyncIterator[tuple[Place, Counter[str]]]:
    """A canary over a real socket; what it does with a request is asked for each."""
    seen: Counter[str] = Counter()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen["connections"] += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
                body = await reader.readexactly(length)
                seen["requests"] += 1
                answer = behave()(body, writer)
                if answer is None:
                    await reader.read()
                    return
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side has left
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield Place(host, port), seen
    finally:
        server.close()
        await server.wait_closed()


def request(body: bytes) -> tuple[bytes, bytes]:
    return b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body), body


async def outcome(onward: Onward, body: bytes, within_s: float = PATIENCE_S) -> Outcome:
    found: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    sent = onward.send(*request(body), within_s, found.set_result)
    return await found if isinstance(sent, Attempt) else sent


@pytest.mark.parametrize(
    ("behaviour", "within_s", "want"),
    [
        pytest.param(good, PATIENCE_S, 200, id="answers"),
        pytest.param(closing, PATIENCE_S, 200, id="answers and ends the connection"),
        pytest.param(leaving, PATIENCE_S, 200, id="answers and ends the connection without a word"),
        pytest.param(chunked, PATIENCE_S, 200, id="answers in pieces"),
        pytest.param(failing, PATIENCE_S, 500, id="fails"),
        pytest.param(silent, 0.05, Failure.LATE, id="says nothing"),
        pytest.param(babbling, PATIENCE_S, Failure.BROKEN, id="speaks something else"),
        pytest.param(twice, PATIENCE_S, Failure.BROKEN, id="answers twice"),
        pytest.param(dying, PATIENCE_S, Failure.UNREACHABLE, id="cuts the connection"),
        pytest.param(dying_inside, PATIENCE_S, Failure.UNREACHABLE, id="cuts the connection inside an answer"),
    ],
)
async def test_the_outcome_is(behaviour: Behaviour, within_s: float, want: int | Failure) -> None:
    async with canary(lambda: behaviour) as (place, _):
        onward = Onward()
        onward.use([place])
        for _ in range(3):
            found = await outcome(onward, b"hello", within_s)
            assert (found.status if isinstance(found, Answer) else found) == want
            if isinstance(found, Answer) and want == 200:
                assert found.body == b"hello"
                assert found.head.endswith(b"content-length: 5\r\n")
                assert found.head.lower().count(b"content-length") == 1
                assert b"transfer-encoding" not in found.head
                assert b"connection" not in found.head
        assert onward.under_way == 0
        onward.use(())


async def test_connections_are_kept() -> None:
    async with canary(lambda: good) as (place, seen):
        onward = Onward()
        onward.use([place])
        for number in range(20):
            assert isinstance(await outcome(onward, b"%d" % number), Answer)
        assert seen == {"connections": 1, "requests": 20}
        onward.use(())


async def test_nobody_there_and_nobody_asked_again_at_once() -> None:
    async with canary(lambda: good) as (place, _):
        pass
    onward = Onward()
    assert await outcome(onward, b"x") is Failure.UNREACHABLE  # no address at all
    onward.use([place])
    assert await outcome(onward, b"x") is Failure.UNREACHABLE
    assert onward.send(*request(b"x"), 1.0, lambda _: None) is Failure.UNREACHABLE  # not even tried


async def test_so_many_and_no_more() -> None:
    async with canary(lambda: silent) as (place, _):
        onward = Onward()
        onward.use([place])
        sent = [onward.send(*request(b"x"), PATIENCE_S, lambda _: None) for _ in range(MOST_UNDER_WAY + 1)]
        assert [one for one in sent if not isinstance(one, Attempt)] == [Failure.BUSY]
        for one in sent:
            if isinstance(one, Attempt):
                one.cancel()
        assert onward.under_way == 0
        onward.use(())


async def test_every_request_has_one_outcome_and_its_own_answer() -> None:
    """Whatever two canaries do, one of which comes and goes, and though clients leave."""
    chance = random.Random(5)
    ways = (good, good, good, closing, leaving, chunked, failing, silent, babbling, twice, dying, dying_inside)
    got: dict[int, list[Outcome]] = {number: [] for number in range(COUNT)}
    left: set[int] = set()

    def leave(sent: Attempt, number: int) -> None:
        if not sent.is_over:
            sent.cancel()
            left.add(number)

    async with canary(lambda: chance.choice(ways)) as (one, _), canary(lambda: good) as (other, _):
        onward = Onward()
        for number in range(COUNT):
            if number % 50 == 0:
                onward.use([one, other] if number % 100 else [one])
            sent = onward.send(*request(b"%d" % number), 0.2, got[number].append)
            if not isinstance(sent, Attempt):
                got[number].append(sent)
            elif chance.random() < 0.1:
                asyncio.get_running_loop().call_later(0.001, leave, sent, number)
            if chance.random() < 0.3:
                await asyncio.sleep(0.001)

        async with asyncio.timeout(PATIENCE_S):
            while onward.under_way:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
        onward.use(())
    assert {len(outcomes) for number, outcomes in got.items() if number not in left} == {1}
    assert [got[number] for number in left] == [[]] * len(left)
    answers = {number: found[0] for number, found in got.items() if found and isinstance(found[0], Answer)}
    assert all(found.body == b"%d" % number for number, found in answers.items() if found.status == 200)
    assert len(answers) > COUNT / 4
    assert left
