"""How is the API server reached? One login, raw dictionaries in and out, narrow errors.

The generated methods of the client are passed over: their typed models drop fields they do not know and refuse odd
objects, and each of them serves one kind. Its login, token refresh and connection pool are what we take.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.world.kinds import Kind

PAGE_SIZE = 500
JSON = "application/json"
APPLY = "application/apply-patch+yaml"  # JSON is YAML
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"

_BEARER = "BearerToken"


class ApiError(Exception):
    """The API server refused, or could not be reached (`status` 0)."""

    def __init__(self, status: int, reason: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.status or 'no answer'} {self.reason}: {self.message}"


class LoginError(Exception):
    """There is no cluster to talk to: neither a kubeconfig nor a service account."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What another HTTP client needs for the same login."""

    server: str
    ca_path: str | None
    is_insecure: bool
    token: str | None
    certificate_path: str | None
    private_key_path: str | None
    proxy_url: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; `version` is the moment of the whole list."""

    items: list[Object]
    version: str


class Connection:
    """One login and its pool of connections."""

    def __init__(self, configuration: Configuration, namespace: str = "default") -> None:
        self._configuration = configuration
        self._client = ApiClient(configuration)
        self.namespace = namespace
        """The namespace of the kubeconfig's context."""

    @classmethod
    async def open(cls, kubeconfig: str | None = None) -> Connection:
        """Log in by `kubeconfig`, else by the pod's service account, else by the usual kubeconfig."""
        configuration = Configuration()
        if kubeconfig is None:
            try:
                config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
                return cls(configuration)
            except config.ConfigException:
                pass
        try:
            loader = await config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=kubeconfig, client_configuration=configuration
            )
        except (config.ConfigException, OSError, TypeError) as e:
            raise LoginError(f"no cluster: {e}. Name one by KUBECONFIG or --kubeconfig, or run in a pod.") from e
        context = loader.current_context.get("context") or {}
        return cls(configuration, context.get("namespace") or "default")

    async def credentials(self) -> Credentials:
        """Return the present credentials; a service account's token is read anew."""
        found = self._configuration
        token = await found.get_api_key_with_prefix(_BEARER, alias="authorization")
        return Credentials(
            server=found.host,
            ca_path=found.ssl_ca_cert,
            is_insecure=not found.verify_ssl,
            token=token.split(" ", 1)[-1].strip() if token else None,
            certificate_path=found.cert_file,
            private_key_path=found.key_file,
            proxy_url=found.proxy,
        )

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
        timeout_s: float = 30.0,
    ) -> Object:
        """Return the answer as it came; raises ApiError for every answer that is not a success, and for none."""
        try:
            response = await self._send(
                method, path, query, body, content_type, aiohttp.ClientTimeout(total=timeout_s, sock_connect=10)
            )
            async with response:
                text = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            raise ApiError(0, "Unreachable", f"{method} {path}: {e!r}") from e
        if response.status >= 300:
            raise _error(response, text)
        answer: Object = json.loads(text)
        return answer

    async def pages(self, kind: Kind, namespace: str | None) -> AsyncIterator[Page]:
        """List `kind` page by page, every item complete with kind and apiVersion (list items come without)."""
        query = _selectors(kind) | {"limit": str(PAGE_SIZE)}
        while True:
            answer = await self.request("GET", kind.path(namespace), query=query, timeout_s=60)
            items = answer.get("items") or []
            for item in items:
                item["kind"], item["apiVersion"] = kind.kind, kind.api_version
            yield Page(items, answer["metadata"].get("resourceVersion", ""))
            if not (token := answer["metadata"].get("continue")):
                return
            query["continue"] = token

    async def watch(self, kind: Kind, version: str, *, idle_s: float = 70.0) -> AsyncIterator[Object]:
        """Stream the watch events of `kind` after `version`; ends when the server ends it or says nothing."""
        query = _selectors(kind) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": "600",
        }
        try:
            # Bookmarks come every minute: a longer silence is a connection that died (behind a load balancer).
            timeout = aiohttp.ClientTimeout(total=660, sock_connect=10, sock_read=idle_s)
            response = await self._send("GET", kind.path(), query, None, JSON, timeout)
            async with response:
                if response.status >= 300:
                    raise _error(response, await response.read())
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line:
                            yield json.loads(line)
        except TimeoutError:
            return
        except (aiohttp.ClientError, OSError) as e:
            raise ApiError(0, "Unreachable", f"watch {kind.plural}: {e!r}") from e

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        content_type: str,
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": "evenkeel"}
        await self._client.update_params_for_auth(headers, [], [_BEARER], path, method, body)
        url = self._configuration.host + path
        if query:
            url += "?" + urllib.parse.urlencode(query)
        answer = await self._client.call_api(method, url, headers, body, _request_timeout=limits)
        response: aiohttp.ClientResponse = answer.response
        return response


def _selectors(kind: Kind) -> dict[str, str]:
    query = {}
    if kind.label_selector:
        query["labelSelector"] = kind.label_selector
    if kind.field_selector:
        query["fieldSelector"] = kind.field_selector
    return query


def _error(response: aiohttp.ClientResponse, text: bytes) -> ApiError:
    try:
        status = json.loads(text)
        reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
    except (ValueError, AttributeError):  # a proxy's page, not a Status
        reason, message = "", text[:200].decode(errors="replace")
    after = response.headers.get("Retry-After", "")
    return ApiError(
        response.status,
        reason or (response.reason or ""),
        message,
        float(after) if after.isdecimal() else None,
    )
