"""How do many posts share one transaction, and who waits for it?

One thread writes. What has come in while a transaction was on its way to the disk is the next one: under load each
sync is shared by many, and a lone post waits for nobody. The queue is bounded; what does not fit is refused at once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from evenkeel_operator.feedback.records import Answer, Label, Told
from evenkeel_operator.feedback.store import Refused, Store, Unavailable

WAITING = 20_000
"""Labels that may wait; about a second's work."""
AT_ONCE = 2_000
"""Labels of one transaction: more would let the first of them wait for the last."""

log = logging.getLogger(__name__)


class Full(Exception):
    """More waits than can be written soon."""


@dataclass(slots=True)
class _Unit:
    labels: Sequence[Label]
    told: Told | None
    future: asyncio.Future[list[Answer]]

    @property
    def weight(self) -> int:
        told = self.told
        return len(self.labels) + (0 if told is None else 1 + len(told.totals) + len(told.ids) + len(told.pairs))


class Commits:
    """Writes to one store, from one thread."""

    def __init__(self, store: Store, waiting: int = WAITING) -> None:
        self._store = store
        self._most = waiting
        self._waiting: deque[_Unit] = deque()
        self._weight = 0
        self._changed = threading.Condition()
        self._ends = False
        self._expires_before_s: tuple[int, int] | None = None
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="commits", daemon=True)
        self._thread.start()

    async def labels(self, labels: Sequence[Label]) -> list[Answer]:
        """Return the answer to each label once it is durable; raises Full, Unavailable."""
        return await self._wait_for(labels, None)

    async def told(self, told: Told) -> None:
        """Return when what a replica has told is durable; raises Full, Unavailable."""
        await self._wait_for((), told)

    def expire(self, before_s: int, ids_before_s: int) -> None:
        """Delete what belongs to predictions before that moment, and users' own ids told before theirs, between the
        posts."""
        with self._changed:
            self._expires_before_s = before_s, ids_before_s
            self._changed.notify()

    @property
    def is_alive(self) -> bool:
        """Whether the thread still writes."""
        return self._thread.is_alive()

    async def stop(self) -> None:
        """Write what waits, then end."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    async def _wait_for(self, labels: Sequence[Label], told: Told | None) -> list[Answer]:
        unit = _Unit(labels, told, self._loop.create_future())
        with self._changed:
            # Where nothing waits, any post may: one that is heavier than all that may wait would never be taken.
            if self._ends or (self._waiting and self._weight + unit.weight > self._most):
                raise Full
            self._waiting.append(unit)
            self._weight += unit.weight
            self._changed.notify()
        return await unit.future

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ends or self._expires_before_s is not None)
                if not self._waiting and self._ends:
                    return
                units = self._taken()
                before_s = self._expires_before_s
            if units:
                self._write(units)
            elif before_s is not None:
                self._expire(before_s)

    def _taken(self) -> list[_Unit]:
        units: list[_Unit] = []
        weight = 0
        while self._waiting and (not units or weight + self._waiting[0].weight <= AT_ONCE):
            unit = self._waiting.popleft()
            weight += unit.weight
            units.append(unit)
        self._weight -= weight
        return units

    def _write(self, units: list[_Unit]) -> None:
        """Write them in one transaction; where something in it is not taken, each in one of its own: what one sender
        sends is no reason to refuse another's."""
        error = self._written(units)
        if error is None:
            return
        if len(units) == 1 or not isinstance(error, Refused):
            self._loop.call_soon_threadsafe(_fail, units, error)
            return
        for number, unit in enumerate(units):
            error = self._written([unit])
            if error is not None and not isinstance(error, Refused):  # it would be the same for each that follows
                self._loop.call_soon_threadsafe(_fail, units[number:], error)
                return
            if error is not None:
                self._loop.call_soon_threadsafe(_fail, [unit], error)

    def _written(self, units: list[_Unit]) -> Unavailable | None:
        """Write these in one transaction and answer those who wait; return why it was not possible."""
        labels = [label for unit in units for label in unit.labels]
        told = [unit.told for unit in units if unit.told is not None]
        try:
            answers = self._store.write(labels, told, int(time.time()))
        except Unavailable as e:
            log.warning("not written posts=%d labels=%d error=%s", len(units), len(labels), e)
            return e
        except Exception as e:  # whatever it is, those who wait have to hear of it
            log.exception("not written posts=%d labels=%d", len(units), len(labels))
            return Refused(repr(e))
        self._loop.call_soon_threadsafe(_answer, units, answers)
        return None

    def _expire(self, before_s: tuple[int, int]) -> None:
        try:
            if self._store.expire(*before_s):
                return
        except Unavailable as e:
            log.warning("nothing deleted error=%s", e)
        except Exception:  # whatever it is, posts have to be written all the same
            log.exception("nothing deleted before_s=%d ids_before_s=%d", *before_s)
        with self._changed:
            if self._expires_before_s == before_s:
                self._expires_before_s = None


def _answer(units: list[_Unit], answers: list[Answer]) -> None:
    start = 0
    for unit in units:
        stop = start + len(unit.labels)
        if not unit.future.done():  # whoever posted may have gone
            unit.future.set_result(answers[start:stop])
        start = stop


def _fail(units: list[_Unit], error: Unavailable) -> None:
    for unit in units:
        if not unit.future.done():
            unit.future.set_exception(error)
