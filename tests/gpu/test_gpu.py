"""Does a replica answer on a GPU what the frameworks answer without one, and does it live with a GPU's own failures?

Run by `make gpu`, on a machine that has one; `make test` has none to run it on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from evenkeel_runtime import contract
from tests.system.runtime.replica import Replica
from tests.system.runtime.saved import FORMATS, export, network, pinned, quiet
from tests.system.runtime.ways import by_binary
from tests.unit.runtime import models

ON_CPUS = {"Sklearn"}
"""Formats that a GPU is of no use to."""
APART = 5e-3
"""Of numbers between 0 and 1: convolutions multiply in TF32 on a GPU, as torch lets them."""
CLIENTS, REQUESTS = 16, 60


@pytest.fixture(autouse=True, scope="session")
def _there_is_one() -> None:
    assert torch.cuda.is_available(), "this machine has no GPU that torch can use"


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Any]:
    started: list[Replica] = []

    def serve(path: Path, told: dict[str, str] | None = None) -> Replica:
        replica = Replica(path, tmp_path / "termination", told or {})
        started.append(replica)
        replica.await_ready()
        return replica

    yield serve
    for replica in started:
        replica.kill()


def said(replica: Replica) -> dict[str, Any]:
    found: dict[str, Any] = replica.ask("GET", "/v2/models/m").json["parameters"]
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_answers_are_the_frameworks(name: str, serving: Any, tmp_path: Path) -> None:
    saved = FORMATS[name].save(tmp_path, tmp_path)
    replica = serving(saved.path, dict(saved.told))
    got = by_binary(replica, saved.given)
    print(name, {word: said(replica)[word] for word in ("device", "call_path", "max_batch_size", "execution_mode")})
    assert said(replica)["device"] == ("cpu" if name in ON_CPUS else "cuda")
    for output, values in saved.want.items():
        if values.dtype == object:
            assert got[output].tolist() == values.tolist()
        else:
            np.testing.assert_allclose(got[output], values, rtol=APART, atol=APART, err_msg=output)


@pytest.mark.parametrize(
    ("make", "shape", "want"),
    [
        pytest.param(models.Perceptron, (12,), "cudagraph", id="a perceptron is recorded"),
        pytest.param(models.Convolution, (1, 28, 28), "cudagraph", id="a CNN is recorded"),
        pytest.param(models.Recurrent, (4, 5), "", id="a recurrent network"),
    ],
)
def test_every_client_gets_its_own_rows(
    make: type[nn.Module], shape: tuple[int, ...], want: str, serving: Any, tmp_path: Path
) -> None:
    module = network(make)
    export(module, np.zeros((4, *shape), np.float32), "image" if make is not models.Recurrent else "steps",
           tmp_path / "m.pt2")  # fmt: skip
    replica = serving(tmp_path / "m.pt2")
    parameters = said(replica)
    print(make.__name__, parameters)
    assert want in parameters["call_path"]
    wrong: list[str] = []

    def ask(seed: int) -> None:
        chance = np.random.default_rng(seed)
        for _ in range(REQUESTS):
            rows = chance.random((int(chance.integers(1, 10)), *shape), np.float32)
            name = "image" if make is not models.Recurrent else "steps"
            (got,) = by_binary(replica, {name: rows}).values()
            with torch.inference_mode():
                expected = module(torch.from_numpy(rows)).numpy()
            if not np.allclose(got, expected, rtol=APART, atol=APART):
                wrong.append(f"{len(rows)} rows, apart by {np.abs(got - expected).max()}")

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_program_that_a_cpu_exported_shares_calls(serving: Any, tmp_path: Path) -> None:
    """Its views are of tensors that lie otherwise on a GPU."""
    module = network(lambda: nn.Sequential(torchvision.models.resnet18()))
    export(module, np.zeros((2, 3, 64, 64), np.float32), "input", tmp_path / "m.pt2")
    replica = serving(tmp_path / "m.pt2")
    print(said(replica))
    assert said(replica)["max_batch_size"] > 1
    rows = np.random.default_rng(0).random((33, 3, 64, 64), np.float32)
    (got,) = by_binary(replica, {"input": rows}).values()
    with torch.inference_mode():
        want = module(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(got, want, rtol=0.02, atol=0.02)


class Heavy(nn.Module):
    """Takes a GiB of memory for every row, and keeps none."""

    def forward(self, row: torch.Tensor) -> torch.Tensor:
        return (row[:, :1].repeat(1, 1 << 28) + 1.0)[:, :4]


def test_a_batch_is_no_larger_than_the_memory(serving: Any, tmp_path: Path) -> None:
    export(Heavy(), np.zeros((2, 4), np.float32), "row", tmp_path / "m.pt2")
    replica = serving(tmp_path / "m.pt2")
    print(said(replica))
    assert 1 <= said(replica)["max_batch_size"] <= 64
    rows = np.full((100, 4), 2.0, np.float32)
    (got,) = by_binary(replica, {"row": rows}).values()
    assert (got == 3.0).all()


def test_a_number_beyond_a_table_is_the_clients_fault_alone(serving: Any, tmp_path: Path) -> None:
    export(network(lambda: models.Words(3)), np.zeros(4, np.int64), "word", tmp_path / "m.pt2")
    replica = serving(tmp_path / "m.pt2")
    asked = {"inputs": [{"name": "word", "datatype": "INT64", "shape": [1], "data": [3]}]}
    answer = replica.infer(asked)
    assert (answer.status, answer.json["error"]) == (400, "inputs: word holds 3, the model takes 0 to 2")
    asked["inputs"][0]["data"] = [2]
    assert replica.infer(asked).status == 200


def test_a_lost_context_ends_the_process_and_nobody_hangs(serving: Any, tmp_path: Path) -> None:
    """TorchScript does not say what its table takes, and an index beyond it fails in a kernel."""
    with quiet():
        scripted: Any = vars(torch)["jit"].trace(network(lambda: models.Words(3)), torch.zeros(2, dtype=torch.int64))
        scripted.save(str(tmp_path / "m.pt"))
    replica = serving(tmp_path / "m.pt", pinned(tmp_path / "m.pt"))
    asked = {"inputs": [{"name": "input_0", "datatype": "INT64", "shape": [1], "data": [2]}]}
    assert replica.infer(asked).status == 200
    asked["inputs"][0]["data"] = [99]
    answer = replica.infer(asked)
    print(answer)
    assert answer.status == 503
    assert replica.wait() == 1
    report = replica.report()
    assert isinstance(report, contract.Failed)
    assert report.reason == contract.Reason.DEVICE_LOST
