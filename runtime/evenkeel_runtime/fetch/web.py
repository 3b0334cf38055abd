"""How does one request to a web server end: in an answer to read on, or in which failure?

With the standard library's client: it obeys the proxy variables and SSL_CERT_FILE, and gives us the status and the
headers that resuming needs.
"""

from __future__ import annotations

import base64
import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from typing import IO
from urllib.parse import urlsplit

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.source import (
    CHUNK_BYTES,
    STALLED_S,
    Chunk,
    Interrupted,
    Opened,
    access_denied,
    changed,
    not_found,
)

Meaning = Callable[[str, urllib.error.HTTPError], Exception]
"""What an answer that is none of the 2xx means for the model at an address."""


def request(
    url: str, authorization: str = "", start: int = 0, stop: int | None = None, method: str = "GET"
) -> urllib.request.Request:
    """Return a request for the bytes from `start` up to `stop`."""
    made = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "evenkeel"}, method=method)
    if authorization:  # unredirected: a bucket that the server redirects to must not see the token
        made.add_unredirected_header("Authorization", authorization)
    if start or stop is not None:
        made.add_header("Range", f"bytes={start}-{'' if stop is None else stop - 1}")
    return made


def basic(user: str, password: str) -> str:
    """Return the Authorization header of a user."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def meaning(uri: str, error: urllib.error.HTTPError) -> Exception:
    """Return what an answer means by its status alone."""
    return meaning_of(uri, error.code, said(error))


def meaning_of(uri: str, status: int, detail: str) -> Exception:
    """Return what a status means, in the words of `detail`."""
    if status in (401, 403):
        return access_denied(uri, detail)
    if status in (404, 410):
        return not_found(uri, detail)
    if status in (412, 416):
        return changed(uri)
    if status == 429 or status >= 500:
        return Interrupted(detail)
    return ModelError(Reason.SOURCE_UNAVAILABLE, f"{uri}: {detail}")


def said(error: urllib.error.HTTPError) -> str:
    """Return who answered what: after a redirect it is not the server of the address."""
    further = error.headers.get("Location", "") if 300 <= error.code < 400 else ""
    host = urlsplit(error.url or "").netloc or "the server"
    return f"{host} answered {error.code} {error.reason}" + (f", to {further[:200]}" if further else "")


def ask(uri: str, made: urllib.request.Request, meaning: Meaning = meaning) -> http.client.HTTPResponse:
    """Return the answer at the end of all redirects; raises what anything but a 2xx means."""
    try:
        return _opened(uri, made, _Redirects())
    except urllib.error.HTTPError as error:
        with error:
            raise meaning(uri, error) from error


def headers(uri: str, made: urllib.request.Request, meaning: Meaning = meaning) -> Message:
    """Return the headers of the server's own answer: a redirect to another server counts as one."""
    try:
        with _opened(uri, made, _RedirectsAtHome()) as response:
            return response.headers
    except urllib.error.HTTPError as error:
        with error:
            if 300 <= error.code < 400:
                return error.headers
            raise meaning(uri, error) from error


def opened(response: http.client.HTTPResponse, start: int, stop: int | None, version: str | None = None) -> Opened:
    """Return the reading of a response to a request for the same range; raises Interrupted where it is of another."""
    partial = response.status == 206
    said = response.headers.get("Content-Range", "")
    if partial and not re.match(rf"bytes {start}-\d+/", said):
        response.close()
        raise Interrupted(f"the server was asked for the bytes from {start} on and answered with {said or 'others'}")
    size = _whole_size(response.headers, partial)
    skip = 0 if partial else start  # a server without ranges starts again at byte 0
    length = None if size is None else (size if stop is None else min(stop, size)) - start
    asked = start > 0 or stop is not None
    has_ranges = partial if asked else response.headers.get("Accept-Ranges", "").lower() == "bytes"
    return Opened(size, version, _read(response, skip, length), response.close, has_ranges=has_ranges)


def small_body(uri: str, response: http.client.HTTPResponse, limit: int) -> bytes:
    """Return the whole body of an answer that is no model."""
    with response:
        parts: list[Chunk] = []
        for chunk in opened(response, 0, None).chunks:
            parts.append(chunk)
            if sum(map(len, parts)) > limit:
                raise ModelError(Reason.SOURCE_UNAVAILABLE, f"{uri}: {response.url} has more than {limit} bytes")
        return b"".join(parts)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect, with the credentials where it leads back to the same server, and never out of encryption."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            return None
        further = super().redirect_request(req, fp, code, msg, headers, newurl)
        if further is not None:
            further.method = req.get_method()
            held = req.get_header("Authorization")
            if held and _is_same_server(req.full_url, newurl):
                further.add_unredirected_header("Authorization", held)
        return further


class _RedirectsAtHome(_Redirects):
    """Follows a redirect on the same server only; any other is an answer."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not _is_same_server(req.full_url, newurl):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_same_server(one: str, other: str) -> bool:
    a, b = urlsplit(one), urlsplit(other)
    usual = {"https": 443, "http": 80}
    return (a.scheme, a.hostname, a.port or usual.get(a.scheme)) == (
        b.scheme,
        b.hostname,
        b.port or usual.get(b.scheme),
    )


def _opened(uri: str, made: urllib.request.Request, redirects: _Redirects) -> http.client.HTTPResponse:
    try:
        response: http.client.HTTPResponse = urllib.request.build_opener(redirects).open(made, timeout=STALLED_S)
        return response
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise ModelError(
                Reason.SOURCE_UNAVAILABLE,
                f"{uri}: the server's certificate is not trusted ({error.reason.verify_message}); "
                "give its authority through SSL_CERT_FILE",
            ) from error
        raise Interrupted(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(f"{type(error).__name__}: {error}") from error


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
