"""How does a test talk to a real server process? Over its socket, as clients do."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenkeel_runtime import contract

PATIENCE_S = 240.0
"""How long something may take that has to happen at all: the machine may be busy."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        length = self.headers.get("inference-header-content-length")
        return json.loads(self.body if length is None else self.body[: int(length)])

    @property
    def tensors(self) -> bytes:
        return self.body[int(self.headers["inference-header-content-length"]) :]


class Replica:
    def __init__(
        self, model: Path, termination: Path, environment: dict[str, str], *, speaks_grpc: bool = False
    ) -> None:
        self.port, self.grpc_port, self.admin_port = free_ports(3)
        self._termination = termination
        self.process = subprocess.Popen(
            [sys.executable, "-m", "evenkeel_runtime"],
            env={
                **os.environ,
                "EVENKEEL_MODEL_NAME": "m",
                "EVENKEEL_MODEL_VERSION": "v1",
                "EVENKEEL_MODEL_PATH": str(model),
                "EVENKEEL_HTTP_HOST": "127.0.0.1",
                "EVENKEEL_HTTP_PORT": str(self.port),
                "EVENKEEL_ADMIN_PORT": str(self.admin_port),
                "EVENKEEL_TERMINATION_LOG": str(termination),
                "EVENKEEL_DRAIN_DELAY_S": "0.2",
                **environment,
                **({"EVENKEEL_GRPC_PORT": str(self.grpc_port)} if speaks_grpc else {}),
            },
        )

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, port: int | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body or None, headers or {})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def admin(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Ask the admin port."""
        return self.ask(method, path, body, port=self.admin_port)

    def infer(self, body: Any, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", "/v2/models/m/infer", data, headers)

    def infer_binary(self, header: Any, tensors: bytes, **headers: str) -> Answer:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return self.ask(
            "POST",
            "/v2/models/m/infer",
            text + tensors,
            {"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream", **headers},
        )

    def rows(self, image: NDArray[np.float32]) -> Answer:
        """Ask for a perceptron's answers in binary."""
        return self.infer_binary(binary_header(image), image.tobytes())

    def await_status(self, path: str, status: int) -> None:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}: {self.report()}")
            try:
                if self.ask("GET", path).status == status:
                    return
            except OSError:
                pass  # not bound yet
            time.sleep(0.02)
        raise AssertionError(f"{path} did not become {status}")

    def await_ready(self) -> None:
        self.await_status("/v2/health/ready", 200)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def report(self) -> contract.Prepared | contract.Failed | None:
        return contract.decode(self._termination.read_text()) if self._termination.exists() else None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        lines = self.ask("GET", "/metrics").body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((name + "{", name + " ")))


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens on, for servers that are about to."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        return [found.getsockname()[1] for found in sockets]


def binary_header(image: NDArray[np.float32]) -> dict[str, Any]:
    entry = {
        "name": "image",
        "datatype": "FP32",
        "shape": list(image.shape),
        "parameters": {"binary_data_size": image.nbytes},
    }
    return {"inputs": [entry], "parameters": {"binary_data_output": True}}


def request_bytes(method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: t\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def read_answer(stream: socket.socket) -> tuple[int, bytes, bytes]:
    """Read exactly one answer and return status, head and body; (0, b"", b"") when the connection has ended."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = stream.recv(1)
        if not byte:
            return 0, b"", b""
        head += byte
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    body = b""
    while len(body) < length:
        chunk = stream.recv(length - len(body))
        if not chunk:
            raise AssertionError("the connection ended inside an answer")
        body += chunk
    return int(head.split(b" ", 2)[1]), head, body
