"""How does the fake API server answer over HTTP?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jsonpatch
from aiohttp import web

from tests.system.operator.fakeapi.apply import applied
from tests.system.operator.fakeapi.faults import Faults
from tests.system.operator.fakeapi.resources import BY_PATH, RESOURCES, Resource, groups, resources
from tests.system.operator.fakeapi.reviews import Reviews
from tests.system.operator.fakeapi.selectors import matcher
from tests.system.operator.fakeapi.store import Change, Conflict, Expired, NotFound, Object, Store

READS = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was served."""

    method: str
    path: str
    content_type: str
    user_agent: str
    body: Any


class FakeApi:
    """A store behind HTTP, with faults."""

    def __init__(self, *, bookmark_s: float = 1.0, without: tuple[str, ...] = ()) -> None:
        self.store = Store()
        self.faults = Faults()
        self.reviews = Reviews()
        self.requests: list[Request] = []
        self.url = ""
        self._served = tuple(r for r in RESOURCES if r.plural not in without)
        self._bookmark_s = bookmark_s
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> FakeApi:
        app = web.Application(client_max_size=8 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.store.cut_watches()
        assert self._runner is not None, "entered"
        await self._runner.cleanup()

    def writes(self, since: int = 0, path: str = "") -> list[Request]:
        """Return the writes from the `since`-th request on, without the Lease's and the tests' own."""
        return [
            r
            for r in self.requests[since:]
            if r.method not in READS and "/leases" not in r.path and path in r.path and r.user_agent != "test"
        ]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        text = await request.read()
        body = json.loads(text) if text else None
        headers = request.headers
        self.requests.append(
            Request(request.method, request.path, headers.get("Content-Type", ""), headers.get("User-Agent", ""), body)
        )
        if (fault := self.faults.next(request.method, request.path_qs)) is not None:
            await asyncio.sleep(fault.delay_s)
            return _status(fault.status, fault.reason, fault.message, fault.retry_after_s)
        try:
            return await self._route(request, body)
        except NotFound as e:
            return _status(404, "NotFound", str(e))
        except Conflict as e:
            return _status(409, "AlreadyExists" if "already exists" in str(e) else "Conflict", str(e))
        except Expired as e:
            return _status(410, "Expired", str(e))

    async def _route(self, request: web.Request, body: Any) -> web.StreamResponse:
        if (review := self.reviews.answer(request.path, body)) is not None:
            return web.json_response(review, status=201)
        parts = [part for part in request.path.split("/") if part]
        if parts == ["version"]:
            return web.json_response({"major": "1", "minor": "37"})
        if parts == ["api"]:
            return web.json_response({"versions": ["v1"]})
        if parts == ["apis"]:
            return web.json_response(groups(self._served))
        group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
        if not rest:
            if (found := resources(self._served, group, version)) is None:
                raise NotFound("the server could not find the requested resource")
            return web.json_response(found)
        namespace = None
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        resource = BY_PATH.get((group, version, rest[0]))
        if resource is None or resource not in self._served:
            raise NotFound("the server could not find the requested resource")
        if len(rest) == 1:
            if request.method == "POST":
                created = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
                return web.json_response(self.store.create(created), status=201)
            if request.query.get("watch"):
                return await self._watch(request, resource, namespace)
            return self._list(request, resource, namespace)
        subresource = rest[2] if len(rest) > 2 else None
        return self._one(request, resource, namespace or "", rest[1], subresource, body)

    def _one(
        self,
        request: web.Request,
        resource: Resource,
        namespace: str,
        name: str,
        subresource: str | None,
        body: Any,
    ) -> web.Response:
        plural = resource.plural
        if request.method == "GET":
            return web.json_response(self.store.get(plural, namespace, name))
        if request.method == "PUT":
            return web.json_response(self.store.replace(body))
        if request.method == "DELETE":
            uid = ((body or {}).get("preconditions") or {}).get("uid")
            self.store.delete(plural, namespace, name, uid)
            return web.json_response({"kind": "Status", "status": "Success"})
        content_type = request.headers.get("Content-Type", "")
        if content_type == "application/apply-patch+yaml":
            return self._apply(request, resource, namespace, name, subresource, body)
        found = self.store.get(plural, namespace, name)
        if content_type == "application/json-patch+json":
            try:
                found = jsonpatch.apply_patch(found, body)
            except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as e:
                return _status(422, "Invalid", str(e))
        else:
            found = _merged(found, body)
        return web.json_response(self.store.replace(found))

    def _apply(
        self,
        request: web.Request,
        resource: Resource,
        namespace: str,
        name: str,
        subresource: str | None,
        body: Object,
    ) -> web.Response:
        manager = request.query["fieldManager"]
        try:
            found = self.store.get(resource.plural, namespace, name)
        except NotFound:
            if subresource is not None:
                raise
            empty = {"apiVersion": resource.api_version, "kind": resource.kind}
            metadata = {"name": name} | ({"namespace": namespace} if resource.namespaced else {})
            made = applied({**empty, "metadata": metadata}, body, manager, None)
            return web.json_response(self.store.create(made), status=201)
        if body["metadata"].get("uid", found["metadata"]["uid"]) != found["metadata"]["uid"]:
            raise Conflict(f'{resource.plural} "{name}": the UID does not match') from None
        return web.json_response(self.store.replace(applied(found, body, manager, subresource)))

    def _list(self, request: web.Request, resource: Resource, namespace: str | None) -> web.Response:
        query = request.query
        start, version = 0, self.store.version
        if token := query.get("continue"):
            start, version = (int(number) for number in token.split("."))
        is_selected = matcher(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        items = [o for o in self.store.list(resource.plural, namespace) if is_selected(o)]
        limit = int(query.get("limit", "0")) or len(items)
        metadata: Object = {"resourceVersion": str(version)}
        if start + limit < len(items):
            metadata["continue"] = f"{start + limit}.{version}"
        # Items of a list come without kind and apiVersion, as from a real server.
        page = [{k: v for k, v in o.items() if k not in ("kind", "apiVersion")} for o in items[start : start + limit]]
        return web.json_response(
            {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata, "items": page}
        )

    async def _watch(self, request: web.Request, resource: Resource, namespace: str | None) -> web.StreamResponse:
        query = request.query
        is_selected = matcher(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        try:
            past, queue = self.store.watch(resource, int(query.get("resourceVersion") or 0))
        except Expired as e:
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": str(e)}
            await response.write(_line("ERROR", gone))
            return response
        loop = asyncio.get_running_loop()
        until = loop.time() + float(query.get("timeoutSeconds") or 600)
        try:
            for change in past:
                await _send(response, change, is_selected, namespace)
            while loop.time() < until:
                try:
                    async with asyncio.timeout(self._bookmark_s):
                        next_change = await queue.get()
                except TimeoutError:
                    mark = {
                        "kind": resource.kind,
                        "apiVersion": resource.api_version,
                        "metadata": {"resourceVersion": str(self.store.version)},
                    }
                    await response.write(_line("BOOKMARK", mark))
                    continue
                if next_change is None:
                    break
                await _send(response, next_change, is_selected, namespace)
        except ConnectionResetError:
            pass
        finally:
            self.store.unwatch(resource, queue)
        return response


async def _send(
    response: web.StreamResponse,
    change: Change,
    is_selected: Callable[[Object], bool],
    namespace: str | None,
) -> None:
    _, what, obj, old = change
    if namespace not in (None, obj["metadata"].get("namespace")):
        return
    if what == "MODIFIED" and old is not None and is_selected(old) != is_selected(obj):
        # As a real server: who leaves the selection is told of as deleted, who enters it as added.
        await response.write(_line("ADDED" if is_selected(obj) else "DELETED", obj))
    elif is_selected(obj):
        await response.write(_line(what, obj))


def _merged(found: Any, patch: Any) -> Any:
    """Return a JSON merge patch applied (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(found) if isinstance(found, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _line(what: str, obj: Object) -> bytes:
    return json.dumps({"type": what, "object": obj}).encode() + b"\n"


def _status(code: int, reason: str, message: str, retry_after_s: int | None = None) -> web.Response:
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s is not None else {}
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return web.json_response(body, status=code, headers=headers)
