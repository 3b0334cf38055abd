"""Does the loop get its turn between two calls of the model, and is everybody answered in order all the same?"""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.engine import modes
from evenkeel_runtime.engine.batching import Batch, Policy, Queue, Work
from evenkeel_runtime.engine.forward import Answers, Forward
from evenkeel_runtime.engine.modes import Inline
from evenkeel_runtime.models.loaded import Signature

ROW = Tensor("x", "INT64", (-1,))
MAX_ROWS = 2


class Served:
    """A model that doubles numbers and fails at negative ones, what it was called with, and what was answered."""

    def __init__(self, max_rows: int = MAX_ROWS, takes_s: float = 0.0) -> None:
        self.takes_s = takes_s
        self.calls: list[list[int]] = []
        self.ticks: list[int] = []
        self.told: list[tuple[int, object]] = []
        self._tick = 0
        forward = Forward(Signature((ROW,), (ROW,), 0, ((1,),)), self._double, "cpu", max_rows)
        self.mode = Inline(Queue(Policy(max_rows, 1000)), forward, self._answered, self._expired)

    def ask(self, *values: int, deadline: float | None = None) -> Work:
        work = Work(len(values), "k", SimpleNamespace(arrays=[np.array(values)]), deadline)
        assert self.mode.queue.admit(work, 0.0)
        self.mode.wake()
        return work

    async def turn(self) -> None:
        await asyncio.sleep(0)
        self._tick += 1

    async def until_answered(self, count: int) -> None:
        for _ in range(100):
            if len(self.told) == count:
                return
            await self.turn()
        raise AssertionError(f"{len(self.told)} of {count} were answered")

    def _double(self, x: torch.Tensor) -> list[torch.Tensor]:
        self.calls.append(x.tolist())
        self.ticks.append(self._tick)
        time.sleep(self.takes_s)
        if (x < 0).any():
            raise ValueError("a negative number")
        return [x * 2]

    def _answered(self, batch: Batch, answers: Answers | Exception, began: float, took: float) -> None:
        for index, work in enumerate(batch.works):
            answer: Any = answers if isinstance(answers, Exception) else answers[index]
            if not work.cancelled:
                self.told.append((work.rows, str(answer) if isinstance(answer, Exception) else answer[0].tolist()))

    def _expired(self, work: Work) -> None:
        self.told.append((work.rows, "late"))


async def test_a_request_in_pieces_leaves_the_loop_its_turn_and_is_not_overtaken() -> None:
    served = Served()
    served.ask(1, 2, 3, 4, 5)
    await served.turn()
    served.ask(6)
    served.ask(7, deadline=0.0)
    await served.until_answered(3)
    assert served.calls == [[1, 2], [3, 4], [5], [6]]
    assert served.ticks == [0, 1, 2, 3]
    assert served.told == [(5, [2, 4, 6, 8, 10]), (1, "late"), (1, [12])]


async def test_requests_that_are_run_again_each_have_a_tick_of_their_own() -> None:
    served = Served()
    served.ask(1)
    served.ask(-1)
    served.ask(3)
    await served.until_answered(3)
    assert served.calls == [[1, -1], [1], [-1], [3]]
    assert served.ticks == [0, 1, 2, 3]
    assert served.told == [(1, [2]), (1, "a negative number"), (1, [6])]


async def test_rest_of_a_request_whose_client_has_left_is_not_run() -> None:
    served = Served()
    leaving = served.ask(1, 2, 3, 4, 5)
    await served.turn()
    served.mode.queue.cancel(leaving)
    served.ask(6)
    await served.until_answered(1)
    assert served.calls == [[1, 2], [6]]
    assert served.told == [(1, [12])]


async def test_a_piece_that_fails_fails_its_request_and_no_other() -> None:
    served = Served()
    served.ask(1, 2, -3, 4)
    served.ask(5)
    await served.until_answered(2)
    assert served.told == [(4, "a negative number"), (1, [10])]


TOGETHER = (1, 2, 3)


@pytest.mark.parametrize(
    ("patience", "first", "back", "want"),
    [
        pytest.param(1.0, TOGETHER, (4, 5, 6), [[4, 5, 6]], id="those who were answered together share a call again"),
        pytest.param(1.0, TOGETHER, (4, 5, 6, 7), [[4, 5, 6], [7]], id="whoever comes in addition is not waited for"),
        pytest.param(0.2, TOGETHER, (4, 5), [[4, 5]], id="who does not come back holds the others up for a while"),
        pytest.param(0.0, TOGETHER, (4, 5, 6), [[4], [5], [6]], id="one by one without patience"),
        pytest.param(1.0, (1,), (2, 3), [[2], [3]], id="who was answered alone waits for nobody"),
        pytest.param(1.0, (1, 2, 3, 4, 5), (6,), [[5, 6]], id="who has waited for a call already waits for nobody"),
    ],
)
async def test_clients_that_come_back_one_after_the_other(
    patience: float,
    first: tuple[int, ...],
    back: tuple[int, ...],
    want: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(modes, "PATIENCE", patience)
    monkeypatch.setattr(modes, "MOST_PATIENCE", 10 * patience)
    served = Served(max_rows=4, takes_s=0.05)
    for value in first:
        served.ask(value)
    await served.turn()
    assert served.calls == [list(first[:4])]
    for value in back:
        served.ask(value)
        await served.turn()
    until = time.perf_counter() + 0.5
    while len(served.told) < len(first) + len(back) and time.perf_counter() < until:
        await served.turn()
    assert served.calls[1:] == want


NEARLY = 0.019
"""Seconds of waiting in vain that the patience for one client just allows, after a call of one second."""


@pytest.mark.parametrize(
    ("looks", "want"),
    [
        pytest.param([(5.0, 1), (9.0, 2), (20.0, 3)], [True] * 3, id="what it takes to read requests is not waiting"),
        pytest.param([(5.0, 1), (5.01, 1), (5.03, 1)], [True, True, False], id="a look in vain is for a short time"),
        pytest.param(
            [(5.0, 1), (5.015, 1), (5.02, 2), (5.03, 2), (5.05, 2)],
            [True, True, True, True, False],
            id="which begins again with each who is back",
        ),
        pytest.param(
            [(look + late, look) for look in range(1, 7) for late in (0.0, NEARLY)],
            [True] * 11 + [False],
            id="and is no more than a tenth of the call for all of them",
        ),
        pytest.param([(5.0, 1), (5.0, 8)], [True, False], id="nobody is looked out for when all are back"),
    ],
)
def test_how_long_those_who_were_answered_together_are_looked_out_for(
    looks: list[tuple[float, int]], want: list[bool]
) -> None:
    queue, returning = Queue(Policy(100, 1000)), modes._Returning(8, 1.0)
    got = []
    for now, waiting in looks:
        while queue.requests < waiting:
            queue.admit(Work(1, "k"), now)
        got.append(returning.are_awaited(queue, now))
    assert got == want
