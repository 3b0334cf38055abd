"""Is the example's model as good as it says, and does its folder hold what a server and a client need?"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import skops.io

from evenkeel_runtime.config import Model
from examples.sklearn_digits import train
from tests.system.examples.recognised import recognised
from tests.unit.runtime.inspected import inspect


def test_a_run_leaves_a_model_that_is_served_without_trust_and_a_request_with_its_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    train.main(["--out", str(out)])
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first == "1437 digits to train on, 360 held out"
    figures = dict(zip(second.split()[2::2], map(float, second.split()[3::2]), strict=True))
    assert figures.keys() == {"accuracy", "precision", "recall", "f1"}
    assert min(figures.values()) >= train.ACCURACY_FLOOR

    content = (out / "digits.skops").read_bytes()
    assert recognised(out / "digits.skops") == "Sklearn"
    assert (out / "digits.skops.sha256").read_text() == f"{hashlib.sha256(content).hexdigest()}  digits.skops\n"
    _, signature = inspect(io.BytesIO(content), len(content), Model("Sklearn", "", False))
    (tensor,) = json.loads((out / "request.json").read_text())["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("input", "FP64", [10, 64])
    assert [(output.name, output.datatype, output.shape) for output in signature.outputs] == [
        ("label", "INT64", (-1,)),
        ("probabilities", "FP64", (-1, 10)),
    ]
    expected = json.loads((out / "expected.json").read_text())
    assert expected["truth"] == list(range(10))
    model, rows = skops.io.load(out / "digits.skops"), np.array(tensor["data"]).reshape(tensor["shape"])
    assert model.predict(rows).tolist() == expected["label"]
    np.testing.assert_allclose(model.predict_proba(rows), expected["probabilities"])


def test_a_model_below_the_floor_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "ACCURACY_FLOOR", 1.01)
    with pytest.raises(SystemExit, match="nothing was written"):
        train.main(["--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--out", __file__])
    assert "error: --out" in capsys.readouterr().err
