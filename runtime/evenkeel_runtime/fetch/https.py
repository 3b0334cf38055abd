"""How is a file read from a web server? By ranges of one version, with the query of a presigned address kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.message import Message
from urllib.parse import unquote, urlsplit

from evenkeel_runtime.fetch import web
from evenkeel_runtime.fetch.source import Opened, changed


@dataclass(frozen=True, slots=True)
class WebFile:
    uri: str
    authorization: str

    @property
    def file(self) -> str:
        return unquote(urlsplit(self.uri).path).rstrip("/").rpartition("/")[2] or "model"

    def open(self, start: int, stop: int | None, version: str | None) -> Opened:
        request = web.request(self.uri, self.authorization, start, stop)
        if version is not None and not version.startswith("W/"):
            request.add_header("If-Match", version)
        response = web.ask(self.uri, request)
        found = _version(response.headers)
        if version is not None and found != version:
            response.close()
            raise changed(self.uri)
        opened = web.opened(response, start, stop, found)
        return replace(opened, has_ranges=opened.has_ranges and response.headers.get("ETag", "").startswith('"'))


def authorization(environ: Mapping[str, str]) -> str:
    """Return the Authorization header that the credentials in the environment make, or nothing."""
    if token := environ.get("HTTP_BEARER_TOKEN"):
        return f"Bearer {token}"
    if user := environ.get("HTTP_USERNAME"):
        return web.basic(user, environ.get("HTTP_PASSWORD", ""))
    return ""


def _version(headers: Message) -> str | None:
    return headers.get("ETag") or headers.get("Last-Modified")
