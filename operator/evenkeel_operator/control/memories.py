"""What of a decision's memory outlives the operator, where, and how often is it written?

One ConfigMap per ModelDeployment, owned by it, of at most 4 KiB, written once a minute at most. It is a convenience: a
lost one is learnt again, one that cannot be read is replaced, and one of that name that is somebody else's is left.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.control.cache import Key, controller_uid
from evenkeel_operator.decide import names, resources
from evenkeel_operator.decide.carried import Carried
from evenkeel_operator.decide.memory import LIMIT_BYTES, Memory
from evenkeel_operator.decide.speed import Speed
from evenkeel_operator.world import kinds, metrics
from evenkeel_operator.world.cluster import Cluster, Rejected, Transient

log = logging.getLogger(__name__)

LEAST_S, MOST_S = 60.0, 300.0
"""Between two writes; spread, so that not all of them come together."""

_MEMORY, _SPEED, _CAPACITY, _FORESEEN = "memory", "speed", "capacity", "foreseen"


@dataclass(slots=True)
class _Kept:
    uid: str
    due: float
    is_ours: bool = True
    data: dict[str, str] | None = None


class Memories:
    """Reads and writes the ConfigMaps."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._clock = clock
        self._kept: dict[Key, _Kept] = {}

    async def restored(self, key: Key, deployment: Object) -> tuple[Memory, Speed, Carried | None] | None:
        """Return what was kept, the first time it is asked for; None afterwards, and where there is nothing.

        While the API server does not say, None: followed without what was learnt before, rather than not at all.
        """
        uid = deployment["metadata"]["uid"]
        known = self._kept.get(key)
        if known is not None and known.uid == uid:
            return None
        try:
            found = await self._cluster.read(kinds.CONFIG_MAP, key.namespace, names.memory_name(key.name))
        except (Rejected, Transient) as e:
            metrics.ERRORS.labels(kind="memory").inc()
            log.warning("memory not read deployment=%s error=%s", key, e)
            return None
        state = self._kept[key] = _Kept(uid, self._clock() + random.uniform(LEAST_S, 2 * LEAST_S))
        if found is None:
            return None
        if controller_uid(found) != uid:
            state.is_ours = False
            log.warning("memory not kept deployment=%s: ConfigMap %s is another's", key, found["metadata"]["name"])
            return None
        data = found.get("data") or {}
        try:
            speed = Speed.from_json(data[_SPEED]) if _SPEED in data else Speed()
            carried = Carried.from_json(data[_CAPACITY], data.get(_FORESEEN, "[]")) if _CAPACITY in data else None
            return Memory.from_json(data[_MEMORY]), speed, carried
        except (KeyError, ValueError) as e:
            log.warning("memory not read deployment=%s error=%s", key, e)
            return None

    async def keep(self, key: Key, deployment: Object, memory: Memory, speed: Speed, carried: Carried | None) -> None:
        """Write what has changed, where it is due."""
        state = self._kept.get(key)
        now = self._clock()
        if state is None or not state.is_ours or now < state.due:
            return
        state.due = now + random.uniform(LEAST_S, MOST_S)
        found = {_SPEED: speed.to_json()}
        if carried is not None:
            found |= {_CAPACITY: carried.to_json(), _FORESEEN: carried.foreseen_json()}
        beside = {name: text for name, text in found.items() if text is not None}
        data = {_MEMORY: memory.to_json(LIMIT_BYTES - sum(map(len, beside.values()))), **beside}
        if data == state.data:
            return
        try:
            await self._cluster.apply(resources.memory(deployment, data))
        except (Rejected, Transient) as e:
            metrics.ERRORS.labels(kind="memory").inc()
            log.warning("memory not kept deployment=%s error=%s", key, e)
        else:
            state.data = data

    def forget(self, key: Key) -> None:
        """Forget a ModelDeployment that is gone; its ConfigMap goes with it."""
        self._kept.pop(key, None)
