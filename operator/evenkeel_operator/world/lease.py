"""Which of the operator's processes may act? The one that holds a coordination.k8s.io Lease.

kopf's peering is no election (equal priorities pause each other), and the client's own election writes local time as
UTC and lets network errors escape beside the leader. So: `decide` is pure, the rest is I/O.

Time stamps of other machines are never compared. A foreign Lease has expired when *we* have seen it unchanged for its
whole duration. Ours counts as held for two thirds of its duration after the last renewal was *sent*; a write may
start until then and is given the last third to end, so that no write of ours lands under a successor.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.world import metrics
from evenkeel_operator.world.connection import ApiError, Connection
from evenkeel_operator.world.kinds import LEASE

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """This process may not write any more."""


class Move(enum.Enum):
    """What to do about a Lease."""

    TAKE = "Take"
    RENEW = "Renew"
    WAIT = "Wait"


@dataclass(frozen=True, slots=True)
class Seen:
    """A Lease as it was read, and since when it has stood unchanged before our eyes."""

    holder: str
    duration_s: float
    transitions: int
    version: str
    since: float


def decide(seen: Seen | None, identity: str, now: float) -> Move:
    """Return what `identity` may do about a Lease at `now`, on our own monotonic clock.

    | Lease                            | move  |
    |----------------------------------|-------|
    | absent, or released              | Take  |
    | ours                             | Renew |
    | another's, unchanged for its duration | Take  |
    | another's, otherwise             | Wait  |
    """
    if seen is None or not seen.holder:
        return Move.TAKE
    if seen.holder == identity:
        return Move.RENEW
    return Move.TAKE if now >= seen.since + seen.duration_s else Move.WAIT


def clock() -> float:
    """Return seconds that also pass while the machine sleeps; CLOCK_MONOTONIC stands still then."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """This process's claim on the Lease."""

    def __init__(
        self, connection: Connection, namespace: str, name: str, identity: str, duration_s: float = 30.0
    ) -> None:
        self._connection = connection
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._duration_s = duration_s
        self._seen: Seen | None = None
        self._held_until = 0.0
        # A renewal under way would take back what a release gives away, or make it conflict.
        self._one_at_a_time = asyncio.Lock()
        self._is_released = False

    @property
    def write_timeout_s(self) -> float:
        """Seconds that a write may take after `check` allowed it."""
        return self._duration_s / 3

    @property
    def is_held(self) -> bool:
        """Whether this process may act."""
        return clock() < self._held_until

    def check(self) -> None:
        """Raise LeaseLost unless a write may start now."""
        if not self.is_held:
            raise LeaseLost(f"Lease {self._namespace}/{self._name} is not held")

    async def acquire(self) -> None:
        """Return once the Lease is held."""
        told = ""
        while not await self._try():
            holder = self._seen.holder if self._seen else ""
            if holder != told:
                log.info("standing by holder=%s lease=%s/%s", holder, self._namespace, self._name)
                told = holder
            await asyncio.sleep(self._duration_s / 15)
        metrics.IS_LEADER.set(1)
        log.info("lease acquired identity=%s lease=%s/%s", self._identity, self._namespace, self._name)

    async def hold(self) -> None:
        """Renew until it is released; raises LeaseLost when that is no longer certain to have worked."""
        is_renewed = True
        while True:
            await asyncio.sleep(self._duration_s / (6 if is_renewed else 30))
            is_renewed = await self._try()
            if self._is_released:
                return
            if not is_renewed and self._seen is not None and self._seen.holder not in ("", self._identity):
                self._lose(f"{self._seen.holder} holds it")
            if not self.is_held:
                self._lose("it could not be renewed in time")

    async def release(self) -> None:
        """Give the Lease up, so that a successor need not wait. No write of ours may be under way any more."""
        self._is_released = True
        async with self._one_at_a_time:
            if not self.is_held or self._seen is None:
                return
            self._held_until = 0.0
            metrics.IS_LEADER.set(0)
            try:
                await self._write(self._seen, holder="", duration_s=1)
            except ApiError as e:
                log.warning("lease not released error=%s", e)
            else:
                log.info("lease released lease=%s/%s", self._namespace, self._name)

    def _lose(self, why: str) -> None:
        self._held_until = 0.0
        metrics.IS_LEADER.set(0)
        raise LeaseLost(f"Lease {self._namespace}/{self._name} is lost: {why}")

    async def _try(self) -> bool:
        """Take or renew the Lease if that may be done; return whether it was."""
        async with self._one_at_a_time:
            return not self._is_released and await self._take_or_renew()

    async def _take_or_renew(self) -> bool:
        started = clock()
        try:
            # Our own last write is the truth until a conflict says otherwise: half the requests of read and write.
            if self._seen is None or self._seen.holder != self._identity:
                await self._read()
            if decide(self._seen, self._identity, clock()) is Move.WAIT:
                return False
            await self._write(self._seen, holder=self._identity, duration_s=self._duration_s)
        except ApiError as e:
            if e.status == 409:
                self._seen = None
            elif e.status in (401, 403, 404):
                log.error("lease refused lease=%s/%s error=%s", self._namespace, self._name, e)
            else:
                log.warning("lease not reached lease=%s/%s error=%s", self._namespace, self._name, e)
            return False
        self._held_until = started + self._duration_s * 2 / 3
        return True

    async def _read(self) -> None:
        try:
            found = await self._connection.request(
                "GET", LEASE.path(self._namespace, self._name), timeout_s=self._duration_s / 6
            )
        except ApiError as e:
            if e.status != 404:
                raise
            self._seen = None
            return
        self._note(found)

    async def _write(self, seen: Seen | None, *, holder: str, duration_s: float) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        changes_hands = seen is None or seen.holder != holder
        spec: Object = {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, round(duration_s)),
            "renewTime": now,
            "leaseTransitions": (seen.transitions if seen else 0) + (1 if changes_hands and holder else 0),
        }
        if changes_hands or seen is None:
            self._acquired_at = now
        spec["acquireTime"] = self._acquired_at
        body: Object = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": spec,
        }
        if seen is None:
            method, path = "POST", LEASE.path(self._namespace)
        else:
            method, path = "PUT", LEASE.path(self._namespace, self._name)
            body["metadata"]["resourceVersion"] = seen.version
        self._note(await self._connection.request(method, path, body=body, timeout_s=self._duration_s / 6))

    def _note(self, found: Object) -> None:
        spec, version = found.get("spec") or {}, found["metadata"]["resourceVersion"]
        if self._seen is not None and self._seen.version == version:
            return
        self._seen = Seen(
            holder=spec.get("holderIdentity") or "",
            duration_s=float(spec.get("leaseDurationSeconds") or 0),
            transitions=int(spec.get("leaseTransitions") or 0),
            version=version,
            since=clock(),
        )
