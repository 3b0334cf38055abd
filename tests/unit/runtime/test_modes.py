"""Does the loop get its turn between two calls of the model, and is everybody answered in order all the same?"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.engine.batching import Batch, Policy, Queue, Work
from evenkeel_runtime.engine.forward import Answers, Forward
from evenkeel_runtime.engine.modes import Inline
from evenkeel_runtime.models.loaded import Signature

ROW = Tensor("x", "INT64", (-1,))
MAX_ROWS = 2


class Served:
    """A model that doubles numbers and fails at negative ones, what it was called with, and what was answered."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.ticks: list[int] = []
        self.told: list[tuple[int, object]] = []
        self._tick = 0
        forward = Forward(Signature((ROW,), (ROW,), 0, ((1,),)), self._double, "cpu", MAX_ROWS)
        self.mode = Inline(Queue(Policy(MAX_ROWS, 1000)), forward, self._answered, self._expired)

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
