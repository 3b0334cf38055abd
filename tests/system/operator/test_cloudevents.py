"""Is an event taken by who takes it, and by nobody who should not be asked, whatever they answer?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from evenkeel_operator.world.cloudevents import Receivers, Undelivered

EVENT = {"specversion": "1.0", "id": "1"}
HERE = ("127.0.0.1",)

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Return the address of a server that answers with a function."""
    runners = []

    async def start(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/alarms"

    yield start
    for runner in runners:
        await runner.cleanup()


async def posted(url: str, hosts: tuple[str, ...] = HERE, timeout_s: float = 5.0) -> Undelivered | None:
    receivers = Receivers(hosts, timeout_s)
    try:
        await receivers.post(url, EVENT)
    except Undelivered as e:
        return e
    finally:
        await receivers.close()
    return None


@pytest.mark.parametrize(
    ("status", "is_final"),
    [
        pytest.param(200, None, id="taken"),
        pytest.param(202, None, id="taken, for later"),
        pytest.param(204, None, id="taken, with nothing to say"),
        pytest.param(302, True, id="elsewhere"),
        pytest.param(400, True, id="refused"),
        pytest.param(410, True, id="not wanted any more"),
        pytest.param(408, False, id="too slow"),
        pytest.param(429, False, id="too busy"),
        pytest.param(500, False, id="broken"),
        pytest.param(503, False, id="not there at present"),
    ],
)
async def test_the_status_decides(status: int, is_final: bool | None, serve: Serve) -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"}, text="a secret of the network")

    got = await posted(await serve(answer))
    assert asked == ["/alarms"], "a redirect is not followed"
    assert (None if got is None else got.is_final) is is_final
    assert "secret" not in str(got)


async def test_a_body_without_end_is_not_read(serve: Serve) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    assert await posted(await serve(answer)) is None


async def test_a_receiver_that_is_silent_is_tried_again(serve: Serve) -> None:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    got = await posted(await serve(answer), timeout_s=0.2)
    assert got is not None
    assert (got.is_final, "within 0.2 s" in str(got)) == (False, True)


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("127.0.0.1", id="this pod"),
        pytest.param("127.1", id="this pod, in short"),
        pytest.param("2130706433", id="this pod, as a number"),
        pytest.param("localhost", id="this pod by its name"),
        pytest.param("[::1]", id="this pod by IPv6"),
        pytest.param("[::ffff:127.0.0.1]", id="this pod by IPv4 in IPv6"),
        pytest.param("0.0.0.0", id="any address of this pod"),
        pytest.param("169.254.169.254", id="the cloud's metadata"),
        pytest.param("[fe80::1]", id="the node's link"),
        pytest.param("[fd00:ec2::254]", id="the cloud's metadata by IPv6"),
    ],
)
async def test_what_is_near_the_operator_is_not_asked(host: str, serve: Serve) -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response()

    port = (await serve(answer)).rpartition(":")[2]
    got = await posted(f"http://{host}:{port}", hosts=())
    assert got is not None
    assert asked == []


@pytest.mark.parametrize(
    ("host", "is_asked"),
    [
        pytest.param("events.team-a.svc", True, id="one of those"),
        pytest.param("events.example.com", False, id="another"),
        pytest.param("127.0.0.1", False, id="an address"),
    ],
)
async def test_with_a_list_of_hosts_nobody_else_is_asked(host: str, is_asked: bool) -> None:
    got = await posted(f"http://{host}:9/", hosts=("*.svc", "broker.example"))
    assert got is not None
    assert ("may not post events" in str(got)) is not is_asked
