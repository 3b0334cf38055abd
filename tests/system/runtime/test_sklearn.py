"""Does a server of a skops file answer in words and to many at once as scikit-learn does, and refuse what it must?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from evenkeel_runtime.contract import Failed, Prepared, Reason, Tensor
from tests.system.runtime.replica import Replica
from tests.system.runtime.test_commands import run
from tests.unit.runtime.skops_files import FEATURES, HOSTILE, LABELS, ROWS, dumped, good, pipeline

TREE = "sklearn.tree._tree.Tree"
ESTIMATOR = pipeline()
SPECIES = np.array(["ash", "beech", "yew"])

Rows = NDArray[np.float64]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    folder = tmp_path_factory.mktemp("sklearn")
    (folder / "m.bin").write_bytes(dumped(ESTIMATOR))
    replica = Replica(folder / "m.bin", folder / "termination", {})
    try:
        replica.await_ready()
        yield replica
    finally:
        replica.kill()


def entry(rows: Rows, **more: Any) -> dict[str, Any]:
    return {"name": "input", "datatype": "FP64", "shape": list(rows.shape), **more}


def binary(replica: Replica, rows: Rows) -> tuple[Any, ...]:
    """Return label and probabilities as the binary extension carries them."""
    given = entry(rows, parameters={"binary_data_size": rows.nbytes})
    answer = replica.infer_binary({"inputs": [given], "parameters": {"binary_data_output": True}}, rows.tobytes())
    assert answer.status == 200, answer.body
    label, probabilities = answer.json["outputs"]
    assert [label["datatype"], probabilities["datatype"]] == ["INT64", "FP64"]
    split = label["parameters"]["binary_data_size"]
    return (
        np.frombuffer(answer.tensors[:split], np.int64),
        np.frombuffer(answer.tensors[split:], np.float64).reshape(probabilities["shape"]),
    )


def test_metadata_name_the_classes_and_the_framework(served: Replica) -> None:
    found = served.ask("GET", "/v2/models/m").json
    assert found["platform"] == "sklearn_skops"
    assert found["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, FEATURES]}]
    assert found["parameters"]["classes"] == [0, 1, 2]
    assert found["parameters"]["device"] == "cpu"
    assert found["parameters"]["max_batch_size"] > 1


def test_a_row_that_is_no_number_fails_its_own_request_only(served: Replica) -> None:
    """Sixteen clients at once, every fourth sends NaN: scikit-learn refuses a whole batch for one."""

    def client(number: int) -> None:
        rows = ROWS[number : number + 3].copy()
        given = entry(rows, parameters={"binary_data_size": rows.nbytes})
        for _ in range(20):
            if number % 4:
                np.testing.assert_allclose(binary(served, rows)[1], ESTIMATOR.predict_proba(rows), atol=1e-12)
            else:
                rows[0, 0] = np.nan
                answer = served.infer_binary({"inputs": [given]}, rows.tobytes())
                assert answer.status == 500
                assert "NaN" in answer.json["error"]

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(client, number) for number in range(16)]:
            future.result()
    assert served.ask("GET", "/v2/health/ready").status == 200


def test_classes_that_are_text_are_answered_as_text(start: Callable[..., Replica], model_dir: Path) -> None:
    """The forest was trained in two processes, which the server must not start: they would unpickle its trees."""
    estimator = RandomForestClassifier(5, n_jobs=2, random_state=0).fit(ROWS, SPECIES[LABELS])
    (model_dir / "forest").write_bytes(dumped(estimator))
    replica = start("forest", EVENKEEL_TRUSTED_TYPES=TREE)
    replica.await_ready()
    answer = replica.infer({"inputs": [entry(ROWS, data=ROWS.tolist())]})
    label, probabilities = answer.json["outputs"]
    want = estimator.predict(ROWS).tolist()
    assert (label["name"], label["datatype"], label["data"]) == ("label", "BYTES", want)
    assert replica.ask("GET", "/v2/models/m").json["parameters"]["classes"] == SPECIES.tolist()
    v1 = replica.ask("POST", "/v1/models/m:predict", json.dumps({"instances": ROWS.tolist()}).encode())
    assert [row["label"] for row in v1.json["predictions"]] == want
    np.testing.assert_allclose(np.reshape(probabilities["data"], (-1, 3)), estimator.predict_proba(ROWS), atol=1e-12)
    asked = {"inputs": [entry(ROWS, data=ROWS.tolist())], "outputs": [{"name": "label_index"}]}
    assert "it has label, probabilities" in replica.infer(asked).json["error"]


def test_prepare_and_the_server_refuse_what_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "claim").mkdir()
    path, canary = tmp_path / "claim" / "m.skops", tmp_path / "canary"
    uri, served = (
        {"EVENKEEL_MODEL_URI": "pvc://c/m.skops"},
        {"EVENKEEL_MODEL_PATH": str(path), "EVENKEEL_HTTP_PORT": "0"},
    )
    path.write_bytes(HOSTILE["a call"].build(good(), canary))
    for command, told in (("prepare", uri), ("", served)):
        status, found, _ = run(command, tmp_path, told)
        assert status == 1
        assert isinstance(found, Failed)
        assert found.reason == Reason.FORMAT_REFUSED
        assert "os.system" in found.message
        assert "spec.model.trustedTypes" in found.message
    assert not canary.exists()


def test_prepare_describes_a_file_whose_types_are_trusted(tmp_path: Path) -> None:
    (tmp_path / "claim").mkdir()
    (tmp_path / "claim" / "m.skops").write_bytes(dumped(RandomForestClassifier(2).fit(ROWS, LABELS)))
    told = {"EVENKEEL_MODEL_URI": "pvc://c/m.skops", "EVENKEEL_MODEL_FORMAT": "Sklearn", "EVENKEEL_TRUSTED_TYPES": TREE}
    status, found, log = run("prepare", tmp_path, told)
    assert status == 0, log
    assert isinstance(found, Prepared)
    assert found.format == "Sklearn"
    assert found.inputs == (Tensor("input", "FP64", (-1, FEATURES)),)
    assert found.outputs == (Tensor("label", "INT64", (-1,)), Tensor("probabilities", "FP64", (-1, 3)))
    assert len(log.splitlines()) == 1
