"""Is the example's network as good as it says, and is its TorchScript served as torch answers, once it is trusted?"""

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
from examples.torchscript_tumours import train
from tests.system.examples.recognised import recognised
from tests.unit.runtime.inspected import inspect


@pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated:DeprecationWarning")
@pytest.mark.usefixtures("one_thread")
def test_a_run_leaves_a_model_that_is_served_and_a_request_with_its_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    train.main(["--out", str(out)])
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first == "455 tumours to train on, 114 held out"
    assert float(second.split()[-1]) >= train.ACCURACY_FLOOR

    content = (out / "tumours.pt").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    assert (out / "tumours.pt.sha256").read_text() == f"{sha256}  tumours.pt\n"
    assert recognised(out / "tumours.pt", "--allow-native-code", "--sha256", sha256) == "TorchScript"
    found, _ = inspect(io.BytesIO(content), len(content), Model("TorchScript", sha256, True))
    (tensor,) = json.loads((out / "request.json").read_text())["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("input_0", "FP32", [6, 30])
    expected = json.loads((out / "expected.json").read_text())
    assert expected["truth"] == [0, 0, 0, 1, 1, 1]
    _, archive = recognise(io.BytesIO(content), len(content))
    loaded = found.load(archive, memoryview(bytearray(content)), "cpu", frozenset())
    with torch.no_grad():
        got = loaded.call(torch.tensor(tensor["data"]).reshape(tensor["shape"]))
    for output, values in zip(loaded.signature.outputs, got, strict=True):
        np.testing.assert_allclose(np.asarray(values), expected[output.name], atol=1e-5)


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
