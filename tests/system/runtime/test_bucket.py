"""Does `s3://` work against a real S3 server, with credentials, cuts and errors? versitygw over a directory."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from evenkeel_runtime import config
from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch import bucket
from evenkeel_runtime.fetch.fetch import fetch
from evenkeel_runtime.prepare import prepare
from tests.cluster import binaries
from tests.system.runtime.test_folders import digest, fetching, read_back
from tests.system.runtime.test_sources import check

if TYPE_CHECKING:
    from obstore.store import S3Store

KEY, SECRET = "testkey", "testsecret"
FOLDER = {"config.json": b"{}", "parts/one/model.safetensors": b"weights" * 5000, "parts/ä b.txt": b"x"}


@contextlib.contextmanager
def versitygw(folder: Path) -> Iterator[tuple[int, S3Store]]:
    """Run the server over the directory, with a bucket `models`; yields its port and the bucket, to be written to."""
    from obstore.store import S3Store

    program = shutil.which("versitygw") or binaries.tool("versitygw")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    (folder / "models").mkdir(parents=True)  # to this backend a bucket is a directory
    process = subprocess.Popen(
        [program, "--access", KEY, "--secret", SECRET, "--port", f"127.0.0.1:{port}", "posix", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)
        yield (
            port,
            S3Store(
                "models",
                region="us-east-1",
                access_key_id=KEY,
                secret_access_key=SECRET,
                endpoint=f"http://127.0.0.1:{port}",
                client_options={"allow_http": True},
            ),
        )
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory, model: bytes) -> Iterator[int]:
    import obstore

    with versitygw(tmp_path_factory.mktemp("buckets")) as (port, store):
        obstore.put(store, "v1/digits.pt2", model)
        for path, data in FOLDER.items():
            obstore.put(store, f"whole/{path}", data)
        obstore.put(store, "whole-not/config.json", b"a sibling whose name begins alike")
        yield port


@pytest.fixture
def told(told: config.Prepare, endpoint: int, monkeypatch: pytest.MonkeyPatch) -> config.Prepare:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{endpoint}")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    return dataclasses.replace(told, uri="s3://models/v1/digits.pt2")


def reason_of(told: config.Prepare) -> Reason:
    with pytest.raises(ModelError) as failure:
        prepare(told)
    return failure.value.reason


@pytest.mark.parametrize("whole_bytes", [1 << 30, 1000], ids=["fetched whole", "hashed, then read by range"])
def test_object(told: config.Prepare, model: bytes, whole_bytes: int) -> None:
    check(prepare(dataclasses.replace(told, whole_bytes=whole_bytes)), model)


@pytest.mark.parametrize("uri", ["s3://models/whole", "s3://models/whole/"])
@pytest.mark.parametrize("whole_bytes", [1 << 30, 0], ids=["stored", "hashed only"])
def test_folder(told: config.Prepare, uri: str, whole_bytes: int) -> None:
    found = prepare(dataclasses.replace(told, uri=uri, inspect=False, whole_bytes=whole_bytes))
    assert (found.digest, found.file) == (digest(FOLDER), "whole/")
    assert read_back(fetch(fetching(told, uri, found))) == FOLDER


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3://models/v2/digits.pt2", Reason.MODEL_NOT_FOUND),
        ("s3://models/v2/", Reason.MODEL_NOT_FOUND),
        ("s3://nobucket/v1/digits.pt2", Reason.MODEL_NOT_FOUND),
        ("s3://models/", Reason.INVALID),
        ("s3://Not_A_Bucket/x", Reason.INVALID),
    ],
)
def test_what_is_not_there(told: config.Prepare, uri: str, reason: Reason) -> None:
    assert reason_of(dataclasses.replace(told, uri=uri)) == reason


def test_wrong_secret(told: config.Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert reason_of(told) == Reason.ACCESS_DENIED
    assert reason_of(told) == Reason.ACCESS_DENIED


def test_unknown_key(told: config.Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    assert reason_of(told) == Reason.ACCESS_DENIED
    assert reason_of(told) == Reason.ACCESS_DENIED


def test_anonymous_read_of_a_private_bucket(told: config.Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert reason_of(told) == Reason.ACCESS_DENIED
    assert reason_of(told) == Reason.ACCESS_DENIED


def test_nobody_listens(told: config.Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert reason_of(told) == Reason.SOURCE_UNAVAILABLE


def test_connection_that_is_cut_is_resumed(
    told: config.Prepare, model: bytes, endpoint: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CuttingProxy(endpoint, cuts=2, after_bytes=len(model) // 2) as (port, connections):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        check(prepare(told), model)
        assert len(connections) == 3


def test_connection_that_stalls_is_resumed(
    told: config.Prepare, model: bytes, endpoint: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "STALLED_S", 1.0)
    with CuttingProxy(endpoint, cuts=1, after_bytes=len(model) // 2, holds=True) as (port, connections):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        check(prepare(told), model)
        assert len(connections) == 2


class CuttingProxy:
    """Passes bytes on and cuts the first connections after so many bytes of the answer, or holds them as they are."""

    def __init__(self, target: int, cuts: int, after_bytes: int, *, holds: bool = False) -> None:
        self._target, self._cuts, self._after = target, cuts, after_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.connections: list[threading.Thread] = []
        self._is_over = threading.Event()
        if not holds:
            self._is_over.set()

    def __enter__(self) -> tuple[int, list[threading.Thread]]:
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()
        return self._listener.getsockname()[1], self.connections

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for thread in self.connections:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            limit = self._after if len(self.connections) < self._cuts else None
            thread = threading.Thread(target=self._pass, args=(client, limit))
            self.connections.append(thread)
            thread.start()

    def _pass(self, client: socket.socket, limit: int | None) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            forward = threading.Thread(target=_copy, args=(client, server, None))
            forward.start()
            _copy(server, client, limit)
            if limit is not None:
                self._is_over.wait()
            for end in (client, server):
                with contextlib.suppress(OSError):  # the other side was faster
                    end.shutdown(socket.SHUT_RDWR)
            forward.join()


def _copy(source: socket.socket, target: socket.socket, limit: int | None) -> None:
    left = limit
    try:
        while data := source.recv(512 if limit else 65536):
            target.sendall(data)
            if left is not None and (left := left - len(data)) <= 0:
                return
    except OSError:
        return  # one side has ended
