"""What is told about a ModelDeployment in Kubernetes Events? Each thing once in a while."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide.intent import Event
from evenkeel_operator.world import kinds, metrics
from evenkeel_operator.world.cluster import Cluster, Rejected, Transient

log = logging.getLogger(__name__)

SILENCE = timedelta(minutes=10)
REMEMBERED = 4096
MESSAGE_CHARACTERS = 1024  # the API server's limit


class Recorder:
    """Posts Events.

    The operator may create Events, not change them: what is said again within `SILENCE` is counted here, and the next
    post carries the count.
    """

    def __init__(
        self, cluster: Cluster, identity: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._cluster = cluster
        self._identity = identity
        self._now = now
        self._said: OrderedDict[tuple[str, str, str], tuple[datetime, int]] = OrderedDict()
        """When it was last posted, and how often it was said since."""

    async def tell(self, deployment: Object, event: Event) -> None:
        """Post `event` about `deployment`. An Event that cannot be posted is logged and lost."""
        now = self._now()
        key = (deployment["metadata"]["uid"], event.reason, event.message)
        posted, unposted = self._said.get(key, (None, 0))
        if posted is not None and now - posted < SILENCE:
            self._said[key] = (posted, unposted + 1)
            return
        body = self._event(deployment, event, posted or now, now, unposted + 1)
        try:
            await self._cluster.create_event(deployment["metadata"]["namespace"], body)
        except (Transient, Rejected) as e:
            metrics.ERRORS.labels(kind="event").inc()
            log.warning("event not posted reason=%s error=%s", event.reason, e)
            return
        self._said[key] = (now, 0)
        self._said.move_to_end(key)
        while len(self._said) > REMEMBERED:
            self._said.popitem(last=False)

    def _event(self, deployment: Object, event: Event, first: datetime, now: datetime, count: int) -> Object:
        metadata = deployment["metadata"]
        stamp = "%Y-%m-%dT%H:%M:%SZ"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": kinds.MODELDEPLOYMENT.api_version,
                "kind": kinds.MODELDEPLOYMENT.kind,
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:MESSAGE_CHARACTERS],
            "count": count,
            "firstTimestamp": first.strftime(stamp),
            "lastTimestamp": now.strftime(stamp),
            "source": {"component": "evenkeel"},
            "reportingComponent": "evenkeel.dev/operator",
            "reportingInstance": self._identity,
        }
