"""Does a server of a .keras file answer what Keras itself answers, on every protocol, and refuse what it must?"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evenkeel_runtime.contract import Failed, Prepared, Reason, Tensor
from tests.system.runtime.replica import Replica
from tests.system.runtime.test_commands import run
from tests.unit.runtime.keras_files import HOSTILE, good, perceptron, saved

ROWS = np.random.default_rng(0).random((5, 6), np.float32)


@pytest.fixture(scope="module")
def model() -> Any:
    return perceptron()


@pytest.fixture(scope="module")
def want(model: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras' own ways with numpy
        return model.predict(ROWS, verbose=0)


@pytest.fixture(scope="module")
def served(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    folder = tmp_path_factory.mktemp("keras")
    (folder / "m.bin").write_bytes(saved(model))
    replica = Replica(folder / "m.bin", folder / "termination", {})
    try:
        replica.await_ready()
        yield replica
    finally:
        replica.kill()


def test_json_binary_and_v1_answer_what_keras_answers(served: Replica, want: Any) -> None:
    entry = {"name": "row", "datatype": "FP32", "shape": list(ROWS.shape)}
    text = served.infer({"inputs": [{**entry, "data": ROWS.tolist()}]})
    assert text.status == 200, text.body
    (answer,) = text.json["outputs"]
    assert (answer["name"], answer["datatype"], answer["shape"]) == ("answer", "FP32", [5, 3])
    np.testing.assert_allclose(np.reshape(answer["data"], (5, 3)), want, atol=1e-5)

    header = {
        "inputs": [{**entry, "parameters": {"binary_data_size": ROWS.nbytes}}],
        "parameters": {"binary_data_output": True},
    }
    binary = served.infer_binary(header, ROWS.tobytes())
    np.testing.assert_allclose(np.frombuffer(binary.tensors, np.float32).reshape(5, 3), want, atol=1e-5)

    v1 = served.ask("POST", "/v1/models/m:predict", json.dumps({"instances": ROWS.tolist()}).encode())
    np.testing.assert_allclose(v1.json["predictions"], want, atol=1e-5)


def test_metadata_name_the_framework(served: Replica) -> None:
    found = served.ask("GET", "/v2/models/m").json
    assert found["platform"] == "keras_keras"
    assert found["inputs"] == [{"name": "row", "datatype": "FP32", "shape": [-1, 6]}]
    assert found["parameters"]["keras_version"].startswith("3.")
    assert found["parameters"]["max_batch_size"] > 1


def test_prepare_describes_a_good_file_and_names_what_a_bad_one_holds(tmp_path: Path) -> None:
    (tmp_path / "claim").mkdir()
    path, canary = tmp_path / "claim" / "m.keras", tmp_path / "canary"
    told = {"EVENKEEL_MODEL_URI": "pvc://c/m.keras", "EVENKEEL_MODEL_FORMAT": "Keras"}
    path.write_bytes(good())
    status, found, log = run("prepare", tmp_path, told)
    assert status == 0, log
    assert isinstance(found, Prepared)
    assert found.format == "Keras"
    assert found.inputs == (Tensor("row", "FP32", (-1, 6)),)
    assert found.outputs == (Tensor("answer", "FP32", (-1, 3)),)

    path.write_bytes(HOSTILE["a Lambda layer"].build(good(), canary))
    status, failed, _ = run("prepare", tmp_path, told)
    assert status == 1
    assert isinstance(failed, Failed)
    assert failed.reason == Reason.FORMAT_REFUSED
    assert "Lambda" in failed.message
    assert not canary.exists()
