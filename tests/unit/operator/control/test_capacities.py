"""Is a capacity computed once, and again where that went wrong?"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from evenkeel_operator.control.capacities import Capacities
from evenkeel_operator.decide.capacity import Roofline

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
