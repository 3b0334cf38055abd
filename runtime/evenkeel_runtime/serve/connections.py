"""Which connections does a port have, and what may they hold together?

A full replica still has to say that it lives: one whose probe is sent away is killed for having work. So beyond the
limit SURPLUS more connections may ask one question each, for health or metrics, and are sent away with any other. When
those are taken too, the one that came first makes room for the newcomer: a probe asks at once, and has its answer
before so many others have come. There are never more connections, and so file descriptors, than both bounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from evenkeel_runtime.config import Limits
from evenkeel_runtime.serve.protocol import Connection, Exchange

SURPLUS = 64

Handler = Callable[[Exchange], None]


class Server:
    """What all connections share. `is_closing` asks every answer to end its connection; `vital` are the paths that are
    answered beyond the limit of connections; `receiving_bytes` is what unfinished bodies hold."""

    def __init__(
        self,
        handler: Handler,
        limits: Limits,
        on_refused: Callable[[int], None] = lambda status: None,
        vital: frozenset[bytes] = frozenset(),
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.connections: set[Connection] = set()
        self.is_closing = False
        self.on_refused = on_refused
        self.vital = vital
        self.receiving_bytes = 0
        self._surplus: dict[Connection, None] = {}  # in the order in which they came

    def connection(self) -> Connection:
        return Connection(self)

    def enter(self, connection: Connection) -> bool:
        """Take a connection in, and return whether it is beyond the limit."""
        self.connections.add(connection)
        if len(self.connections) - len(self._surplus) <= self.limits.connections:
            return False
        if len(self._surplus) >= SURPLUS:
            oldest = next(iter(self._surplus))
            self.leave(oldest)
            oldest.abort()
        self._surplus[connection] = None
        return True

    def leave(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._surplus.pop(connection, None)

    @property
    def exchanges(self) -> int:
        """How many requests are admitted and not yet answered."""
        return sum(len(connection.exchanges) for connection in self.connections)

    def close_idle(self) -> None:
        for connection in list(self.connections):
            connection.close_if_idle()

    async def sweep(self) -> None:
        """End connections whose clients are too slow, once a second, so that no request pays for a timer."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(1.0, self.limits.client_timeout_s / 4))
            now = loop.time()
            for connection in list(self.connections):
                connection.check_time(now)
