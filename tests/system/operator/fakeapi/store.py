"""What is stored, in which order did it change, and who is told? The etcd of the fake API server."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from tests.system.operator.fakeapi.resources import BY_PLURAL, Resource

Object = dict[str, Any]
Change = tuple[int, str, Object, Object | None]
"""resourceVersion, type of the watch event, object, the object before."""


class Conflict(Exception):
    """The object has been changed, is another one, or exists already (409)."""


class NotFound(LookupError):
    """There is no such object (404)."""


class Expired(Exception):
    """The resourceVersion is too old (410)."""


class Store:
    """Objects of every resource, with one counter of versions."""

    def __init__(self) -> None:
        self.version = 1
        self._objects: dict[Resource, dict[tuple[str, str], Object]] = {r: {} for r in BY_PLURAL.values()}
        self._owned: dict[str, set[tuple[str, str, str]]] = {}
        self._changes: dict[Resource, list[Change]] = {r: [] for r in BY_PLURAL.values()}
        self._expired: dict[Resource, int] = dict.fromkeys(BY_PLURAL.values(), 0)
        self._watchers: dict[Resource, set[asyncio.Queue[Change | None]]] = {r: set() for r in BY_PLURAL.values()}
        self.listeners: list[Callable[[Resource, str, Object], None]] = []

    def get(self, plural: str, namespace: str, name: str) -> Object:
        """Return a copy of an object."""
        found = self._objects[BY_PLURAL[plural]].get((namespace, name))
        if found is None:
            raise NotFound(f'{plural} "{name}" not found')
        copy: Object = json.loads(json.dumps(found))
        return copy

    def list(self, plural: str, namespace: str | None = None) -> list[Object]:
        """Return the objects themselves, ordered by place; not to be changed."""
        objects = self._objects[BY_PLURAL[plural]]
        return [objects[place] for place in sorted(objects) if namespace is None or place[0] == namespace]

    def owned(self, uid: str) -> Iterable[tuple[str, str, str]]:
        """Return plural, namespace and name of what the object `uid` owns."""
        return sorted(self._owned.get(uid, ()))

    def create(self, obj: Object) -> Object:
        """Store a new object."""
        resource = next(r for r in BY_PLURAL.values() if (r.api_version, r.kind) == (obj["apiVersion"], obj["kind"]))
        obj = json.loads(json.dumps(obj))
        metadata = obj["metadata"]
        if "name" not in metadata:
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
        place = (metadata.get("namespace", ""), metadata["name"])
        if place in self._objects[resource]:
            raise Conflict(f'{resource.plural} "{metadata["name"]}" already exists')
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata.setdefault("creationTimestamp", timestamp())
        metadata["generation"] = 1
        self._commit(resource, "ADDED", obj)
        return obj

    def replace(self, obj: Object) -> Object:
        """Store the new state of an object; a resourceVersion in it must be the present one. No change, no write."""
        resource = next(r for r in BY_PLURAL.values() if (r.api_version, r.kind) == (obj["apiVersion"], obj["kind"]))
        metadata = obj["metadata"]
        old = self._objects[resource].get((metadata.get("namespace", ""), metadata["name"]))
        if old is None:
            raise NotFound(f'{resource.plural} "{metadata["name"]}" not found')
        for field in ("resourceVersion", "uid"):
            if metadata.get(field, old["metadata"][field]) != old["metadata"][field]:
                raise Conflict(f'{resource.plural} "{metadata["name"]}": the object has been modified')
        obj = json.loads(json.dumps(obj))
        fixed = {k: old["metadata"][k] for k in ("uid", "creationTimestamp", "generation", "resourceVersion")}
        obj["metadata"] |= fixed
        if obj == old:
            return old
        if obj.get("spec") != old.get("spec"):
            obj["metadata"]["generation"] += 1
        self._commit(resource, "MODIFIED", obj)
        return obj

    def delete(self, plural: str, namespace: str, name: str, uid: str | None = None) -> Object:
        """Delete an object and, in the background, what it owns."""
        resource = BY_PLURAL[plural]
        old = self._objects[resource].get((namespace, name))
        if old is None:
            raise NotFound(f'{plural} "{name}" not found')
        if uid is not None and old["metadata"]["uid"] != uid:
            raise Conflict(f'{plural} "{name}": the UID in the precondition does not match')
        gone = json.loads(json.dumps(old))
        self._commit(resource, "DELETED", gone)
        asyncio.get_running_loop().call_soon(self._collect, gone["metadata"]["uid"])
        return old

    def expire(self) -> None:
        """Forget every change so far: whoever watches from an older version gets 410."""
        for resource, changes in self._changes.items():
            changes.clear()
            self._expired[resource] = self.version

    def watch(self, resource: Resource, since: int) -> tuple[Iterable[Change], asyncio.Queue[Change | None]]:
        """Return the changes after `since` and a queue of those to come; None in it ends the watch."""
        if since < self._expired[resource]:
            raise Expired(f"too old resource version: {since} ({self.version})")
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._watchers[resource].add(queue)
        return [change for change in self._changes[resource] if change[0] > since], queue

    def unwatch(self, resource: Resource, queue: asyncio.Queue[Change | None]) -> None:
        """Drop a watch."""
        self._watchers[resource].discard(queue)

    def cut_watches(self, *plurals: str) -> None:
        """End every watch, or those of the resources named."""
        for resource, queues in self._watchers.items():
            if not plurals or resource.plural in plurals:
                for queue in list(queues):
                    queue.put_nowait(None)

    def _commit(self, resource: Resource, what: str, obj: Object) -> None:
        self.version += 1
        metadata = obj["metadata"]
        metadata["resourceVersion"] = str(self.version)
        place = (metadata.get("namespace", ""), metadata["name"])
        old = self._objects[resource].get(place)
        where = (resource.plural, *place)
        for owner in (old or {"metadata": {}})["metadata"].get("ownerReferences") or ():
            self._owned.get(owner["uid"], set()).discard(where)
        if what == "DELETED":
            del self._objects[resource][place]
        else:
            self._objects[resource][place] = obj
            for owner in metadata.get("ownerReferences") or ():
                self._owned.setdefault(owner["uid"], set()).add(where)
        change = (self.version, what, obj, old)
        self._changes[resource].append(change)
        for queue in self._watchers[resource]:
            queue.put_nowait(change)
        for listener in self.listeners:
            listener(resource, what, obj)

    def _collect(self, uid: str) -> None:
        for plural, namespace, name in self.owned(uid):
            self.delete(plural, namespace, name)


def timestamp() -> str:
    """Return the present time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
