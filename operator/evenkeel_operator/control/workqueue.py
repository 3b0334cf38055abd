"""Whose turn is it? A queue of keys in which none stands twice and none is worked on twice at once.

The semantics are client-go's (k8s.io/client-go/util/workqueue): `add` of a waiting key does nothing; `add` of a key in
work is remembered and queues it again when it is done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

BASE_DELAY_S = 0.005
MOST_DELAY_S = 300.0

K = TypeVar("K", bound=Hashable)


def backoff_s(failures: int) -> float:
    """Return how long to wait after the `failures`-th failure in a row, counted from 1."""
    return min(BASE_DELAY_S * 2.0 ** min(failures - 1, 32), MOST_DELAY_S)


class WorkQueue(Generic[K]):
    """Keys that want attention."""

    def __init__(self) -> None:
        self._waiting: deque[K] = deque()
        self._dirty: set[K] = set()
        self._processing: set[K] = set()
        self._failures: dict[K, int] = {}
        self._later: dict[K, asyncio.TimerHandle] = {}
        self._getters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        """Return how many keys wait for a worker now."""
        return len(self._waiting)

    def add(self, key: K) -> None:
        """Queue `key`, or remember that it must be worked on again."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._push(key)

    def add_after(self, key: K, delay_s: float) -> None:
        """Queue `key` in `delay_s` seconds; of several such wishes the earliest counts."""
        if delay_s <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + delay_s
        if (timer := self._later.get(key)) is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._later[key] = loop.call_at(when, self._due, key)

    def add_rate_limited(self, key: K, least_s: float = 0.0) -> float:
        """Queue `key` after a delay that doubles with every failure, at least `least_s`; return the delay."""
        self._failures[key] = self._failures.get(key, 0) + 1
        delay_s = max(backoff_s(self._failures[key]), least_s)
        self.add_after(key, delay_s)
        return delay_s

    def forget(self, key: K) -> None:
        """Take back the failures of `key`."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """Return the next key; the caller must call `done` with it. What was due later for it is due no more."""
        while not self._waiting:
            getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled():
                    self._wake()  # this one was told of a key and will not take it
                else:
                    self._getters.remove(getter)
                raise
        key = self._waiting.popleft()
        self._dirty.discard(key)
        self._processing.add(key)
        if (timer := self._later.pop(key, None)) is not None:
            timer.cancel()
        return key

    def done(self, key: K) -> None:
        """Give `key` back; queues it again if it was added meanwhile."""
        self._processing.discard(key)
        if key in self._dirty:
            self._push(key)

    def close(self) -> None:
        """Drop every timer."""
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()

    def _due(self, key: K) -> None:
        self._later.pop(key, None)
        self.add(key)

    def _push(self, key: K) -> None:
        self._waiting.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return
