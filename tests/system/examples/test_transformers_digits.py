"""Is the example's model better than chance, and is its folder served as transformers answers to pictures?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from evenkeel_runtime.config import Model
from evenkeel_runtime.models.recognised import recognised_folder
from examples.transformers_digits import train
from tests.system.examples.recognised import recognised
from tests.unit.runtime.pretrained_folders import files_of
from tests.unit.runtime.statedicts import bundle


@pytest.mark.usefixtures("one_thread")
def test_a_run_leaves_a_folder_that_answers_as_transformers_does_and_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "EPOCHS", 5)
    monkeypatch.setattr(train, "ACCURACY_FLOOR", 0.0)
    out = tmp_path / "out"
    train.main(["--out", str(out)])
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first == "1437 digits to train on, 360 held out"
    assert float(second.split()[-1]) > 0.3

    assert recognised(out / "digits") == "Transformers"
    loaded = recognised_folder(bundle(files_of(out / "digits")), Model("Transformers", "", False)).load("cpu")
    assert loaded.signature.classes == train.DIGITS
    (tensor,) = json.loads((out / "request.json").read_text())["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("image", "UINT8", [10, 8, 8, 3])
    expected = json.loads((out / "expected.json").read_text())
    assert expected["truth"] == list(train.DIGITS)
    with torch.no_grad():
        label, probabilities, logits = loaded.call(
            torch.tensor(tensor["data"], dtype=torch.uint8).reshape(tensor["shape"])
        )
    assert [name.decode() for name in label.tolist()] == expected["label"]
    np.testing.assert_allclose(probabilities.numpy(), expected["probabilities"], atol=1e-5)
    np.testing.assert_allclose(logits.numpy(), expected["logits"], atol=1e-5)


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
