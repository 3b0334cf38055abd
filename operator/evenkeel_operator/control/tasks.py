"""Which task follows which ModelDeployment? One for each, of everything that follows them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from evenkeel_operator.control.cache import Key

_ENDING_S = 1.0


class Tasks:
    """The tasks of one kind; `what` is the first word of their names."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._running: dict[Key, asyncio.Task[None]] = {}

    def begin(self, key: Key, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` for `key` from now on, for which nothing is being done."""
        self._running[key] = asyncio.create_task(work, name=f"{self._what} {key}")

    def ended(self, key: Key) -> None:
        """Take note that the task of `key` ends by itself."""
        self._running.pop(key, None)

    def end(self, key: Key) -> None:
        """End the task of `key`, if there is one."""
        if (task := self._running.pop(key, None)) is not None:
            task.cancel()

    async def end_all(self) -> None:
        """End every task, and wait a moment for that."""
        tasks = list(self._running.values())
        self._running.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_ENDING_S)
