"""Who runs the model, and when: the event loop itself, a thread beside it, or other processes?

*inline*: at the end of a tick of the loop, when every socket that was readable has been read, the requests that came
in form the batch. Nothing is handed over, so a forward of microseconds stays one; but the loop answers nothing during a
call of the model, so this is for forwards below 2 ms whose largest batch is below 10 ms. Between two calls, of which a
request of many rows needs many, the loop has its turn: 4,096 rows of 1 ms would hold up health for 4 s. Nobody
overtakes such a request. A client that is alone does not wait for the end of the tick: its request is run when it was
read. Clients that were answered together are looked out for: as long as every look at the sockets finds one that is
back, and then for a fiftieth of the last call's time after each, and a tenth in all.

*thread*: the loop goes on answering health and admitting requests while the forward runs; the batch leaves when the
model is free. The GIL's switch interval is cut to 0.2 ms there, or a health answer would wait up to 5 ms for it each
time.

*process*: several engines, each a process with a copy of the model and a thread that waits for it here; the next batch
is that of whichever is free first, and what comes while none is waits together.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from evenkeel_runtime.engine.batching import Batch, Queue, Work
from evenkeel_runtime.engine.cuda import DeviceLost
from evenkeel_runtime.engine.forward import Answers, Forward

INLINE = "inline"
THREAD = "thread"
PROCESS = "process"
INLINE_BELOW_S = 0.002
INLINE_LARGEST_BELOW_S = 0.01
PATIENCE, MOST_PATIENCE = 0.02, 0.1
"""How long the model is idle for the next of those that it has just answered together, and for all of them, as parts of
what its call for them took."""
SWITCH_INTERVAL_S = 0.0002

Answered = Callable[[Batch, "Answers | Exception", float, float], None]
"""Given a batch, its answers or why there are none at all, when the forward began and how long it took."""
Expired = Callable[[Work], None]


class Engine(Protocol):
    """What runs batches, one at a time: a `Forward` here, or one in another process."""

    def run(self, batch: Batch) -> Answers:
        """Return each request's outputs. The arrays are valid until the next run."""


class Mode(Protocol):
    name: str
    queue: Queue

    def wake(self, *, at_once: bool = False) -> None:
        """Note that the queue has work, and run it `at_once` if the model is free: nothing else will come in."""

    def stop(self) -> None: ...


def mode_for(forward_s: float | None, largest_s: float | None, device: str) -> str:
    """Return the mode for a model, by its forward of one row and its longest call (None: unknown, maybe long)."""
    if device != "cpu" or forward_s is None or largest_s is None:
        return THREAD
    return INLINE if forward_s < INLINE_BELOW_S and largest_s < INLINE_LARGEST_BELOW_S else THREAD


class Inline:
    """Runs batches on the event loop, one at a time, and one call of the model in a tick."""

    name = INLINE

    def __init__(self, queue_: Queue, forward: Forward, answered: Answered, expired: Expired) -> None:
        self.queue = queue_
        self._forward, self._answered, self._expired = forward, answered, expired
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._is_between_calls = False
        self._returning = _NOBODY

    def wake(self, *, at_once: bool = False) -> None:
        if self._scheduled:
            return
        if at_once:
            self._run()
        else:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def stop(self) -> None:
        """Nothing to stop: the loop owns it."""

    def _run(self) -> None:
        self._scheduled = False
        if self._is_between_calls:
            return
        began = time.perf_counter()
        if self._returning.are_awaited(self.queue, began):
            self.wake()
            return
        batch = self.queue.next_batch(began)
        if batch is None:
            return
        if self.queue.requests:
            self.wake()  # the rest in the next tick: sockets are read in between
        for work in batch.expired:
            self._expired(work)
        if batch.works:
            self._call(batch, self._forward.calls(batch), began)

    def _call(self, batch: Batch, calls: Generator[None, None, Answers], began: float) -> None:
        answers: Answers | Exception
        try:
            next(calls)
        except StopIteration as end:
            answers = end.value
        except Exception as error:  # noqa: BLE001 - the model is the user's program and may raise anything
            answers = error
        else:
            self._is_between_calls = True
            self._loop.call_soon(self._go_on, batch, calls, began)
            return
        ended = time.perf_counter()
        self._answered(batch, answers, began, ended - began)
        if len(batch.works) > 1 and not self.queue.requests:
            self._returning = _Returning(len(batch.works), ended - began)
        else:
            self._returning = _NOBODY

    def _go_on(self, batch: Batch, calls: Generator[None, None, Answers], began: float) -> None:
        """Make the next call, unless nobody waits for it any more."""
        self._is_between_calls = False
        if self.queue.requests:
            self.wake()
        if not all(work.cancelled for work in batch.works):
            self._call(batch, calls, began)


