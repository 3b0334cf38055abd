"""How is a server started on a core of its own, loaded from another, and its CPU and memory counted?"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "tests.bench.runtime"
READY_WITHIN_S = 180
_POLL_S = 0.005
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cores:
    """One core for the server, one for the load; the same where the machine has no other."""

    server: int
    client: int


@dataclass(frozen=True, slots=True)
class Server:
    """`ready_s` is from the start of the process to the first `ready`."""

    process: subprocess.Popen[bytes]
    port: int
    ready_s: float

    def cpu_s(self) -> float:
        """Return user and system time of the server and all processes below it."""
        return _cpu_s(self.process.pid)

    def resident_bytes(self) -> int:
        return resident_bytes(self.process.pid)

    def load(self, request: Path, core: int, connections: int, seconds: float) -> dict[str, float]:
        """Keep `connections` busy with the request and return rate, latencies and CPU per request."""
        before = self.cpu_s()
        told = ["127.0.0.1", str(self.port), str(request), str(connections), str(seconds)]
        found: dict[str, float] = json.loads(run("client", *told, core=core))
        found["cpu_us"] = (self.cpu_s() - before) / found["requests"] * 1e6
        found["rate"] = found["requests"] / found["seconds"]
        return found


@contextmanager
def replica(model: Path, core: int, **environment: str) -> Iterator[Server]:
    """Serve `model` with the runtime, as a pod does."""
    told = {
        "EVENKEEL_MODEL_NAME": "model",
        "EVENKEEL_MODEL_PATH": str(model),
        "EVENKEEL_HTTP_HOST": "127.0.0.1",
        "EVENKEEL_TERMINATION_LOG": os.devnull,
        "EVENKEEL_DRAIN_DELAY_S": "0",
        **environment,
    }
    with _server(["-m", "evenkeel_runtime"], core, told) as found:
        yield found


@contextmanager
def empty_handler(core: int) -> Iterator[Server]:
    """Serve empty answers with the runtime's protocol class."""
    with _server(["-m", f"{PACKAGE}.floor", "empty"], core, {}) as found:
        yield found


@contextmanager
def _server(arguments: Sequence[str], core: int, environment: dict[str, str]) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    began = time.perf_counter()
    process = subprocess.Popen(
        pinned([sys.executable, *arguments], core),
        env={**os.environ, **environment, "EVENKEEL_HTTP_PORT": str(port)},
        stderr=subprocess.DEVNULL,
    )
    try:
        _await_ready(process, port)
        yield Server(process, port, time.perf_counter() - began)
    finally:
        process.terminate()
        process.wait(30)


def _await_ready(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_S)
    raise SystemExit("the server did not become ready")


def resident_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    total = (int(fields[11]) + int(fields[12])) / _TICKS
    for task in Path(f"/proc/{pid}/task").iterdir():
        children = (task / "children").read_text().split()
        total += sum(_cpu_s(int(child)) for child in children)
    return total


def run(module: str, *arguments: str, core: int) -> str:
    """Return what a module beside this one printed, run on `core`."""
    words = pinned([sys.executable, "-m", f"{PACKAGE}.{module}", *arguments], core)
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, timeout=300).stdout


def pinned(arguments: list[str], core: int) -> list[str]:
    taskset = shutil.which("taskset")
    return [taskset, "-c", str(core), *arguments] if taskset else arguments
