"""Is a TorchScript file whose author names its inputs served as other models are, and told why it is not, else?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.system.runtime.replica import Replica
from tests.unit.runtime.models import Perceptron
from tests.unit.runtime.test_torchscript import ROWS, saved

Start = Callable[..., Replica]


def served(start: Start, folder: Path, inputs: str | None) -> Replica:
    torch.manual_seed(7)
    (folder / "m.pt").write_bytes(saved(Perceptron(), torch.zeros(2, 12), inputs=inputs))
    sha256 = hashlib.sha256((folder / "m.pt").read_bytes()).hexdigest()
    replica = start(str(folder / "m.pt"), EVENKEEL_ALLOW_NATIVE_CODE="true", EVENKEEL_MODEL_SHA256=sha256)
    replica.await_ready()
    return replica


def test_clients_share_calls_and_get_their_own_rows(start: Start, tmp_path: Path) -> None:
    replica = served(start, tmp_path, ROWS)
    metadata = replica.ask("GET", "/v2/models/m").json
    assert metadata["inputs"] == [{"name": "input_0", "datatype": "FP32", "shape": [-1, 12]}]
    assert metadata["parameters"]["max_batch_size"] > 1
    assert "not_batched" not in metadata["parameters"]
    torch.manual_seed(7)
    model = Perceptron().eval()

    def ask(seed: int) -> None:
        rows = torch.rand(1 + seed % 3, 12, generator=torch.Generator().manual_seed(seed))
        body = json.dumps({"instances": rows.tolist()}).encode()
        got = replica.ask("POST", "/v1/models/m:predict", body).json["predictions"]
        torch.testing.assert_close(torch.tensor(got), model(rows).detach(), atol=1e-4, rtol=1e-4)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(60)))


def test_a_file_that_names_no_inputs_says_why_requests_share_no_call(start: Start, tmp_path: Path) -> None:
    parameters = served(start, tmp_path, None).ask("GET", "/v2/models/m").json["parameters"]
    assert parameters["max_batch_size"] == 1
    assert "inputs.json" in parameters["not_batched"]


@pytest.mark.parametrize("shape", [[1, 11], [12]])
def test_what_the_model_does_not_take_is_refused_by_name(start: Start, tmp_path: Path, shape: list[int]) -> None:
    entry = {"name": "input_0", "datatype": "FP32", "shape": shape, "data": [0.0] * shape[-1]}
    answer = served(start, tmp_path, ROWS).infer({"inputs": [entry]})
    assert answer.status == 400
    assert "the model takes [-1, 12]" in answer.json["error"]