class _Returning:
    """Clients that were answered together, and ask again one after the other while the model is free.

    Not waited for, 32 of them are served as 8 and 24 for ever: the first that are back have a call of their own, during
    which the others come. Nobody is waited for by a lone request, by one that has waited for a call already, or for
    longer than a small part of that call.

    Only the time in which nobody came counts as waiting: a request has to be read in any case, and while it is, others
    arrive. Reading 32 requests takes longer than the call of a small model for all of them, so counted by the clock,
    from the call's end, its time would be over before the first is back.
    """

    def __init__(self, requests: int, took: float) -> None:
        self._requests = requests
        self._seen = 0
        self._since = 0.0  # when the last one came
        self._idle = 0.0
        self._patience = took * PATIENCE
        self._left = took * MOST_PATIENCE

    def are_awaited(self, queue_: Queue, now: float) -> bool:
        """Return whether to look at the sockets once more before the model is called."""
        waiting = queue_.requests
        if waiting >= self._requests or queue_.rows >= queue_.policy.max_rows:
            return False
        if waiting > self._seen:
            self._left -= self._idle
            self._seen, self._since, self._idle = waiting, now, 0.0
        else:
            self._idle = now - self._since
        return self._idle < min(self._patience, self._left)


_NOBODY = _Returning(0, 0.0)


class Threaded:
    """Runs batches in a thread for each engine, one at a time there; the next one forms while all of them run."""

    name = THREAD

    def __init__(self, queue_: Queue, engines: Sequence[Engine], answered: Answered, expired: Expired) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self.queue = queue_
        self._answered, self._expired = answered, expired
        self._loop = asyncio.get_running_loop()
        self._todo: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._engines = self._free = len(engines)
        self._scheduled = False
        for engine in engines:
            threading.Thread(target=self._work, args=(engine,), name="forward", daemon=True).start()

    def wake(self, *, at_once: bool = False) -> None:
        if self._scheduled or not self._free:
            return
        if at_once:
            self._dispatch()
        else:
            self._scheduled = True
            self._loop.call_soon(self._dispatch)

    def stop(self) -> None:
        for _ in range(self._engines):
            self._todo.put(None)

    def _dispatch(self) -> None:
        self._scheduled = False
        while self._free and (batch := self.queue.next_batch(time.perf_counter())) is not None:
            for work in batch.expired:
                self._expired(work)
            if batch.works:
                self._free -= 1
                self._todo.put(batch)

    def _work(self, engine: Engine) -> None:
        while (batch := self._todo.get()) is not None:
            began = time.perf_counter()
            answers = _run(engine, batch)
            took = time.perf_counter() - began
            done: queue.SimpleQueue[bool] = queue.SimpleQueue()
            self._loop.call_soon_threadsafe(self._finish, batch, answers, began, took, done)
            if not done.get():  # the answers are views of the model's tensors until they are written out
                return

    def _finish(
        self,
        batch: Batch,
        answers: Answers | Exception,
        began: float,
        took: float,
        done: queue.SimpleQueue[bool],
    ) -> None:
        """Write the answers and let the engine go on; one that is lost does only where no other is left, for it would
        be free first, time and again."""
        goes_on = self._engines == 1 or not _is_lost(answers)
        if goes_on:
            self._free += 1
        else:
            self._engines -= 1
        try:
            self._answered(batch, answers, began, took)
        finally:
            done.put(goes_on)
            self._dispatch()


def _is_lost(answers: Answers | Exception) -> bool:
    found = (answers,) if isinstance(answers, Exception) else answers.values()
    return any(isinstance(answer, DeviceLost) for answer in found)


def _run(engine: Engine, batch: Batch) -> Answers | Exception:
    """Return the answers, or the model's error: one failed batch must not end the server."""
    try:
        return engine.run(batch)
    except Exception as error:  # noqa: BLE001 - the model is the user's program and may raise anything
        return error
