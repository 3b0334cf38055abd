"""Is a capacity computed once, and again where that went wrong?"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest

from evenkeel_operator.control.capacities import Capacities, Latest
from evenkeel_operator.decide.capacity import Capacity, Roofline
from evenkeel_operator.decide.carried import Carried
from evenkeel_operator.decide.requests import RequestRows

TOO_SLOW = Roofline(0.2, 0.2, 0.0, 4)
"""Known at once: nearly idle it misses the target."""


async def test_what_could_not_be_computed_is_computed_when_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    capacities, asked = Capacities(), 0

    def fails(*_: object, **__: object) -> Generator[None, None, Capacity]:
        nonlocal asked
        asked += 1
        yield
        raise ArithmeticError("for once")

    with monkeypatch.context() as once:
        once.setattr("evenkeel_operator.control.capacities.computing", fails)
        with pytest.raises(ArithmeticError, match="for once"):
            await capacities.of(TOO_SLOW, 0.1, 0.95)
    got = await capacities.of(TOO_SLOW, 0.1, 0.95)
    assert not got.is_attainable
    monkeypatch.setattr("evenkeel_operator.control.capacities.computing", fails)
    assert await capacities.of(TOO_SLOW, 0.1, 0.95) == got, "known by now"
    assert asked == 1


async def test_others_go_on_while_a_capacity_is_computed() -> None:
    computed = asyncio.ensure_future(Capacities().of(Roofline(0.01, 0.0096, 0.0002, 64), 0.05, 0.95))
    turns = 0
    while not computed.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 10


async def test_a_device_that_is_flat_for_longer_has_a_capacity_of_its_own() -> None:
    """Both take 10 ms for one row and 0.2 ms for each beyond the knee, which is at 2 rows with one, at 50 the other."""
    capacities, early, late = Capacities(), Roofline(0.01, 0.0096, 0.0002, 64), Roofline(0.01, 0.0, 0.0002, 64)
    got = [(await capacities.of(roofline, 0.05, 0.95)).rate for roofline in (early, late)]
    assert got[1] > 1.7 * got[0]


async def test_a_device_that_is_slow_with_requests_of_many_rows_has_a_capacity_of_its_own() -> None:
    """Of one row each takes 10 ms, and where a batch has no more rows, a request of 16 is one: of 10 ms or of 160."""
    capacities, rows = Capacities(), RequestRows(16.0, 256.0)
    flat, steep = Roofline(0.01, 0.01, 0.0, 1), Roofline(0.01, 0.0, 0.01, 1)
    got = [(await capacities.of(roofline, 1.0, 0.95, rows)).rate for roofline in (flat, steep)]
    assert got[0] > 10.0 * got[1]


@pytest.mark.parametrize(
    ("change", "is_another"),
    [
        pytest.param({}, False, id="the same"),
        pytest.param({"fixed_s": 2e-6}, False, id="a little next to nothing is no other device"),
        pytest.param({"floor_s": 0.0}, False, id="nor is what no batch shows"),
        pytest.param({"row_s": 0.0011}, True, id="a slower one"),
        pytest.param({"max_rows": 63}, True, id="one of smaller batches"),
        pytest.param({"engines": 2}, True, id="two of them in a replica"),
        pytest.param({"floor_s": 0.004}, True, id="one that is flat at first"),
    ],
)
async def test_what_is_computed_anew(change: dict[str, Any], is_another: bool) -> None:
    capacities, device = Capacities(), Roofline(0.0005, 1e-6, 0.001, 64)
    await capacities.of(device, 0.0011, 0.95)
    await capacities.of(replace(device, **change), 0.0011, 0.95)
    assert (len(capacities._known) > 1) is is_another


async def test_whoever_follows_a_capacity_goes_on_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Roofline] = []
    turn = asyncio.Semaphore(0)

    async def of(roofline: Roofline, target_s: float, quantile: float, requests: RequestRows) -> Capacity:
        asked.append(roofline)
        await turn.acquire()
        return Capacity(1.0 / roofline.floor_s, 1.0, 1.0)

    capacities = Capacities()
    monkeypatch.setattr(capacities, "of", of)
    monkeypatch.setattr("evenkeel_operator.control.capacities.WAIT_S", 0.01)
    latest = Latest(capacities)
    first, second, third = (Roofline(floor_s, floor_s, 0.0, 8) for floor_s in (0.01, 0.02, 0.04))
    for roofline in (first, second, third):
        await latest.follow(roofline, 0.2, 0.95)
    assert (asked, latest.found) == ([first], None), "one at a time"
    turn.release()
    await latest.follow(third, 0.2, 0.95)
    await latest.follow(third, 0.2, 0.95)
    assert latest.found == Carried(Capacity(100.0, 1.0, 1.0), 0.2, 0.95)
    assert asked == [first, third], "what has changed meanwhile is passed over"
    turn.release()
    for _ in range(3):
        await asyncio.sleep(0)
        await latest.follow(third, 0.2, 0.95)
    assert latest.found.capacity.rate == 25.0
    assert asked == [first, third], "what is known is asked for once"


async def test_devices_that_are_nearly_alike_share_a_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred that differ by up to 2 per cent: with the time of each size of a batch rounded, they are thirteen."""

    def at_once(*_: object, **__: object) -> Generator[None, None, Capacity]:
        yield
        return Capacity(1.0, 1.0, 1.0)

    monkeypatch.setattr("evenkeel_operator.control.capacities.computing", at_once)
    capacities, chance = Capacities(), random.Random(1)
    for _ in range(100):
        device = Roofline(0.004, 0.001 * chance.uniform(0.98, 1.02), 0.001 * chance.uniform(0.98, 1.02), 64)
        await capacities.of(device, 0.1, 0.95)
    assert len(capacities._known) <= 6
