"""What has been seen? The objects of every ModelDeployment, as small as can be, by kind and by owner.

Sources overlap and race: kopf's watches, our own lists, the answers to our own writes. What makes that safe: of two
states of one object the one with the newer resourceVersion counts, also when the newer one is that it is gone.
(resourceVersions of one kind are ordered numbers: kubernetes/enhancements#5504.)
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide import names
from evenkeel_operator.decide.snapshot import Warning
from evenkeel_operator.world import kinds
from evenkeel_operator.world.kinds import Kind

REMEMBERED_GONE = 20_000
SHORT = 48
"""Strings up to this length are shared between objects: most of them are keys, labels and words of the API."""

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_WITH_FIELDS = (kinds.SERVICE, kinds.POD_DISRUPTION_BUDGET)
"""Children whose content may change from one plan to the next; the others are pinned by their revision."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One ModelDeployment."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


Place = tuple[str, str]
"""Namespace and name."""


def key_of(kind: Kind, obj: Object) -> Key | None:
    """Return the ModelDeployment that `obj` is, or belongs to by its label; None for a stranger."""
    metadata = obj["metadata"]
    if kind is kinds.MODELDEPLOYMENT:
        return Key(metadata["namespace"], metadata["name"])
    name = (metadata.get("labels") or {}).get(names.DEPLOYMENT_LABEL)
    return Key(metadata["namespace"], name) if name else None


def controller_uid(obj: Object) -> str | None:
    """Return the uid of the object that controls `obj`, or None for an orphan."""
    owners = obj["metadata"].get("ownerReferences") or ()
    return next((str(o["uid"]) for o in owners if o.get("controller")), None)


def own(deployment: Object, children: Sequence[Object]) -> list[Object]:
    """Return those of `children` that belong to this very `deployment`.

    Labels alone are not enough: a ModelDeployment deleted and created again under its name finds the children of the
    former one until the garbage collector has come. An orphan with our label counts as ours, and is adopted.
    """
    uid = deployment["metadata"]["uid"]
    direct = [c for c in children if c["kind"] != kinds.POD.kind and controller_uid(c) in (uid, None)]
    uids = {c["metadata"]["uid"] for c in direct}
    return direct + [c for c in children if c["kind"] == kinds.POD.kind and controller_uid(c) in uids]


def version_of(obj: Object) -> int:
    """Return the resourceVersion as a number."""
    return int(obj["metadata"].get("resourceVersion") or 0)


