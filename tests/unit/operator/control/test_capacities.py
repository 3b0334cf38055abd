"""Is a capacity computed once, and again where that went wrong?"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from evenkeel_operator.control.capacities import Capacities, Latest
from evenkeel_operator.decide.capacity import Capacity, Roofline
from evenkeel_operator.decide.carried import Carried
from evenkeel_operator.decide.requests import RequestRows

TOO_SLOW = Roofline(0.2, 0.2, 0.0, 4)
"""Known at once: nearly idle it misses the target."""


async def test_what_could_not_be_computed_is_computed_when_asked_for_again() -> None:
    loop, capacities = asyncio.get_running_loop(), Capacities()
    ended = ThreadPoolExecutor(1)
    ended.shutdown()
    loop.set_default_executor(ended)
    with pytest.raises(RuntimeError, match="after shutdown"):
        await capacities.of(TOO_SLOW, 0.1, 0.95)
    loop.set_default_executor(ThreadPoolExecutor(1))
    got = await capacities.of(TOO_SLOW, 0.1, 0.95)
    assert not got.is_attainable
    loop.set_default_executor(ended)
    assert await capacities.of(TOO_SLOW, 0.1, 0.95) == got, "known by now"
    loop.set_default_executor(ThreadPoolExecutor(1))


async def test_a_device_that_is_flat_for_longer_has_a_capacity_of_its_own() -> None:
    """Both take 10 ms for one row and 0.2 ms for each beyond the knee, which is at 2 rows with one, at 50 the other."""
    capacities, early, late = Capacities(), Roofline(0.01, 0.0096, 0.0002, 64), Roofline(0.01, 0.0, 0.0002, 64)
    got = [(await capacities.of(roofline, 0.05, 0.95)).rate for roofline in (early, late)]
    assert got[1] > 1.7 * got[0]


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
