"""What exists of one kind, now and from now on? List, then watch, for ever: an own one beside kopf's.

kopf has one label selector per kind and needs it for our own pods; the fleet needs all pods. A list replaces what was
known, so that nothing outlives a gap between two watches.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Generic, TypeVar

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.world import metrics
from evenkeel_operator.world.connection import ApiError, Connection
from evenkeel_operator.world.kinds import Kind

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_DELAY_S, MOST_DELAY_S = 1.0, 60.0
FORBIDDEN_DELAY_S = 300.0


class Reflector(Generic[T]):
    """Keeps `known`: what `keep` makes of every object of `kind`, by uid. Objects it makes None of are left out.

    `changed` is called after every change of it. `known` is None before the first list, and while the kind may not be
    read.
    """

    def __init__(
        self,
        connection: Connection,
        kind: Kind,
        keep: Callable[[Object], T | None],
        changed: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._kind = kind
        self._keep = keep
        self._changed = changed
        self.known: dict[str, T] | None = None
        self.settled = asyncio.Event()
        """Set once it is clear whether there is a list."""

    async def run(self) -> None:
        """List and watch for ever."""
        delay_s = FIRST_DELAY_S
        while True:
            try:
                version = await self._list()
                delay_s = FIRST_DELAY_S
                await self._follow(version)
            except ApiError as e:
                if e.status == 410:
                    log.info("watch expired kind=%s", self._kind.plural)
                elif e.status in (401, 403):
                    if self.known is not None or delay_s == FIRST_DELAY_S:
                        log.warning("may not be read kind=%s error=%s", self._kind.plural, e)
                    self.known = None
                    self.settled.set()
                    self._changed()
                    delay_s = FORBIDDEN_DELAY_S
                else:
                    metrics.ERRORS.labels(kind="fleet").inc()
                    log.warning("watch failed kind=%s error=%s", self._kind.plural, e)
                await asyncio.sleep(e.retry_after_s or delay_s * random.uniform(0.5, 1.0))
                delay_s = max(delay_s, min(delay_s * 2, MOST_DELAY_S))

    async def _list(self) -> str:
        found: dict[str, T] = {}
        version = ""
        async for page in self._connection.pages(self._kind, None):
            for obj in page.items:
                if (kept := self._keep(obj)) is not None:
                    found[obj["metadata"]["uid"]] = kept
            version = page.version
        self.known = found
        self.settled.set()
        self._changed()
        return version

    async def _follow(self, version: str) -> None:
        """Watch from `version` on, over as many connections as it takes; ends by raising ApiError."""
        while True:
            started = asyncio.get_running_loop().time()
            async for event in self._connection.watch(self._kind, version):
                obj = event["object"]
                if event["type"] == "ERROR":
                    raise ApiError(obj.get("code", 500), obj.get("reason", ""), obj.get("message", ""))
                version = obj["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._note(event["type"], obj)
            # A server that ends every watch at once must not be asked in a tight loop.
            if asyncio.get_running_loop().time() - started < 1.0:
                await asyncio.sleep(1.0)

    def _note(self, what: str, obj: Object) -> None:
        assert self.known is not None, "a watch follows a list"
        uid = obj["metadata"]["uid"]
        kept = None if what == "DELETED" else self._keep(obj)
        if self.known.get(uid) == kept:
            return
        if kept is None:
            del self.known[uid]
        else:
            self.known[uid] = kept
        self._changed()
