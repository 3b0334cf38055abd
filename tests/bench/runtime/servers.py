"""How is a server started on a core of its own, loaded from another, and its CPU and memory counted?"""

from __future__ import annotations

import compileall
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import evenkeel_runtime
from evenkeel_runtime.config import MODEL_DIR_ENV
from tests.bench.runtime.peers import Peer
from tests.bench.runtime.peers.environments import python

PACKAGE = "tests.bench.runtime"
READY_WITHIN_S = 300
_POLL_S = 0.005
_TICKS = os.sysconf("SC_CLK_TCK")


class NotReady(Exception):
    """A server did not start: the message is the end of what it said."""


class Unusable(Exception):
    """A server did not answer the load: the message is what it answered instead."""


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
        """Return user and system time of all processes of the server."""
        return sum(_cpu_s(pid) for pid in _tree(self.process.pid))

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


def as_in_the_image(folder: Path) -> Path:
    """Return where a copy of the runtime lies as the image has it, which is compiled when it is built."""
    found = folder / "image"
    if not found.exists():
        shutil.copytree(Path(evenkeel_runtime.__file__).parent, found / "evenkeel_runtime")
        compileall.compile_dir(found, quiet=2)
    return found


@contextmanager
def replica(model: Path, core: int, **environment: str) -> Iterator[Server]:
    """Serve `model` with the runtime, as a pod does that fetched it; its copy of the runtime lies beside the model."""
    told = {
        MODEL_DIR_ENV: str(model.parent),
        "PYTHONPATH": str(as_in_the_image(model.parent)),
        "EVENKEEL_MODEL_NAME": "model",
        "EVENKEEL_MODEL_PATH": str(model),
        "EVENKEEL_HTTP_HOST": "127.0.0.1",
        "EVENKEEL_TERMINATION_LOG": os.devnull,
        "EVENKEEL_DRAIN_DELAY_S": "0",
        **environment,
    }
    with _server(["-m", "evenkeel_runtime"], core, told, free_port()) as found:
        yield found


@contextmanager
def empty_handler(core: int) -> Iterator[Server]:
    """Serve empty answers with the runtime's protocol class."""
    with _server(["-m", f"{PACKAGE}.floor", "empty"], core, {}, free_port()) as found:
        yield found


@contextmanager
def peer(found: Peer, form: str, model: Path, core: int, request: Path) -> Iterator[Server]:
    """Serve `model` with another server; it is ready when it answers the request."""
    program, ready = str(python(found)), request.read_bytes()
    port = free_port()
    arguments = ["-m", f"{PACKAGE}.peers.{found.module}", form, str(model), str(port)]
    with _server(arguments, core, {"OMP_NUM_THREADS": "1"}, port, program, ready) as server:
        yield server


@contextmanager
def _server(
    arguments: Sequence[str],
    core: int,
    environment: dict[str, str],
    port: int,
    program: str = sys.executable,
    ready: bytes = b"GET /v2/health/ready HTTP/1.1\r\nHost: bench\r\n\r\n",
) -> Iterator[Server]:
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            pinned([program, *arguments], core),
            env={**os.environ, **environment, "EVENKEEL_HTTP_PORT": str(port)},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            if not _becomes_ready(process, port, ready):
                said.seek(0)
                raise NotReady(said.read()[-2000:].decode(errors="replace"))
            yield Server(process, port, time.perf_counter() - began)
        finally:
            _end(process)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _becomes_ready(process: subprocess.Popen[bytes], port: int, request: bytes) -> bool:
    until = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as found:
                found.sendall(request)
                if found.recv(1 << 12).startswith(b"HTTP/1.1 200"):
                    return True
        except OSError:
            pass
        time.sleep(_POLL_S)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and what it leaves behind: some end before their workers do, and do not end those."""
    below = _tree(process.pid)
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in below[1:]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _tree(pid: int) -> list[int]:
    """Return the leader of a session, all in it, and all below those, also where what started them has ended."""
    parents: dict[int, tuple[int, int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            parents[int(folder.name)] = int(fields[1]), int(fields[3])
    found = {pid} | {one for one, (_, session) in parents.items() if session == pid}
    while more := {one for one, (parent, _) in parents.items() if parent in found} - found:
        found |= more
    return [pid, *sorted(found - {pid})]


def resident_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def _stat(pid: int) -> list[str]:
    """Return the fields of a process behind its name; none when it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def run(module: str, *arguments: str, core: int) -> str:
    """Return what a module beside this one printed, run on `core`."""
    words = pinned([sys.executable, "-m", f"{PACKAGE}.{module}", *arguments], core)
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise Unusable(f"{module} {' '.join(arguments)}: {done.stderr.strip()[-1000:]}")
    return done.stdout


def pinned(arguments: list[str], core: int) -> list[str]:
    taskset = shutil.which("taskset")
    return [taskset, "-c", str(core), *arguments] if taskset else arguments
