"""What do the system tests need: exported models on disk, and real server processes that serve them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evenkeel_runtime import config
from evenkeel_runtime.fetch import transfer
from tests.system.feedback.server import Service
from tests.system.runtime.replica import Replica
from tests.system.runtime.webserver import make_certificates
from tests.unit.runtime import models


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "perceptron.pt2").write_bytes(models.perceptron())
    two = models.exported(models.CASES["several inputs and a dict of outputs"])
    (folder / "several.pt2").write_bytes(two)
    (folder / "long.pt2").write_bytes(
        models.exported(models.Case(models.Long, models.floats(4), {"row": {0: models.BATCH}}))
    )
    for count in (3, 100):
        (folder / f"words-{count}.pt2").write_bytes(models.words(count))
        (folder / f"found-{count}.pt2").write_bytes(models.words(count, models.Found))
    (folder / "unrunnable.pt2").write_bytes(models.unrunnable())
    return folder


@pytest.fixture(scope="session")
def model(model_dir: Path) -> bytes:
    return (model_dir / "perceptron.pt2").read_bytes()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the whole run: of all its processes, where there are several."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An authority's certificate, and one for loopback that it signed, with its key."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> config.Prepare:
    """What a prepare Job is told, but for the address; nothing waits before it asks again."""
    monkeypatch.setattr(transfer.Patience, "delay_s", lambda self, failures: 0.0)
    places = config.Places(tmp_path / "model", tmp_path / "claim", tmp_path)
    return config.Prepare("", config.Model("Auto", "", False), places, inspect=True, whole_bytes=1 << 30)


@pytest.fixture
def start(model_dir: Path, tmp_path: Path) -> Iterator[Callable[..., Replica]]:
    """Start servers that end with the test."""
    started: list[Replica] = []

    def begin(model: str, *, speaks_grpc: bool = False, **environment: str) -> Replica:
        termination = tmp_path / f"termination-{len(started)}"
        started.append(Replica(model_dir / model, termination, environment, speaks_grpc=speaks_grpc))
        return started[-1]

    yield begin
    for replica in started:
        replica.kill()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A feedback service, shared by a module's tests: each leaves it running."""
    folder = tmp_path_factory.mktemp("feedback")
    found = Service(folder, "--path", str(folder / "feedback.db"))
    yield found
    found.kill()


@pytest.fixture(scope="module")
def perceptron(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A ready server with a small model, shared by a module's tests: each leaves it serving."""
    folder = tmp_path_factory.mktemp("perceptron")
    limits = {"EVENKEEL_CLIENT_TIMEOUT_S": "1.5", "EVENKEEL_MAX_ROWS": "64", "EVENKEEL_MAX_CONNECTIONS": "40"}
    replica = Replica(model_dir / "perceptron.pt2", folder / "termination", limits, speaks_grpc=True)
    try:
        replica.await_ready()
        yield replica
    finally:
        replica.kill()
