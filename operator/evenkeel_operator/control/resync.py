"""What did no watch tell us? Full lists at the start, every few minutes, and after every gap.

kopf re-lists after a gap (410) but tells nobody of what was deleted inside it. So the cache is compared with lists of
our own: what they lack is pruned, what they have newer is taken. The first of these comparisons is also what the
workers wait for: deciding on half of the children would ask for the other half again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time

from evenkeel_operator.control.controller import Controller
from evenkeel_operator.world import kinds, metrics
from evenkeel_operator.world.connection import ApiError, Connection
from evenkeel_operator.world.kinds import Kind

log = logging.getLogger(__name__)

RETRY_S = 5.0
AFTER_GAP_S = 2.0


class Resync:
    """Compares the cache with full lists."""

    def __init__(
        self, connection: Connection, controller: Controller, namespaces: tuple[str, ...], interval_s: float
    ) -> None:
        self._connection = connection
        self._controller = controller
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._interval_s = interval_s
        self._wanted = asyncio.Event()
        self._last = time.monotonic()
        self.listed = asyncio.Event()
        """Set once every kind has been listed."""

    def want(self) -> None:
        """Ask for a comparison soon: a watch had to start again."""
        self._wanted.set()

    def overdue(self) -> list[str]:
        """Return what is wrong when the last comparison is too long ago."""
        age_s = time.monotonic() - self._last
        return [f"no full list for {age_s:.0f} s"] if age_s > 3 * self._interval_s + 60 else []

    async def run(self) -> None:
        """Compare at once, then for ever."""
        while True:
            try:
                await self._compare()
            except ApiError as e:
                metrics.ERRORS.labels(kind="resync").inc()
                log.warning("resync failed error=%s", e)
                await asyncio.sleep(e.retry_after_s or RETRY_S)
                continue
            self._last = time.monotonic()
            await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._interval_s * random.uniform(2 / 3, 4 / 3)):
                await self._wanted.wait()
        except TimeoutError:
            self._look_at_all()
            return
        await asyncio.sleep(AFTER_GAP_S)  # gaps come together: every kind's watch ends when the server restarts
        self._wanted.clear()

    async def _compare(self) -> None:
        started, is_first = time.monotonic(), not self.listed.is_set()
        repaired = 0
        for kind in kinds.WATCHED:
            for namespace in self._namespaces:
                repaired += await self._compare_kind(kind, namespace)
        metrics.OBJECTS.set(self._controller.cache.count(kinds.MODELDEPLOYMENT))
        taken_s = time.monotonic() - started
        if is_first:
            self.listed.set()
            log.info("listed objects=%d seconds=%.1f", repaired, taken_s)
        elif repaired:
            metrics.RESYNC_REPAIRS.inc(repaired)
            log.info("resync repaired=%d seconds=%.1f", repaired, taken_s)

    async def _compare_kind(self, kind: Kind, namespace: str | None) -> int:
        listed: set[str] = set()
        version, repaired = 0, 0
        async for page in self._connection.pages(kind, namespace):
            version = int(page.version or 0)
            for obj in page.items:
                listed.add(obj["metadata"]["uid"])
                if self._controller.cache.put(kind, obj):
                    repaired += 1
                    self._controller.enqueue(kind, obj)
            await asyncio.sleep(0)
        for obj in self._controller.cache.prune(kind, namespace, listed, version):
            repaired += 1
            self._controller.enqueue(kind, obj)
        return repaired

    def _look_at_all(self) -> None:
        """Queue everybody, spread over part of the interval: costs no request where nothing is missing."""
        for key in self._controller.cache.deployments():
            self._controller.queue.add_after(key, random.uniform(0, self._interval_s / 4))
