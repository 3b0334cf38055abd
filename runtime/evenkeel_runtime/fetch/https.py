"""How is a file read from a web server?

With the standard library's client: it follows redirects, obeys the proxy variables and SSL_CERT_FILE, keeps the query
of a presigned address, and gives us the status and the headers that resuming needs.
"""

from __future__ import annotations

import base64
import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import IO
from urllib.parse import unquote, urlsplit

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.source import CHUNK_BYTES, Interrupted, Opened, access_denied, changed, not_found

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class WebFile:
    uri: str
    authorization: str

    @property
    def file(self) -> str:
        return unquote(urlsplit(self.uri).path).rstrip("/").rpartition("/")[2] or "model"

    def open(self, start: int, stop: int | None, version: str | None) -> Opened:
        request = urllib.request.Request(self.uri, headers={"Accept-Encoding": "identity", "User-Agent": "evenkeel"})
        if self.authorization:  # unredirected: a bucket that the server redirects to must not see the token
            request.add_unredirected_header("Authorization", self.authorization)
        if start or stop is not None:
            request.add_header("Range", f"bytes={start}-{'' if stop is None else stop - 1}")
        if version is not None and not version.startswith("W/"):
            request.add_header("If-Match", version)
        response = self._ask(request)
        found = _version(response.headers)
        if version is not None and found != version:
            response.close()
            raise changed(self.uri)
        partial = response.status == 206
        size = _whole_size(response.headers, partial)
        skip = 0 if partial else start  # a server without ranges starts again at byte 0
        length = None if size is None else (size if stop is None else min(stop, size)) - start
        return Opened(size, found, _read(response, skip, length), response.close)

    def _ask(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        try:
            response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_S)
            return response
        except urllib.error.HTTPError as error:
            error.close()
            said = f"the server answered {error.code} {error.reason}"
            if error.code in (401, 403):
                raise access_denied(self.uri, said) from error
            if error.code in (404, 410):
                raise not_found(self.uri, said) from error
            if error.code in (412, 416):
                raise changed(self.uri) from error
            if error.code == 429 or error.code >= 500:
                raise Interrupted(said) from error
            raise ModelError(Reason.SOURCE_UNAVAILABLE, f"{self.uri}: {said}") from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise ModelError(
                    Reason.SOURCE_UNAVAILABLE,
                    f"{self.uri}: the server's certificate is not trusted ({error.reason.verify_message}); "
                    "give its authority through SSL_CERT_FILE",
                ) from error
            raise Interrupted(str(error.reason)) from error
        except (OSError, http.client.HTTPException) as error:
            raise Interrupted(f"{type(error).__name__}: {error}") from error


def authorization(environ: Mapping[str, str]) -> str:
    """Return the Authorization header that the credentials in the environment make, or nothing."""
    if token := environ.get("HTTP_BEARER_TOKEN"):
        return f"Bearer {token}"
    if user := environ.get("HTTP_USERNAME"):
        pair = f"{user}:{environ.get('HTTP_PASSWORD', '')}"
        return "Basic " + base64.b64encode(pair.encode()).decode()
    return ""


def _version(headers: Message) -> str | None:
    return headers.get("ETag") or headers.get("Last-Modified")


def _whole_size(headers: Message, partial: bool) -> int | None:
    text = headers.get("Content-Range", "").rpartition("/")[2] if partial else headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _read(response: IO[bytes], skip: int, length: int | None) -> Iterator[bytes]:
    left = length
    try:
        while skip:
            skipped = len(response.read(min(skip, CHUNK_BYTES)))
            if not skipped:
                raise Interrupted("the connection ended early")
            skip -= skipped
        while left is None or left > 0:
            chunk = response.read(CHUNK_BYTES if left is None else min(left, CHUNK_BYTES))
            if not chunk:
                break
            left = None if left is None else left - len(chunk)
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(f"{type(error).__name__}: {error}") from error
    if left:
        raise Interrupted(f"the connection ended {left} bytes early")
