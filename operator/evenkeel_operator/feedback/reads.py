"""Who asks a connection to the database, one after another, and without holding up anybody else?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from evenkeel_operator.feedback.store import Store

T = TypeVar("T")


class Reads:
    """One connection: a thread asks it for whoever's turn it is."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._turn = asyncio.Lock()

    async def ask(self, question: Callable[[Store], T]) -> T:
        """Return what the question returns; raises what it raises, Unavailable for one."""
        async with self._turn:
            return await asyncio.to_thread(question, self.store)
