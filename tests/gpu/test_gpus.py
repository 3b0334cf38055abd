"""Does a replica with several GPUs use all of them, and what becomes of it when one is lost?

Run by `make gpu`; on a machine with fewer than two GPUs each of these says that it was skipped, and why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evenkeel_runtime import contract
from evenkeel_runtime.contract import SIGNALS_PATH, Reason
from evenkeel_runtime.engine import cuda
from tests.system.runtime.replica import PATIENCE_S, Replica
from tests.system.runtime.saved import network, pinned, quiet
from tests.unit.runtime import models

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="this machine has fewer than two GPUs")


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Replica]]:
    started: list[Replica] = []

    def serve(path: Path, **told: str) -> Replica:
        replica = Replica(path, tmp_path / "termination", told)
        started.append(replica)
        replica.await_ready()
        return replica

    yield serve
    for replica in started:
        replica.kill()


@pytest.fixture
def perceptron(tmp_path: Path) -> Path:
    (tmp_path / "m.pt2").write_bytes(models.perceptron())
    return tmp_path / "m.pt2"


def said(replica: Replica) -> dict[str, Any]:
    found: dict[str, Any] = replica.ask("GET", "/v2/models/m").json["parameters"]
    return found


def test_the_driver_counts_the_gpus_that_torch_counts() -> None:
    assert cuda.visible() == torch.cuda.device_count()


def test_each_gpu_has_an_engine_and_memory_taken(serving: Callable[..., Replica], perceptron: Path) -> None:
    count = torch.cuda.device_count()
    before = [torch.cuda.mem_get_info(index)[0] for index in range(count)]
    found = said(serving(perceptron))
    assert (found["engines"], found["device"], found["execution_mode"]) == (count, "cuda", "process")
    after = [torch.cuda.mem_get_info(index)[0] for index in range(count)]
    assert all(left < free for left, free in zip(after, before, strict=True)), "a context, and the model, on each"


def test_rows_are_never_mixed_up(serving: Callable[..., Replica], perceptron: Path) -> None:
    """Each client sends rows of its own, and knows what one GPU answers to them alone."""
    one, all_ = serving(perceptron, EVENKEEL_ENGINES="1"), serving(perceptron)

    def client(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(60):
            image = random.random((int(random.integers(1, 9)), 12), dtype=np.float32)
            got, want = (
                np.frombuffer(replica.rows(image).tensors, np.float32).reshape(-1, 3) for replica in (all_, one)
            )
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(client, seed) for seed in range(16)]:
            future.result()
    found = all_.admin("GET", SIGNALS_PATH).json
    assert found["engines"] == torch.cuda.device_count()
    assert found["failed"] == 0


def test_one_gpu_that_is_lost_ends_the_replica_and_the_others_answer_until_then(
    serving: Callable[..., Replica], tmp_path: Path
) -> None:
    """TorchScript does not say what its table takes, and an index beyond it fails in a kernel."""
    with quiet():
        scripted: Any = vars(torch)["jit"].trace(network(lambda: models.Words(3)), torch.zeros(2, dtype=torch.int64))
        scripted.save(str(tmp_path / "m.pt"))
    replica = serving(tmp_path / "m.pt", **pinned(tmp_path / "m.pt"), EVENKEEL_DRAIN_DELAY_S="3")

    def ask(word: int) -> int:
        tensor = {"name": "input_0", "datatype": "INT64", "shape": [1], "data": [word]}
        return replica.infer({"inputs": [tensor]}).status

    assert ask(2) == 200
    assert ask(99) == 503
    until = time.monotonic() + 1.0
    got = []
    while time.monotonic() < until:
        got.append(ask(2))
    assert set(got) == {200}, "the other GPUs answer while the replica drains"
    assert replica.process.wait(PATIENCE_S) == 1
    report = replica.report()
    assert isinstance(report, contract.Failed)
    assert report.reason == Reason.DEVICE_LOST
