"""How does a plan become writes, and as few of them as possible?

In order: children, deletes, the status. A child that is as asked for costs nothing, so that a second identical
`kubectl apply` writes nothing; one edited by hand is not as asked for and is put right. The answer to each write goes
back into the cache: the next plan sees what this one did, not what a watch has yet to tell.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.control.cache import Cache, Key, controller_uid, key_of
from evenkeel_operator.control.drift import content, digest, is_subset, owns_more
from evenkeel_operator.decide import names
from evenkeel_operator.decide.intent import Plan, Ref
from evenkeel_operator.world import kinds
from evenkeel_operator.world.cluster import Cluster, Conflict, Gone, Rejected, Transient
from evenkeel_operator.world.kinds import Kind
from evenkeel_runtime import contract

log = logging.getLogger(__name__)


_NAMED_BY_USERS = (kinds.SERVICE, kinds.POD_DISRUPTION_BUDGET)
"""Children that carry the ModelDeployment's own name; the others' names end in a hash that no stranger's has."""


VICTIM_COST = -100
"""Of replicas that go first; those without an annotation cost 0."""


@dataclass(frozen=True, slots=True)
class Written:
    """A write that was done: the hash of what we asked for, and of what stood there afterwards."""

    desired: bytes
    stored: bytes


class Applier:
    """Carries plans out."""

    def __init__(self, cluster: Cluster, cache: Cache) -> None:
        self._cluster = cluster
        self._cache = cache
        self._written: dict[Key, dict[tuple[Kind, str], Written]] = {}

    async def children(self, key: Key, deployment: Object, plan: Plan) -> None:
        """Apply and delete what `plan` asks for; raises Transient or Rejected at the first that fails."""
        for name in plan.victims:
            await self._mark(key, name)
        for obj in plan.apply:
            await self._apply(key, deployment, obj)
        for ref in plan.delete:
            await self._delete(key, ref)

    async def status(self, key: Key, deployment: Object, status: Object) -> bool:
        """Write `status` unless it stands there already; return False when the ModelDeployment is gone."""
        observed = deployment.get("status") or {}
        place = (kinds.MODELDEPLOYMENT, key.name)
        if observed == status or self._is_as_written(key, place, status, observed):
            return True
        try:
            stored = await self._cluster.write_status(deployment, status)
        except Gone:
            return False
        self._cache.put(kinds.MODELDEPLOYMENT, stored)
        self._remember(key, place, status, stored.get("status") or {})
        return True

    async def _mark(self, key: Key, pod: str) -> None:
        """Have `pod` go first when its ReplicaSet shrinks; one that is gone or another by now needs no mark."""
        observed = self._cache.get(kinds.POD, key.namespace, pod)
        if observed is None:
            return
        annotations = observed["metadata"].get("annotations") or {}
        if annotations.get(names.DELETION_COST_ANNOTATION) == str(VICTIM_COST):
            return
        try:
            stored = await self._cluster.mark(key.namespace, pod, observed["metadata"]["uid"], VICTIM_COST)
        except (Gone, Conflict):
            return
        self._cache.put(kinds.POD, stored)

    async def start(self, key: Key, deployment: Object, job: Object) -> None:
        """Create a Job unless it is there; raises Transient or Rejected."""
        if self._cache.get(kinds.JOB, key.namespace, job["metadata"]["name"]) is None:
            await self._apply(key, deployment, job)

    def forget(self, key: Key) -> None:
        """Forget what was written for a ModelDeployment that is gone."""
        self._written.pop(key, None)

    async def _apply(self, key: Key, deployment: Object, obj: Object) -> None:
        kind, name = kinds.of(obj["apiVersion"], obj["kind"]), obj["metadata"]["name"]
        place = (kind, name)
        if kind not in kinds.WATCHED:  # may be created, not seen: once is all we can do
            if not self._is_as_written(key, place, obj, None):
                await self._cluster.apply(obj)
                self._remember(key, place, obj, None)
            return
        observed = self._cache.get(kind, key.namespace, name)
        if observed is None and kind in _NAMED_BY_USERS:
            # A forced apply would take over a stranger's object of the same name, and deleting ours would delete it.
            observed = await self._cluster.find(kind, key.namespace, name)
            if observed is not None:
                self._require_ours(key, deployment, observed)
                self._cache.put(kind, observed)
        if observed is not None:
            self._require_ours(key, deployment, observed)
            if "deletionTimestamp" in observed["metadata"]:
                return  # the event of its end brings us back
            if not self._needs_write(key, place, obj, observed):
                return
        stored = await self._cluster.apply(obj)
        assert stored is not None, "only what may not be read can be there already"
        self._cache.put(kind, stored)
        self._remember(key, place, obj, content(stored))
        size = f" replicas={obj['spec']['replicas']}" if kind is kinds.REPLICA_SET else ""
        verb = "created" if observed is None else "applied"
        log.info("%s deployment=%s kind=%s name=%s%s", verb, key, kind.kind, name, size)

    def _needs_write(self, key: Key, place: tuple[Kind, str], desired: Object, observed: Object) -> bool:
        if is_subset(desired, observed):
            entries = observed["metadata"].get("managedFields") or ()
            return any(owns_more(e.get("fieldsV1") or {}, desired) for e in entries if e.get("manager") == "evenkeel")
        # The server may store a value in another form (1000m as 1): as long as what it made of it stands, it is ours.
        return not self._is_as_written(key, place, desired, content(observed))

    @staticmethod
    def _require_ours(key: Key, deployment: Object, observed: Object) -> None:
        kind, metadata = observed["kind"], observed["metadata"]
        labelled = key_of(kinds.of(observed["apiVersion"], kind), observed) == key
        controller = controller_uid(observed)
        if controller == deployment["metadata"]["uid"] or (labelled and controller is None):
            return
        if labelled:
            raise Transient(f"{kind} {metadata['name']} of an earlier ModelDeployment {key} is not collected yet")
        raise Rejected(
            contract.Reason.INVALID,
            f"{kind} {metadata['name']} exists in this namespace and does not belong to this ModelDeployment. "
            "Rename the ModelDeployment, or delete that object.",
        )

    async def _delete(self, key: Key, ref: Ref) -> None:
        kind = kinds.of(ref.api_version, ref.kind)
        observed = self._cache.get(kind, key.namespace, ref.name)
        if observed is None or "deletionTimestamp" in observed["metadata"]:
            return
        try:
            answer = await self._cluster.delete(kind, key.namespace, ref.name, observed["metadata"]["uid"])
        except Gone:
            self._cache.drop(kind, observed)
            return
        # Gone at once, or, where a finalizer holds it, on its way.
        if answer.get("kind") == kind.kind and "deletionTimestamp" in answer["metadata"]:
            self._cache.put(kind, answer)
        else:
            self._cache.drop(kind, observed)
        self._written.get(key, {}).pop((kind, ref.name), None)
        log.info("deleted deployment=%s kind=%s name=%s", key, kind.kind, ref.name)

    def _is_as_written(self, key: Key, place: tuple[Kind, str], desired: object, stored: object) -> bool:
        found = self._written.get(key, {}).get(place)
        return found is not None and found == Written(digest(desired), digest(stored))

    def _remember(self, key: Key, place: tuple[Kind, str], desired: object, stored: object) -> None:
        self._written.setdefault(key, {})[place] = Written(digest(desired), digest(stored))
