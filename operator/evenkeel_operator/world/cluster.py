"""How is a plan carried out in the cluster? Server-side apply, deletes, one status; each write behind the Lease.

Two families of errors reach the worker: `Transient` (try again, later) and `Rejected` (the API server refuses our
object: somebody must change something, so it becomes a condition).
"""

from __future__ import annotations

from collections.abc import Callable

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide import failures, names
from evenkeel_operator.world import kinds, metrics
from evenkeel_operator.world.connection import APPLY, MERGE_PATCH, ApiError, Connection
from evenkeel_operator.world.kinds import Kind

_CREATED_ONLY = (kinds.SECRET,)


class Transient(Exception):
    """It may work another time; `retry_after_s` is what the server asked for."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Rejected(Exception):
    """The API server refuses this object as it is."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Conflict(Transient):
    """Another write came first, or the object exists already, or is another one of that name (409).

    Which of these, the watches tell; to take it for `Gone` would leave a status stale and an object in the cluster.
    """


class Gone(Exception):
    """The object is not there."""


class Cluster:
    """Writes, one at a time; `check` raises when this process may not write (see world/lease.py)."""

    def __init__(self, connection: Connection, check: Callable[[], None], write_timeout_s: float = 10.0) -> None:
        self._connection = connection
        self._check = check
        self._timeout_s = write_timeout_s

    async def apply(self, obj: Object) -> Object | None:
        """Make `obj` so; return it as stored, or None where it may only be created and is there already.

        Forced: whoever else wrote one of our fields is overruled.
        """
        kind, metadata = kinds.of(obj["apiVersion"], obj["kind"]), obj["metadata"]
        try:
            if kind in _CREATED_ONLY:
                try:
                    return await self._write("POST", kind, metadata["namespace"], None, body=obj)
                except Conflict:  # it exists
                    return None
            return await self._write(
                "PATCH",
                kind,
                metadata["namespace"],
                metadata["name"],
                body=obj,
                query={"fieldManager": names.FIELD_MANAGER, "force": "true"},
            )
        except Gone as e:
            raise Transient(str(e)) from e

    async def write_status(self, deployment: Object, status: Object) -> Object:
        """Write the whole status of `deployment`; Gone when it is gone, Conflict when it is another one by now."""
        kind, metadata = kinds.MODELDEPLOYMENT, deployment["metadata"]
        body = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            # The uid makes a status meant for a deleted object conflict with its successor of the same name.
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
            "status": status,
        }
        return await self._write(
            "PATCH",
            kind,
            metadata["namespace"],
            metadata["name"],
            subresource="status",
            body=body,
            query={"fieldManager": names.STATUS_FIELD_MANAGER, "force": "true"},
        )

    async def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return the object of that name, whoever's it is, or None.

        A list of one: the operator may list and watch these kinds, not get them.
        """
        query = {"fieldSelector": f"metadata.name={name}"}
        try:
            answer = await self._connection.request("GET", kind.path(namespace), query=query)
        except ApiError as e:
            raise _translated(e, f"GET {kind.path(namespace, name)}", f"{kind.kind} {name}") from e
        for item in answer.get("items") or ():
            item["kind"], item["apiVersion"] = kind.kind, kind.api_version
            found: Object = item
            return found
        return None

    async def read(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return the object of that name or None: of kinds that the operator may get, but not list."""
        try:
            found: Object = await self._connection.request("GET", kind.path(namespace, name))
        except ApiError as e:
            if e.status == 404:
                return None
            raise _translated(e, f"GET {kind.path(namespace, name)}", f"{kind.kind} {name}") from e
        return found

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> Object:
        """Delete this very object, what it owns in the background; Gone when it is not there."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        return await self._write("DELETE", kind, namespace, name, body=body)

    async def mark(self, namespace: str, pod: str, uid: str, cost: int) -> Object:
        """Say what removing this very pod costs; Gone when it is not there, Conflict when it is another by now."""
        annotations = {names.DELETION_COST_ANNOTATION: str(cost)}
        body = {"metadata": {"uid": uid, "annotations": annotations}}
        # No apply: of a pod that is gone it would try to make another.
        return await self._write("PATCH", kinds.POD, namespace, pod, body=body, content_type=MERGE_PATCH)

    async def create_event(self, namespace: str, event: Object) -> None:
        """Post a Kubernetes Event."""
        try:
            await self._write("POST", kinds.EVENT, namespace, None, body=event)
        except Gone as e:
            raise Transient(str(e)) from e

    async def _write(
        self,
        verb: str,
        kind: Kind,
        namespace: str,
        name: str | None,
        *,
        body: Object,
        subresource: str | None = None,
        query: dict[str, str] | None = None,
        content_type: str = APPLY,
    ) -> Object:
        self._check()
        path = kind.path(namespace, name, subresource)
        metrics.WRITES.labels(kind=f"{kind.kind}/{subresource}" if subresource else kind.kind, verb=verb).inc()
        try:
            return await self._connection.request(
                verb,
                path,
                query=query,
                body=body,
                content_type=content_type if verb == "PATCH" else "application/json",
                timeout_s=self._timeout_s,
            )
        except ApiError as e:
            metadata = body.get("metadata", {})
            written = name or metadata.get("name") or metadata["generateName"]
            raise _translated(e, f"{verb} {path}", f"{kind.kind} {written}") from e


def _translated(error: ApiError, request: str, what: str) -> Exception:
    """Return what an answer of the API server means to the worker.

    | answer                                  | means     |
    |-----------------------------------------|-----------|
    | none, 401, 408, 429, 5xx                | Transient |
    | 404                                     | Gone      |
    | 409                                     | Conflict  |
    | 403 in a namespace that is going away   | Transient |
    | 400, 403 (quota, admission), 413, 422 … | Rejected  |
    """
    text = f"{request}: {error}"
    if error.status == 404:
        return Gone(text)
    if error.status == 409:
        return Conflict(text)
    is_ending = error.status == 403 and "being terminated" in error.message
    if error.status in (0, 401, 408, 429) or error.status >= 500 or is_ending:
        return Transient(text, error.retry_after_s)
    failure = failures.of_write(what, error.message)
    return Rejected(failure.reason, failure.message)
