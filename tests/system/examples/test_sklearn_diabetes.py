"""Is the example's model as good as it says, and does its folder hold what a server and a client need?"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import skops.io
import yaml

from evenkeel_operator.api.modeldeployment import Spec
from evenkeel_runtime.config import Model
from examples.sklearn_diabetes import train
from tests.system.examples.recognised import recognised
from tests.unit.runtime.inspected import inspect


def test_a_run_leaves_a_model_that_answers_numbers_and_a_request_with_its_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    train.main(["--out", str(out)])
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first == "353 patients to train on, 89 held out"
    figures = dict(zip(second.split()[2::2], map(float, second.split()[3::2]), strict=True))
    assert figures.keys() == {"mae", "rmse"}
    manifest = yaml.safe_load(Path(train.__file__).with_name("modeldeployment.yaml").read_text())
    (objective,) = Spec.model_validate(manifest["spec"]).objectives.accuracy
    assert figures["mae"] <= train.ERROR_CEILING < objective.bound

    content = (out / "diabetes.skops").read_bytes()
    assert recognised(out / "diabetes.skops") == "Sklearn"
    assert (out / "diabetes.skops.sha256").read_text() == f"{hashlib.sha256(content).hexdigest()}  diabetes.skops\n"
    _, signature = inspect(io.BytesIO(content), len(content), Model("Sklearn", "", False))
    (tensor,) = json.loads((out / "request.json").read_text())["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("input", "FP64", [10, 10])
    assert [(o.name, o.datatype, o.shape) for o in signature.outputs] == [("prediction", "FP64", (-1,))]
    expected = json.loads((out / "expected.json").read_text())
    model, rows = skops.io.load(out / "diabetes.skops"), np.array(tensor["data"]).reshape(tensor["shape"])
    np.testing.assert_allclose(model.predict(rows), expected["prediction"])
    assert len(expected["truth"]) == train.ASKED


def test_a_model_above_the_ceiling_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "ERROR_CEILING", 1.0)
    with pytest.raises(SystemExit, match="nothing was written"):
        train.main(["--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
