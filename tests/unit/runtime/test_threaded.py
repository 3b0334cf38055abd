"""Which engine has the next batch, where there are several?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import numpy as np

from evenkeel_runtime.engine.batching import Batch, Policy, Queue, Work
from evenkeel_runtime.engine.forward import Answers
from evenkeel_runtime.engine.modes import Threaded


class Held:
    """An engine that has each batch until it is let go."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.go_on = threading.Semaphore(0)

    def run(self, batch: Batch) -> Answers:
        self.rows.append([work.rows for work in batch.works])
        self.go_on.acquire()
        return {index: [np.zeros(work.rows)] for index, work in enumerate(batch.works)}


async def test_the_next_batch_is_that_of_the_engine_that_is_free_first() -> None:
    """Two requests run side by side; what comes while both engines are busy waits together for one of them."""
    engines = [Held(), Held()]
    answered: list[int] = []

    def note(batch: Batch, answers: Answers | Exception, began: float, took: float) -> None:
        answered.extend(work.rows for work in batch.works)

    mode = Threaded(Queue(Policy(8, 1000)), engines, note, lambda work: None)

    async def ask(rows: int) -> None:
        assert mode.queue.admit(Work(rows, "k"), 0.0)
        mode.wake()
        await asyncio.sleep(0)

    async def until(holds: Callable[[], bool]) -> None:
        for _ in range(5000):
            if holds():
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"{[engine.rows for engine in engines]} were begun, {answered} answered")

    async def until_begun(batches: int) -> None:
        await until(lambda: sum(len(engine.rows) for engine in engines) == batches)

    await ask(1)
    await until_begun(1)
    await ask(2)
    await until_begun(2)
    assert sorted(engine.rows for engine in engines) == [[[1]], [[2]]]
    await ask(3)
    await ask(4)
    second = next(engine for engine in engines if engine.rows == [[2]])
    second.go_on.release()
    await until_begun(3)
    assert (second.rows, answered) == ([[2], [3, 4]], [2])
    for engine in engines:
        engine.go_on.release()
    await until(lambda: len(answered) == 4)
    mode.stop()
