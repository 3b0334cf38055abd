"""Is the example's network as good as it says, and is its folder served as timm answers?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from evenkeel_runtime.config import Model
from evenkeel_runtime.models.recognised import recognised_folder
from examples.statedict_digits import train
from tests.system.examples.recognised import recognised
from tests.unit.runtime.statedicts import bundle


def test_a_run_leaves_a_folder_that_answers_as_timm_does_and_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "EPOCHS", 1)
    monkeypatch.setattr(train, "ACCURACY_FLOOR", 0.0)
    out = tmp_path / "out"
    train.main(["--out", str(out)])
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first == "1437 digits to train on, 360 held out"
    assert float(second.split()[-1]) > 0.1

    assert recognised(out / "digits") == "StateDict"
    files = {path.name: path.read_bytes() for path in (out / "digits").iterdir()}
    loaded = recognised_folder(bundle(files), Model("StateDict", "", False)).load("cpu")
    assert loaded.signature.classes == tuple("0123456789")
    (tensor,) = json.loads((out / "request.json").read_text())["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("image", "FP32", [10, 1, 32, 32])
    assert loaded.signature.inputs[0].shape == (-1, 1, 32, 32)
    expected = json.loads((out / "expected.json").read_text())
    assert expected["truth"] == list(range(10))
    with torch.no_grad():
        got = loaded.call(torch.tensor(tensor["data"]).reshape(tensor["shape"]))[0]
    np.testing.assert_allclose(got.numpy(), expected["logits"], atol=1e-5)


def test_a_model_below_the_floor_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "EPOCHS", 1)
    monkeypatch.setattr(train, "ACCURACY_FLOOR", 1.01)
    with pytest.raises(SystemExit, match="nothing was written"):
        train.main(["--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--out", __file__])
    assert "error: --out" in capsys.readouterr().err
