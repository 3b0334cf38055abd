"""Who looks at the CronJobs that retraining starts from, and tells receivers of alarms?

One task for each ModelDeployment that names one of both. It reads the CronJob once a minute, so that a missing one is
told of before it is needed, and posts the events that the status says are pending: at once, then ever more slowly,
until the receiver has taken it or an hour is over. That it was taken is known here first and in the status a moment
later: an operator that is killed in between leaves an event that is posted twice, under one id.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from evenkeel_operator.api.core import parse_time
from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.api.status import RetrainingStatus, Status
from evenkeel_operator.control.cache import Key
from evenkeel_operator.control.tasks import Tasks
from evenkeel_operator.decide import alarms, names, retraining, trainings
from evenkeel_operator.decide.retraining import Delivery, Known
from evenkeel_operator.decide.snapshot import Snapshot
from evenkeel_operator.world import kinds, metrics
from evenkeel_operator.world.cloudevents import Receivers, Undelivered
from evenkeel_operator.world.cluster import Cluster, Rejected, Transient

log = logging.getLogger(__name__)

LOOK_S = 5.0
JITTER = 0.1
READ_S = 60.0


@dataclass(slots=True)
class _Posted:
    """How often an event was posted in vain, and when it is due again."""

    failures: int = 0
    due: float = float("-inf")


@dataclass(slots=True)
class _Followed:
    snapshot: Snapshot
    known: Known = field(default_factory=Known)
    posted: dict[str, _Posted] = field(default_factory=dict)
    read: str | None = None
    read_at: float = float("-inf")


class Retrainings:
    """Follows every ModelDeployment with spec.retraining. `changed` is called with one whose plan may be another.

    `status` returns the newest status that is known: what a plan has written is no event that leads to another plan.
    """

    def __init__(
        self,
        *,
        cluster: Cluster,
        receivers: Receivers,
        status: Callable[[Key], Object],
        changed: Callable[[Key], None],
        interval_s: float = LOOK_S,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._receivers = receivers
        self._status = status
        self._changed = changed
        self._interval_s = interval_s
        self._now = now
        self._clock = clock
        self._followed: dict[Key, _Followed] = {}
        self._tasks = Tasks("retraining")

    def look(self, key: Key, deployment: Object, snapshot: Snapshot) -> Snapshot:
        """Take note of what a plan is about to be made from; return it with what is known of its retraining."""
        if snapshot.spec.retraining is None:
            self.forget(key)
            return snapshot
        found = self._followed.get(key)
        if found is not None and found.snapshot.uid != snapshot.uid:
            self.forget(key)
            found = None
        if found is None:
            found = self._followed[key] = _Followed(snapshot)
            self._tasks.begin(key, self._follow(key, found))
        found.snapshot = snapshot
        if found.read != _cron_job(snapshot):
            found.read, found.read_at = None, float("-inf")
            found.known = replace(found.known, template=None)
        return replace(snapshot, retraining=found.known)

    def refused(self, key: Key, job: Object, message: str | None) -> None:
        """Take note of why the API server refuses a Job; None: it does not any more."""
        found = self._followed.get(key)
        if found is None:
            return
        alarm = job["metadata"]["annotations"][names.ALARM_ANNOTATION]
        refusals = {name: text for name, text in found.known.refusals.items() if name != alarm}
        if message is not None:
            refusals[alarm] = message
        if refusals != found.known.refusals:
            found.known = replace(found.known, refusals=refusals)
            self._changed(key)

    def forget(self, key: Key) -> None:
        """Look no more at `key`."""
        self._followed.pop(key, None)
        self._tasks.end(key)

    async def stop(self) -> None:
        """End every task."""
        self._followed.clear()
        await self._tasks.end_all()
        await self._receivers.close()

    async def _follow(self, key: Key, found: _Followed) -> None:
        while True:
            try:
                await self._read(key, found)
                await self._post(key, found)
            except Exception:
                # Ours to mend; the other deployments are looked at.
                metrics.ERRORS.labels(kind="bug").inc()
                log.exception("retraining not looked at deployment=%s", key)
            await asyncio.sleep(self._interval_s * random.uniform(1 - JITTER, 1 + JITTER))

    async def _read(self, key: Key, found: _Followed) -> None:
        """Look at the CronJob where that is due; queue the ModelDeployment where it says something else."""
        name = _cron_job(found.snapshot)
        if name is None or (found.read == name and self._clock() - found.read_at < READ_S):
            return
        try:
            seen = await self._cluster.read(kinds.CRON_JOB, key.namespace, name)
        except (Transient, Rejected) as e:
            metrics.ERRORS.labels(kind="retraining").inc()
            log.warning("CronJob not read deployment=%s name=%s error=%s", key, name, e)
            found.read, found.read_at = name, self._clock()
            return
        if _cron_job(found.snapshot) != name:
            return
        found.read, found.read_at = name, self._clock()
        template = trainings.template(name, seen, key.name, key.namespace)
        if template != found.known.template:
            found.known = replace(found.known, template=template)
            self._changed(key)

    async def _post(self, key: Key, found: _Followed) -> None:
        """Post what is pending and due."""
        wanted = found.snapshot.spec.retraining
        if wanted is None or wanted.event_url is None:
            return
        for row in Status.model_validate(self._status(key)).retraining or ():
            before = found.known.deliveries.get(row.alarm)
            if row.event != "Pending" or (before is not None and before.outcome != "Pending"):
                continue
            if self._clock() >= found.posted.setdefault(row.alarm, _Posted()).due:
                delivery = await self._delivered(key, found, wanted.event_url, row)
                if delivery != before:
                    found.known = replace(found.known, deliveries={**found.known.deliveries, row.alarm: delivery})
                    self._changed(key)

    async def _delivered(self, key: Key, found: _Followed, url: str, row: RetrainingStatus) -> Delivery:
        try:
            await self._receivers.post(url, alarms.cloud_event(found.snapshot, row))
        except Undelivered as e:
            posted = found.posted[row.alarm]
            posted.failures += 1
            posted.due = self._clock() + retraining.retry_delay(posted.failures).total_seconds()
            is_over = e.is_final or self._now() - parse_time(row.at) >= retraining.GIVE_UP_AFTER
            metrics.CLOUD_EVENTS.labels(result="given_up" if is_over else "failed").inc()
            log.warning(
                "event not delivered deployment=%s alarm=%s failures=%d is_given_up=%s error=%s",
                key, row.alarm, posted.failures, is_over, e,
            )  # fmt: skip
            return Delivery("GivenUp" if is_over else "Pending", str(e))
        metrics.CLOUD_EVENTS.labels(result="delivered").inc()
        log.info("event delivered deployment=%s alarm=%s", key, row.alarm)
        return Delivery("Delivered")


def _cron_job(snapshot: Snapshot) -> str | None:
    wanted = snapshot.spec.retraining
    return None if wanted is None or wanted.cron_job_ref is None else wanted.cron_job_ref.name
