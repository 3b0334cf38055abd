"""Does the error of the autoencoder example tell what it has not learned, and is it served as an output?"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from evenkeel_runtime.config import Model
from evenkeel_runtime.models.inspect import recognise
from examples.autoencoder_digits import train
from tests.system.examples.recognised import recognised
from tests.unit.runtime.inspected import inspect


def test_a_run_leaves_a_model_that_is_served_and_a_request_with_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "EPOCHS", 20)
    monkeypatch.setattr(train, "AREA_FLOOR", 0.9)
    out = tmp_path / "out"
    train.main(["--out", str(out)])
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first == "1295 digits to train on, 360 held out"  # without the 142 zeros
    assert float(second.split()[-1]) >= 0.9

    content = (out / "digits.pt2").read_bytes()
    assert recognised(out / "digits.pt2") == "TorchExport"
    assert (out / "digits.pt2.sha256").read_text() == f"{hashlib.sha256(content).hexdigest()}  digits.pt2\n"
    found, signature = inspect(io.BytesIO(content), len(content), Model("TorchExport", "", False))
    (tensor,) = json.loads((out / "request.json").read_text())["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("image", "FP32", [10, 64])
    assert [(output.name, output.shape) for output in signature.outputs] == [("drawn", (-1, 64)), ("error", (-1,))]
    expected = json.loads((out / "expected.json").read_text())
    assert expected["truth"] == list(range(10))
    _, archive = recognise(io.BytesIO(content), len(content))
    loaded = found.load(archive, memoryview(bytearray(content)), "cpu", frozenset())
    with torch.no_grad():
        drawn, error = loaded.call(torch.tensor(tensor["data"]).reshape(tensor["shape"]))
    np.testing.assert_allclose(np.asarray(drawn), expected["drawn"], atol=1e-5)
    np.testing.assert_allclose(np.asarray(error), expected["error"], atol=1e-5)


def test_a_model_below_the_floor_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "EPOCHS", 1)
    monkeypatch.setattr(train, "AREA_FLOOR", 1.01)
    with pytest.raises(SystemExit, match="nothing was written"):
        train.main(["--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--out", __file__])
    assert "error: --out" in capsys.readouterr().err