class Cache:
    """Objects by kind and place, and an index of each ModelDeployment's children."""

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[Place, Object]] = {kind: {} for kind in kinds.WATCHED}
        self._children: dict[Key, dict[tuple[Kind, str], Object]] = {}
        self._gone: OrderedDict[str, int] = OrderedDict()
        """By uid, the version as of which it is gone. An object that left the selectors may come back later."""

    def put(self, kind: Kind, obj: Object) -> bool:
        """Take note of `obj`; return whether it is news."""
        metadata = obj["metadata"]
        place, uid = (metadata["namespace"], metadata["name"]), metadata["uid"]
        if version_of(obj) <= self._gone.get(uid, -1):
            return False
        old = self._objects[kind].get(place)
        if old is not None:
            if version_of(obj) <= version_of(old):
                return False
            if old["metadata"]["uid"] != uid:
                self._remove(kind, old, version_of(old))
        kept: Object = _interned(trimmed(kind, obj))
        self._objects[kind][place] = kept
        if kind in kinds.CHILDREN:
            before = key_of(kind, old) if old is not None else None
            key = key_of(kind, kept)
            if before is not None and before != key:
                self._children.get(before, {}).pop((kind, metadata["name"]), None)
            if key is not None:
                self._children.setdefault(key, {})[kind, metadata["name"]] = kept
        return True

    def drop(self, kind: Kind, obj: Object) -> bool:
        """Take note that this very object is gone; return whether that is news."""
        metadata = obj["metadata"]
        old = self._objects[kind].get((metadata["namespace"], metadata["name"]))
        if old is None or old["metadata"]["uid"] != metadata["uid"]:
            self._bury(metadata["uid"], version_of(obj))
            return False
        if version_of(obj) < version_of(old):
            return False  # it left the selectors once, and is back
        self._remove(kind, old, version_of(obj))
        return True

    def prune(self, kind: Kind, namespace: str | None, listed: set[str], version: int) -> list[Object]:
        """Drop what a list as of `version` does not hold (uids in `listed`); return it.

        What was seen after the list was made is newer than the list and stays.
        """
        missing = [
            obj
            for (place_namespace, _), obj in self._objects[kind].items()
            if (namespace is None or place_namespace == namespace)
            and obj["metadata"]["uid"] not in listed
            and version_of(obj) <= version
        ]
        for obj in missing:
            self._remove(kind, obj, version)
        return missing

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return the object, or None."""
        return self._objects[kind].get((namespace, name))

    def deployments(self) -> Iterator[Key]:
        """Yield every ModelDeployment."""
        return (Key(*place) for place in list(self._objects[kinds.MODELDEPLOYMENT]))

    def children(self, key: Key) -> list[Object]:
        """Return every child of `key`."""
        return list(self._children.get(key, {}).values())

    def warnings(self, key: Key) -> Iterable[Warning]:
        """Return what Events say about the Jobs of `key`, the latest of each Job, nothing about an earlier namesake."""
        jobs = {
            obj["metadata"]["uid"]: obj["metadata"]["name"]
            for (kind, _), obj in self._children.get(key, {}).items()
            if kind is kinds.JOB
        }
        if not jobs:
            return ()
        found: dict[str, Object] = {}
        for (namespace, _), event in self._objects[kinds.EVENT].items():
            uid = event["involvedObject"].get("uid")
            if namespace != key.namespace or uid not in jobs:
                continue
            if uid not in found or version_of(found[uid]) < version_of(event):
                found[uid] = event
        return [Warning("Job", jobs[u], e.get("reason", ""), e.get("message", "")) for u, e in found.items()]

    def owner_of_event(self, event: Object) -> Key | None:
        """Return the ModelDeployment whose Job `event` is about; None for a stranger's, or one not seen yet."""
        about = event["involvedObject"]
        job = self.get(kinds.JOB, event["metadata"]["namespace"], about.get("name", ""))
        return key_of(kinds.JOB, job) if job is not None else None

    def count(self, kind: Kind) -> int:
        """Return how many objects of `kind` are known."""
        return len(self._objects[kind])

    def _remove(self, kind: Kind, obj: Object, version: int) -> None:
        metadata = obj["metadata"]
        self._objects[kind].pop((metadata["namespace"], metadata["name"]), None)
        if kind in kinds.CHILDREN and (key := key_of(kind, obj)) is not None:
            children = self._children.get(key, {})
            children.pop((kind, metadata["name"]), None)
            if not children:
                self._children.pop(key, None)
        self._bury(metadata["uid"], version)

    def _bury(self, uid: str, version: int) -> None:
        self._gone[uid] = max(version, self._gone.get(uid, -1))
        while len(self._gone) > REMEMBERED_GONE:
            self._gone.popitem(last=False)


def trimmed(kind: Kind, obj: Object) -> Object:
    """Return `obj` without what nobody reads."""
    metadata = {k: v for k, v in obj["metadata"].items() if k not in ("managedFields", "selfLink")}
    if (annotations := metadata.get("annotations")) and _LAST_APPLIED in annotations:
        metadata["annotations"] = {k: v for k, v in annotations.items() if k != _LAST_APPLIED}
    kept: Object = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
    if kind is kinds.EVENT:
        metadata = {k: metadata[k] for k in ("name", "namespace", "uid", "resourceVersion") if k in metadata}
        about = {k: obj["involvedObject"].get(k) for k in ("kind", "name", "uid")}
        return kept | {
            "metadata": metadata,
            "involvedObject": about,
            "reason": obj.get("reason", ""),
            "message": obj.get("message", ""),
        }
    if kind is kinds.POD:
        spec = obj.get("spec") or {}
        return kept | {"spec": {"nodeName": spec.get("nodeName")}, "status": obj.get("status") or {}}
    if kind in _WITH_FIELDS:
        entries = obj["metadata"].get("managedFields") or ()
        own = [e for e in entries if e.get("manager") == names.FIELD_MANAGER and e.get("operation") == "Apply"]
        if own:
            metadata["managedFields"] = own
    return {k: v for k, v in obj.items() if k not in kept} | kept


def _interned(value: Any) -> Any:
    """Return `value` with equal short strings being one: every watch event is a JSON document with keys of its own."""
    if isinstance(value, dict):
        return {sys.intern(key): _interned(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_interned(inner) for inner in value]
    return sys.intern(value) if type(value) is str and len(value) <= SHORT else value
