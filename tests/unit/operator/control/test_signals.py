"""Are replicas heard, however many others hang?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from evenkeel_operator.decide.readings import BadReading, Flaw
from evenkeel_operator.world import signals
from evenkeel_operator.world.signals import AT_ONCE, Replicas, Target

HANGS = "127.0.1.1"
ANSWERS = "127.0.2.1"


@pytest.fixture
async def replicas(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Replicas]:
    """Yield the connections to replicas of which HANGS accepts a question and never answers."""
    monkeypatch.setattr(signals, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(signals, "PLACE_S", 0.05)
    never = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if request.host.startswith(HANGS):
            await never.wait()
        return web.Response(text="{}")

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "0.0.0.0", 0, backlog=4 * AT_ONCE)
    await site.start()
    (host,) = runner.addresses
    found = Replicas(host[1])
    yield found
    await found.close()
    await runner.cleanup()


@pytest.mark.parametrize(
    "was_silent",
    [
        pytest.param(False, id="that hang for the first time"),
        pytest.param(True, id="that have hung before"),
    ],
)
async def test_replicas_that_hang_hold_up_no_other(replicas: Replicas, was_silent: bool) -> None:
    hung = [Target(f"hung-{number}", HANGS, was_silent) for number in range(4 * AT_ONCE)]
    asked = asyncio.create_task(replicas.ask(hung))
    await asyncio.sleep(0.01)
    began = time.monotonic()
    (answer,) = (await replicas.ask([Target("well", ANSWERS)])).values()
    took_s = time.monotonic() - began
    assert isinstance(answer, BadReading)
    assert answer.flaw is Flaw.MALFORMED, "it has answered"
    assert took_s < 1.0, "as long as one of the others may take"
    answers = await asked
    assert answers.keys() == {target.replica for target in hung}
    assert {a.flaw if isinstance(a, BadReading) else None for a in answers.values()} == {Flaw.TOO_SLOW}


async def test_a_replica_that_has_hung_is_heard_when_it_answers_again(replicas: Replicas) -> None:
    (answer,) = (await replicas.ask([Target("well", ANSWERS, was_silent=True)])).values()
    assert isinstance(answer, BadReading)
    assert answer.flaw is Flaw.MALFORMED


async def test_a_place_is_given_back_once(replicas: Replicas) -> None:
    for _ in range(3):
        await replicas.ask([Target("hung", HANGS), Target("well", ANSWERS)])
    assert replicas._places._value == AT_ONCE
