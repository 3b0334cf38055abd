"""When is each ModelDeployment's quality asked for, and what follows for what is said of it?

One task for each that names an accuracy: once a minute, a little more or less, it asks the feedback service for the
counts, measures in a thread, and queues the ModelDeployment where that makes a difference to what is said.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.api.status import Status
from evenkeel_operator.control.cache import Key
from evenkeel_operator.control.tasks import Tasks
from evenkeel_operator.decide import accuracy, names, served, standing
from evenkeel_operator.decide.accuracy import Quality
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal, Snapshot
from evenkeel_operator.world import metrics
from evenkeel_operator.world.feedback import Labels, Unanswered

log = logging.getLogger(__name__)

ASK_S = 60.0
JITTER = 0.1


@dataclass(slots=True)
class _Followed:
    deployment: Object
    snapshot: Snapshot
    quality: Quality | None = None
    told: Quality | None = None


class Qualities:
    """Looks at every ModelDeployment that names an accuracy. `changed` is called with one whose plan may be another.

    `labels` is None where there is no feedback service: then nothing is known of any. `status` returns the newest
    status that is known, as a plan has written it.
    """

    def __init__(
        self,
        *,
        labels: Labels | None,
        status: Callable[[Key], Object],
        changed: Callable[[Key], None],
        interval_s: float = ASK_S,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._labels = labels
        self._status = status
        self._changed = changed
        self._interval_s = interval_s
        self._now = now
        self._followed: dict[Key, _Followed] = {}
        self._tasks = Tasks("quality")

    def look(self, key: Key, deployment: Object, snapshot: Snapshot) -> Snapshot:
        """Take note of what a plan is about to be made from; return it with what is known of the quality."""
        if not snapshot.spec.objectives.accuracy:
            self.forget(key)
            return snapshot
        found = self._followed.get(key)
        if found is not None and found.deployment["metadata"]["uid"] != deployment["metadata"]["uid"]:
            self.forget(key)
            found = None
        if found is None:
            found = self._followed[key] = _Followed(deployment, snapshot)
            if self._labels is not None:
                self._tasks.begin(key, self._follow(key, found, self._labels))
        found.deployment, found.snapshot = deployment, snapshot
        return replace(snapshot, quality=found.told)

    def latest(self, key: Key) -> Quality | None:
        """Return the newest that is known, told or not."""
        found = self._followed.get(key)
        return None if found is None else found.quality

    def forget(self, key: Key) -> None:
        """Look no more at `key`."""
        self._followed.pop(key, None)
        self._tasks.end(key)

    async def stop(self) -> None:
        """End every task."""
        self._followed.clear()
        await self._tasks.end_all()
        if self._labels is not None:
            await self._labels.close()

    async def _follow(self, key: Key, found: _Followed, labels: Labels) -> None:
        await asyncio.sleep(random.uniform(0.0, min(1.0, self._interval_s)))
        while True:
            try:
                await self._round(key, found, labels)
            except Exception:
                # Ours to mend; what was known stays, and the other deployments are looked at.
                metrics.ERRORS.labels(kind="bug").inc()
                log.exception("quality not looked at deployment=%s", key)
            await asyncio.sleep(self._interval_s * random.uniform(1 - JITTER, 1 + JITTER))

    async def _round(self, key: Key, found: _Followed, labels: Labels) -> None:
        now, snapshot = self._now(), replace(found.snapshot, status=Status.model_validate(self._status(key)))
        wanted = snapshot.spec.objectives.accuracy
        since = accuracy.counted_since(snapshot.spec, snapshot.status, now)
        try:
            counted = await labels.counted(key.namespace, key.name, snapshot.uid, int(since.timestamp()))
        except Unanswered as e:
            log.warning("quality not known deployment=%s error=%s", key, e)
            metrics.ERRORS.labels(kind="feedback").inc()
            before = found.quality
            known = before.counted if before is not None else NO_SIGNAL
            if before is None or isinstance(known, NoSignal):
                found.quality = Quality(NO_SIGNAL, now)
            else:
                found.quality = replace(before, is_stale=True)
        else:
            found.quality = await asyncio.to_thread(
                accuracy.measure,
                wanted,
                counted,
                served.in_service(snapshot.status),
                now,
                served.earlier(snapshot),
                served.last_rollback(snapshot.status),
                standing.kept(snapshot.spec, snapshot.status, snapshot.words.get(names.ACKNOWLEDGE_ANNOTATION), now),
            )
        if self._followed.get(key) is found and accuracy.is_news(found.told, found.quality):
            found.told = found.quality
            self._changed(key)
