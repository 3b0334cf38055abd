"""Is a folder of weights prepared and served as timm answers, and does a server of a program import none of that?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evenkeel_runtime.contract import Failed, Prepared, Reason
from tests.system.runtime.replica import Replica
from tests.system.runtime.test_commands import run
from tests.unit.runtime.statedicts import CLASSES, timm_folder, timm_module

ROWS: NDArray[np.float32] = np.random.default_rng(0).random((3, 3, 160, 160), np.float32)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("statedict")
    (folder / "claim" / "m").mkdir(parents=True)
    timm_folder(timm_module(), folder / "claim" / "m")
    return folder


@pytest.fixture(scope="module")
def prepared(home: Path) -> Prepared:
    status, found, log = run("prepare", home, {"EVENKEEL_MODEL_URI": "pvc://c/m"})
    assert status == 0, log
    assert isinstance(found, Prepared)
    return found


@pytest.fixture(scope="module")
def served(home: Path, prepared: Prepared) -> Iterator[Replica]:
    pinned = {
        "EVENKEEL_MODEL_FORMAT": prepared.format,
        "EVENKEEL_MODEL_SHA256": prepared.digest.removeprefix("sha256:"),
        "EVENKEEL_MODEL_MARKS": prepared.marks,
    }
    replica = Replica(home / "claim" / "m", home / "termination", pinned)
    try:
        replica.await_ready()
        yield replica
    finally:
        replica.kill()


def test_prepare_describes_the_folder(prepared: Prepared) -> None:
    assert (prepared.format, prepared.file) == ("StateDict", "m/")
    assert [tensor.shape for tensor in prepared.inputs] == [(-1, 3, 160, 160)]
    assert [tensor.shape for tensor in prepared.outputs] == [(-1, CLASSES)]


def test_json_binary_and_v1_answer_what_timm_answers(served: Replica) -> None:
    with torch.no_grad():
        want = timm_module()(torch.from_numpy(ROWS)).numpy()
    given: dict[str, Any] = {"name": "image", "datatype": "FP32", "shape": list(ROWS.shape)}
    text = served.infer({"inputs": [given | {"data": ROWS.ravel().tolist()}]}).json["outputs"][0]
    assert text["name"] == "logits"
    np.testing.assert_allclose(np.reshape(text["data"], (3, CLASSES)), want, atol=1e-5)
    header = {
        "inputs": [given | {"parameters": {"binary_data_size": ROWS.nbytes}}],
        "parameters": {"binary_data_output": True},
    }
    binary = np.frombuffer(served.infer_binary(header, ROWS.tobytes()).tensors, np.float32)
    np.testing.assert_allclose(binary.reshape(3, CLASSES), want, atol=1e-5)
    v1 = served.ask("POST", "/v1/models/m:predict", json.dumps({"instances": ROWS.tolist()}).encode())
    np.testing.assert_allclose(v1.json["predictions"], want, atol=1e-5)


def test_folder_that_changed_is_not_served_and_the_file_is_named(
    home: Path, prepared: Prepared, tmp_path: Path
) -> None:
    (tmp_path / "m").mkdir()
    for path in (home / "claim" / "m").iterdir():
        (tmp_path / "m" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "m" / "config.json").write_text("{}")
    status, found, _ = run(
        "",
        tmp_path,
        {
            "EVENKEEL_MODEL_PATH": str(tmp_path / "m"),
            "EVENKEEL_HTTP_PORT": "0",
            "EVENKEEL_MODEL_SHA256": prepared.digest.removeprefix("sha256:"),
            "EVENKEEL_MODEL_MARKS": prepared.marks,
        },
    )
    assert status == 1
    assert isinstance(found, Failed)
    assert found.reason == Reason.MODEL_CHANGED
    assert "config.json changed" in found.message


def test_server_of_an_exported_program_imports_no_library_of_architectures(model_dir: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from evenkeel_runtime.config import Model\n"
        "from evenkeel_runtime.serve import loading, server\n"
        f"loading.load(Path({str(model_dir / 'perceptron.pt2')!r}), Model('Auto', '', False), 8)\n"
        "print([name for name in ('torchvision', 'timm', 'transformers', 'safetensors') if name in sys.modules])"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert got.stdout == "[]\n"
