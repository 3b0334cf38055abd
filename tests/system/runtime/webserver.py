"""What is a web server that fails on purpose? A real one, over TLS with a certificate authority made for the test."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


@dataclass(frozen=True)
class Reply:
    """An answer that is no file."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Site:
    """Serves `files` by path, with `headers` beside them, where `answer` has no reply of its own to a path and the
    headers of the request. `heard` holds (path, Range, Authorization).

    `faults` are used up one per request: "" for none, a status, "cut" (half of the rest, then the end), "reset" (the
    same, but what is under way may be lost), "stall" (half, and nothing more for `stalls_s`), or "swap" (cut, and
    another version from then on).
    """

    files: dict[str, bytes] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    faults: list[int | str] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    answer: Callable[[str, Message], Reply | None] = lambda path, headers: None
    authorization: str | None = None
    has_ranges: bool = True
    has_etags: bool = True
    etag: str = '"{}"'
    has_length: bool = True
    stalls_s: float = 5.0
    heard: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    port: int = 0
    scheme: str = "https"

    def url(self, path: str, host: str = "localhost") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a test's output is its own."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        site = self.site
        path = unquote(self.path.partition("?")[0])
        site.heard.append((self.path, self.headers["Range"], self.headers["Authorization"]))
        fault = site.faults.pop(0) if site.faults else None
        if isinstance(fault, int):
            self._status(fault)
        elif reply := site.answer(self.path, self.headers):
            self._status(reply.status, reply.headers, reply.body)
        elif path in site.redirects:
            self._status(302, {"Location": site.redirects[path]})
        elif site.authorization is not None and self.headers["Authorization"] != site.authorization:
            self._status(401)
        elif path not in site.files:
            self._status(404)
        elif self.headers["If-Match"] not in (None, self._etag(path)):
            self._status(412)
        else:
            self._file(path, fault)

    def _file(self, path: str, fault: str | None) -> None:
        data = self.site.files[path]
        start, stop = 0, len(data)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        headers = dict(self.site.headers)
        if wanted and self.site.has_ranges:
            start, stop = int(wanted[1]), int(wanted[2] or len(data) - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        if self.site.has_etags:
            headers["ETag"] = self._etag(path)
        part = data[start:stop]
        if not self.site.has_length:
            headers["Transfer-Encoding"] = "chunked"
            part = f"{len(part):x}\r\n".encode() + part + b"\r\n0\r\n\r\n"
        self._status(206 if wanted and self.site.has_ranges else 200, headers, part, fault=fault)
        if fault == "swap":
            self.site.versions[path] = "two"
            self.site.files[path] = bytes(reversed(data))

    def _etag(self, path: str) -> str:
        return self.site.etag.format(self.site.versions.get(path, "one"))

    def _status(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", fault: str | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Transfer-Encoding" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if fault else body)
        if fault == "stall":
            time.sleep(self.site.stalls_s)
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.close()
        self.close_connection = self.close_connection or fault is not None


@contextmanager
def web_server(certificate: Path | None, address: str = "127.0.0.1") -> Iterator[Site]:
    """Run a server on a loopback address; without a certificate it does not encrypt."""
    site = Site(scheme="https" if certificate else "http")
    handler = type("Handler", (_Handler,), {"site": site})
    server = ThreadingHTTPServer((address, 0), handler)
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]  # cut on purpose
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def make_certificates(folder: Path) -> tuple[Path, Path]:
    """Return an authority's certificate, and a certificate for localhost that it signed (with its key)."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, cwd=folder, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority",
            "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    openssl("req", "-x509", *key, "-keyout", "site.key", "-out", "site.pem", "-days", "2", "-subj", "/CN=localhost",
            "-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:127.0.0.2",
            "-addext", "basicConstraints=critical,CA:FALSE")  # fmt: skip
    both = folder / "both.pem"
    both.write_bytes((folder / "site.key").read_bytes() + (folder / "site.pem").read_bytes())
    return folder / "ca.pem", both
