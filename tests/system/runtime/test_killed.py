"""Does a fetch that is killed at any moment go on in the next process, and never end in another file?

The servers are real ones: our own web server, versitygw, docker-registry, each behind a proxy that makes its
connections slow.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.system.runtime.dockerregistry import docker_registry
from tests.system.runtime.test_bucket import KEY, SECRET, versitygw
from tests.system.runtime.webserver import web_server

PART = 1 << 18
DATA = random.Random(1).randbytes(32 * PART - 100)
CHILD = f"""
from evenkeel_runtime.fetch import parts
parts.LEAST_BYTES = {PART}
from evenkeel_runtime.__main__ import main
raise SystemExit(main())
"""
"""The command, to which a file of two small parts is a large one."""


@dataclass(frozen=True)
class Place:
    """An address whose file `put` replaces, and what the environment has to say of it."""

    uri: str
    put: Callable[[bytes], None]
    environment: dict[str, str] = field(default_factory=dict)


class SlowProxy:
    """Passes bytes on, 1.3 MB a second to each connection."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.passed_bytes = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._pass, args=(client,)))
                self._threads[-1].start()

    def _pass(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            forward = threading.Thread(target=self._copy, args=(client, server, 0.0))
            forward.start()
            self._copy(server, client, 0.05)
            forward.join()

    def _copy(self, source: socket.socket, target: socket.socket, pause_s: float) -> None:
        with contextlib.suppress(OSError):  # one side has ended
            while data := source.recv(1 << 16):
                target.sendall(data)
                if pause_s:
                    self.passed_bytes += len(data)
                    time.sleep(pause_s)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def slow() -> Iterator[Callable[[int], SlowProxy]]:
    with ExitStack() as open_:

        def before(port: int) -> SlowProxy:
            proxy = SlowProxy(port)
            open_.callback(proxy.close)
            return proxy

        yield before


@pytest.fixture(params=["https", "s3", "oci"])
def place(
    request: pytest.FixtureRequest,
    certificates: tuple[Path, Path],
    tmp_path: Path,
    slow: Callable[[int], SlowProxy],
) -> Iterator[tuple[Place, SlowProxy]]:
    with ExitStack() as open_:
        if request.param == "https":
            authority, certificate = certificates
            site = open_.enter_context(web_server(certificate))
            site.headers["Accept-Ranges"] = "bytes"

            def put(data: bytes) -> None:
                site.files["/large.bin"], site.versions["/large.bin"] = data, hashlib.sha256(data).hexdigest()

            proxy = slow(site.port)
            found = Place(f"https://localhost:{proxy.port}/large.bin", put, {"SSL_CERT_FILE": str(authority)})
        elif request.param == "s3":
            port, store = open_.enter_context(versitygw(tmp_path / "buckets"))

            def put(data: bytes) -> None:
                import obstore

                obstore.put(store, "large.bin", data, use_multipart=False)

            proxy = slow(port)
            keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
            found = Place("s3://models/large.bin", put, keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"})
        else:
            registry = open_.enter_context(docker_registry(tmp_path / "blobs", tmp_path))

            def put(data: bytes) -> None:
                registry.push("large.bin", "v1", registry.layer("large.bin", data, "large.bin"))

            proxy = slow(registry.port)
            found = Place(f"oci://127.0.0.1:{proxy.port}/large.bin:v1", put)
        found.put(DATA)
        yield found, proxy


def begin(place: Place, folder: Path, sha256: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, "fetch"],
        env={
            **os.environ,
            "EVENKEEL_TERMINATION_LOG": str(folder / "termination"),
            "EVENKEEL_MODEL_DIR": str(folder / "model"),
            "EVENKEEL_SCRATCH_DIR": str(folder),
            "EVENKEEL_MODEL_URI": place.uri,
            "EVENKEEL_MODEL_SHA256": sha256,
            **place.environment,
        },
        stderr=subprocess.PIPE,
        text=True,
    )


def kept(folder: Path) -> int:
    """Return how many parts are written down."""
    found = list((folder / "model").glob(".*.partial/data.journal"))
    return found[0].read_bytes().count(b"\n") - 1 if found else 0


def killed(place: Place, folder: Path, is_enough: Callable[[], bool], after_s: float = 0.0) -> bool:
    """Fetch, kill the process so long after the condition holds, and return whether it had not ended by itself."""
    process = begin(place, folder)
    until = time.monotonic() + 60
    while process.poll() is None and not is_enough():
        assert time.monotonic() < until
        time.sleep(0.005)
    time.sleep(after_s)
    process.kill()
    assert process.communicate() is not None
    return process.returncode == -signal.SIGKILL


def ended(place: Place, folder: Path, data: bytes) -> int:
    """Fetch to the end, hold the file against `data`, and return how many of its bytes were kept from before."""
    process = begin(place, folder, hashlib.sha256(data).hexdigest())
    _, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    assert (folder / "model" / "large.bin").read_bytes() == data
    assert os.listdir(folder / "model") == ["large.bin"]
    return int(re.findall(r"kept_bytes=(\d+)", log)[0])


def test_killed_at_any_moment(place: tuple[Place, SlowProxy], tmp_path: Path) -> None:
    where, proxy = place
    chance = random.Random(2)
    for _ in range(4):
        before = proxy.passed_bytes
        if not killed(where, tmp_path, lambda: proxy.passed_bytes > before, chance.uniform(0, 0.3)):  # noqa: B023
            break
        assert not (tmp_path / "model" / "large.bin").exists()
    assert killed(where, tmp_path, lambda: kept(tmp_path) > 8)
    before = proxy.passed_bytes
    assert ended(where, tmp_path, DATA) > 8 * PART
    assert proxy.passed_bytes - before < len(DATA) - 4 * PART  # the first answer may come again as far as it is read


def test_object_that_changed_since(place: tuple[Place, SlowProxy], tmp_path: Path) -> None:
    where, _ = place
    assert killed(where, tmp_path, lambda: kept(tmp_path) > 8)
    where.put(DATA[::-1])
    assert ended(where, tmp_path, DATA[::-1]) == 0


def test_process_that_is_told_to_end_ends_at_once(certificates: tuple[Path, Path], tmp_path: Path) -> None:
    authority, certificate = certificates
    with web_server(certificate) as site:
        site.files["/large.bin"], site.headers["Accept-Ranges"] = DATA, "bytes"
        site.faults, site.stalls_s = ["stall"] * 50, 20.0
        place = Place(site.url("/large.bin"), lambda data: None, {"SSL_CERT_FILE": str(authority)})
        process = begin(place, tmp_path)
        until = time.monotonic() + 60
        while len(site.heard) < 8:
            assert time.monotonic() < until
            time.sleep(0.01)
        process.terminate()
        process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGTERM
