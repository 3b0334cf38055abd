"""Is the network the one that is described, and does the example's folder hold what a server and a client need?"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evenkeel_runtime.config import Model
from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.models.inspect import recognise
from evenkeel_runtime.models.keras import imported
from examples.digits import data
from tests.system.examples.recognised import recognised
from tests.unit.runtime.inspected import inspect

FOLDER = Path(data.__file__).parents[1] / "keras_digits"


@pytest.fixture(scope="module")
def train() -> Any:
    imported()
    from examples.keras_digits import train

    return train


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras' own ways with numpy
        yield


@pytest.fixture(scope="module")
def few() -> data.Digits:
    """A few of the digits, and every one among those held out."""
    digits = data.load()
    return data.Digits(
        digits.train_images[:64], digits.train_labels[:64], digits.heldout_images[:90], digits.heldout_labels[:90]
    )


def test_the_network_is_the_described_one(train: Any) -> None:
    model = train.network()
    shapes = [tuple(variable.shape) for variable in model.trainable_variables if len(variable.shape) > 1]
    assert shapes == [(3, 3, 1, 32), (3, 3, 32, 64), (3, 3, 64, 64), (576, 64), (64, 10)]
    assert type(model.optimizer).__name__ == "Adam"
    assert model.layers[-1].activation.__name__ == "softmax"


def test_a_run_leaves_a_model_that_is_served_and_a_request_with_its_answer(
    tmp_path: Path, train: Any, few: data.Digits, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(data, "load", lambda: few)
    monkeypatch.setattr(train, "ACCURACY_FLOOR", 0.0)
    train.main(["--out", str(out), "--epochs", "1"])
    assert "held out: accuracy " in capsys.readouterr().out

    content = (out / "digits.keras").read_bytes()
    assert recognised(out / "digits.keras") == "Keras"
    assert (out / "digits.keras.sha256").read_text() == f"{hashlib.sha256(content).hexdigest()}  digits.keras\n"
    found, signature = inspect(io.BytesIO(content), len(content), Model("Keras", "", False))
    assert signature.inputs == (Tensor("image", "FP32", (-1, 28, 28, 1)),)
    assert signature.outputs == (Tensor("probabilities", "FP32", (-1, 10)),)

    (tensor,) = json.loads((out / "request.json").read_text())["inputs"]
    expected = json.loads((out / "expected.json").read_text())
    _, archive = recognise(io.BytesIO(content), len(content))
    loaded = found.load(archive, memoryview(content), "cpu", frozenset())
    (got,) = loaded.call(torch.tensor(tensor["data"]).reshape(tensor["shape"]))
    np.testing.assert_allclose(got.numpy(), expected["probabilities"], atol=1e-5)


def test_a_model_below_the_floor_is_not_written(
    tmp_path: Path, train: Any, few: data.Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "load", lambda: few)
    monkeypatch.setattr(train, "ACCURACY_FLOOR", 1.01)
    with pytest.raises(SystemExit, match="nothing was written"):
        train.main(["--out", str(tmp_path / "out"), "--epochs", "1"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("flag", "value"), [("--out", __file__), ("--epochs", "0")])
def test_a_bad_option_is_named(
    train: Any, flag: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train.main(["--out", str(tmp_path), flag, value])
    assert f"error: {flag}" in capsys.readouterr().err
