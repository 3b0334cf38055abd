"""What becomes of the copy of a request that the canary is sent?

Nobody waits for it. So it may take its time, up to a bound, and is not made at all where it would be at the cost of
users: of the stable model's time, of memory, of connections. What is dropped is counted.
"""

from __future__ import annotations

import asyncio
import time

from evenkeel_runtime.contract import MIRROR
from evenkeel_runtime.serve.onward import Attempt, Onward, Outcome, head_of
from evenkeel_runtime.serve.pairs import Pairs
from evenkeel_runtime.serve.protocol import Exchange
from evenkeel_runtime.serve.service import Service
from evenkeel_runtime.serve.tally import Drop, Failure, Tally, failure_of, is_refused_alike

WITHIN_S = 10.0
"""How long the canary may take for a copy, where the latency target is not longer."""
MOST_COPIES = 64
MOST_BYTES = 16 << 20
"""How many copies are kept at most, and what their bodies may hold together."""
_AGAIN_S = 0.02
"""How soon a copy's answer looks again for that of the stable replica, where it came first."""


class Mirror:
    """The copies that are under way, or wait for the stable replica's answer."""

    def __init__(self, service: Service, onward: Onward, pairs: Pairs | None) -> None:
        self.tally: Tally | None = None
        self._service, self._onward, self._pairs = service, onward, pairs
        self._copies = 0
        self._bytes = 0

    def drop(self, why: Drop) -> None:
        """Count a request that was chosen, and of which no copy is made."""
        if self.tally is not None:
            self.tally.dropped[why] += 1

    def copy(self, exchange: Exchange, begun: float) -> None:
        """Send the canary a copy of a request that is about to be answered."""
        tally, size = self.tally, len(exchange.body)
        if tally is None:
            return
        arm = tally.arms[MIRROR]
        arm.sent += 1
        within_s = max(WITHIN_S, self._service.signals.target_s)

        def answered(outcome: Outcome) -> None:
            took_s = time.perf_counter() - begun
            if isinstance(outcome, Failure):
                arm.failed[outcome] += 1
            elif outcome.status == 200:
                arm.answered += 1
                arm.latency.observe(took_s)
                self._compare(exchange, outcome.head, size, begun + within_s)
                return
            elif is_refused_alike(outcome.status, exchange.answer):
                arm.invalid += 1
            else:
                arm.failed[failure_of(outcome.status)] += 1
            self._end(size)

        sent = self._onward.send(head_of(exchange, MIRROR), exchange.body, within_s, answered, wants_body=False)
        if isinstance(sent, Attempt):
            self._copies += 1
            self._bytes += size
        else:
            arm.failed[sent] += 1

    def _compare(self, exchange: Exchange, head: bytes, size: int, until: float) -> None:
        """Keep what both have predicted, when the stable replica has answered; its client may leave before."""
        pairs = self._pairs
        if pairs is None or time.perf_counter() > until:
            self._end(size)
        elif exchange.answer is None:
            asyncio.get_running_loop().call_later(_AGAIN_S, self._compare, exchange, head, size, until)
        else:
            pairs.add(exchange.answer, head)
            self._end(size)

    def _end(self, size: int) -> None:
        self._copies -= 1
        self._bytes -= size

    def reason_to_drop(self, size: int) -> Drop | None:
        """Return why no copy of a request with a body of `size` bytes may be made, None where one may."""
        ready = self._service.ready
        if ready is not None and ready.mode.queue.rows > max(1, ready.mode.queue.policy.max_rows):
            return Drop.LOAD
        if self._copies >= MOST_COPIES:
            return Drop.COPIES
        return Drop.MEMORY if self._bytes + size > MOST_BYTES else None
