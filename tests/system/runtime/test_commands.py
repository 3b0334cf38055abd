"""Do `prepare` and `fetch` end as containers must: an exit status, a termination message, one log line?"""

from __future__ import annotations

import http.client
import io
import os
import resource
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from evenkeel_runtime import contract
from evenkeel_runtime.contract import Failed, Prepared, Reason
from tests.cluster.kubectl import wait_until
from tests.system.runtime.replica import PATIENCE_S
from tests.unit.runtime.hostile import HOSTILE

MODEL = {"EVENKEEL_MODEL_URI": "pvc://c/m.pt2"}
Ended = tuple[int, Prepared | Failed | None, str]


def run(command: str, folder: Path, environment: dict[str, str], limit_bytes: int | None = None) -> Ended:
    def limit() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))

    termination = folder / "termination"
    got = subprocess.run(
        [sys.executable, "-m", "evenkeel_runtime", *([command] if command else [])],
        env={
            **os.environ,
            "EVENKEEL_TERMINATION_LOG": str(termination),
            "EVENKEEL_CLAIM_DIR": str(folder / "claim"),
            "EVENKEEL_MODEL_DIR": str(folder / "model"),
            "EVENKEEL_SCRATCH_DIR": str(folder),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )
    return got.returncode, contract.decode(termination.read_text()) if termination.exists() else None, got.stderr


@pytest.fixture
def claim(tmp_path: Path, model_dir: Path) -> Path:
    (tmp_path / "claim").mkdir()
    (tmp_path / "claim" / "m.pt2").write_bytes((model_dir / "perceptron.pt2").read_bytes())
    return tmp_path / "claim"


def test_prepare_then_fetch(claim: Path, tmp_path: Path) -> None:
    status, found, log = run("prepare", tmp_path, {**MODEL, "EVENKEEL_MODEL_FORMAT": "Auto"})
    assert status == 0
    assert isinstance(found, Prepared)
    assert found.outputs == (contract.Tensor("linear_1", "FP32", (-1, 3)),)
    assert len(log.splitlines()) == 1
    status, _, log = run("fetch", tmp_path, {**MODEL, "EVENKEEL_MODEL_SHA256": found.digest})
    assert status == 0
    assert len(log.splitlines()) == 1
    assert (tmp_path / "model" / "m.pt2").read_bytes() == (claim / "m.pt2").read_bytes()


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, Reason.INVALID),
        ({"EVENKEEL_MODEL_URI": "pvc://c/other.pt2"}, Reason.MODEL_NOT_FOUND),
        ({"EVENKEEL_MODEL_URI": "pvc://c/m.pt2", "EVENKEEL_MODEL_SHA256": "ab" * 32}, Reason.CHECKSUM_MISMATCH),
        ({"EVENKEEL_MODEL_URI": "pvc://c/m.pt2", "EVENKEEL_MODEL_FORMAT": "TorchScript"}, Reason.FORMAT_REFUSED),
    ],
)
def test_failures_are_reported(claim: Path, tmp_path: Path, environment: dict[str, str], reason: Reason) -> None:
    status, found, log = run("prepare", tmp_path, environment)
    assert status == 1
    assert isinstance(found, Failed)
    assert found.reason == reason
    assert len(log.splitlines()) == 1
    assert f"reason={reason}" in log


def test_hostile_file_as_a_container_sees_it(claim: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (claim / "m.pt2").write_bytes(HOSTILE["torch.save of a whole object"].build(b"", canary))
    status, found, _ = run("prepare", tmp_path, MODEL)
    assert status == 1
    assert isinstance(found, Failed)
    assert found.reason == Reason.FORMAT_REFUSED
    status, found, _ = run("", tmp_path, {"EVENKEEL_MODEL_PATH": str(claim / "m.pt2"), "EVENKEEL_HTTP_PORT": "0"})
    assert status == 1
    assert isinstance(found, Failed)
    assert found.reason == Reason.FORMAT_REFUSED
    assert not canary.exists()


def test_memory_limit(claim: Path, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/archive_version", "0")
        for kind in ("weights", "constants"):
            archive.writestr(f"m/data/{kind}/model_{kind}_config.json", '{"config": {}}')
        archive.writestr("m/models/model.json", b" " * (200 << 20))
    (claim / "m.pt2").write_bytes(stream.getvalue())
    status, found, _ = run("prepare", tmp_path, MODEL, limit_bytes=300 << 20)
    assert status == 1
    assert isinstance(found, Failed)
    assert found.reason == Reason.OUT_OF_MEMORY
    assert "limits.memory" in found.message


@pytest.mark.skipif(os.getuid() != 0, reason="a small file system has to be mounted")
def test_full_disk(claim: Path, tmp_path: Path) -> None:
    small = tmp_path / "model"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(small)], check=False, capture_output=True
    ).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        status, found, _ = run("fetch", tmp_path, MODEL)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert status == 1
    assert isinstance(found, Failed)
    assert found.reason == Reason.DISK_FULL


def test_unknown_command(tmp_path: Path) -> None:
    status, found, log = run("launch", tmp_path, {})
    assert (status, found) == (2, None)
    assert "usage" in log


def test_a_person_serves_a_file_without_a_cluster(model_dir: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    words = ["serve", str(model_dir / "perceptron.pt2"), "--port", str(port)]
    command = [sys.executable, "-m", "evenkeel_runtime.commands", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().decode() == f"http://127.0.0.1:{port}/v2/models/perceptron\n"
            wait_until("it is ready", lambda: _status(port, "/v2/health/ready") == 200, timeout_s=PATIENCE_S)
            assert _status(port, "/v2/models/perceptron") == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()
