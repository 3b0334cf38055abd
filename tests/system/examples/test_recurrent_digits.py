"""Does the recurrent example read digits, and does its file answer as its network whatever the batch?"""

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
from examples.recurrent_digits import train
from tests.system.examples.recognised import recognised
from tests.unit.runtime.inspected import inspect


def test_a_run_leaves_a_model_that_is_served_and_a_request_with_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "EPOCHS", 4)
    monkeypatch.setattr(train, "ACCURACY_FLOOR", 0.5)
    out = tmp_path / "out"
    train.main(["--out", str(out)])
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first == "1437 digits to train on, 360 held out"
    assert float(second.split()[-1]) >= 0.5

    content = (out / "digits.pt2").read_bytes()
    assert recognised(out / "digits.pt2") == "TorchExport"
    assert (out / "digits.pt2.sha256").read_text() == f"{hashlib.sha256(content).hexdigest()}  digits.pt2\n"
    found, signature = inspect(io.BytesIO(content), len(content), Model("TorchExport", "", False))
    (tensor,) = json.loads((out / "request.json").read_text())["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("rows", "FP32", [10, 8, 8])
    assert [(output.name, output.shape) for output in signature.outputs] == [("logits", (-1, 10))]
    expected = json.loads((out / "expected.json").read_text())
    assert expected["truth"] == list(range(10))
    _, archive = recognise(io.BytesIO(content), len(content))
    loaded = found.load(archive, memoryview(bytearray(content)), "cpu", frozenset())
    rows = torch.tensor(tensor["data"]).reshape(tensor["shape"])
    for some in (slice(10), slice(3), slice(7, 8)):
        with torch.no_grad():
            (got,) = loaded.call(rows[some])
        np.testing.assert_allclose(np.asarray(got), expected["logits"][some], atol=1e-5)


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
