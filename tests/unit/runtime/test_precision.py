"""Does a model that is computed less exactly answer nearly the same, by as much as it says, whoever shares its call?"""

from __future__ import annotations

import io
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from evenkeel_runtime import config
from evenkeel_runtime.config import Model
from evenkeel_runtime.engine.calibrate import Calibrated, calibrate
from evenkeel_runtime.engine.measure import are_equal
from evenkeel_runtime.engine.precision import at, difference
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.models.inspect import recognise
from evenkeel_runtime.models.loaded import Loaded
from evenkeel_runtime.models.recognised import recognised_folder
from evenkeel_runtime.serve.metrics import Metrics
from tests.unit.runtime import keras_files, models, statedicts
from tests.unit.runtime.inspected import inspect
from tests.unit.runtime.test_torchscript import saved

perceptron = cache(models.perceptron)


def loaded(data: bytes) -> Loaded:
    found, archive = recognise(io.BytesIO(data), len(data))
    return found.load(archive, memoryview(bytearray(data)), "cpu", frozenset())


def answers(call: Any, rows: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        (found,) = call(rows)
    assert isinstance(found, torch.Tensor)
    return found


def tried(precision: str) -> tuple[Loaded, Calibrated]:
    model = at(loaded(perceptron()), precision)
    return model, calibrate(model, 1, 8)


@pytest.mark.parametrize("precision", ["BF16", "INT8"])
def test_answers_are_nearly_those_of_fp32_and_rows_share_calls(precision: str) -> None:
    model, found = tried(precision)
    rows = torch.rand(8, 12, generator=torch.Generator().manual_seed(1))
    assert model.exact is not None
    want, got = answers(model.exact, rows), answers(found.call, rows)
    assert got.dtype == torch.float32
    assert 0 < float((want - got).abs().max()) < 0.05
    assert found.max_rows > 1


@pytest.mark.parametrize(
    ("precision", "is_changed"), [("Auto", False), ("FP32", False), ("BF16", True), ("INT8", True)]
)
def test_the_difference_is_measured_where_there_is_one(precision: str, is_changed: bool) -> None:
    model, found = tried(precision)
    assert (model.exact is not None) is is_changed
    assert (found.difference is not None) is is_changed
    assert found.difference is None or 0 < found.difference < 0.05


def test_a_row_of_enormous_numbers_blurs_no_others_in_bytes() -> None:
    """The counter-example is one scale per call: what is small beside another client's numbers becomes zero."""
    model = at(loaded(perceptron()), "INT8")
    rows = torch.rand(4, 12)
    alone = answers(model.call, rows)
    together = answers(model.call, torch.cat([rows, torch.full((1, 12), 1e20)]))
    torch.testing.assert_close(together[:4], alone)


def test_rows_of_zeros_are_numbers_in_bytes() -> None:
    model = at(loaded(perceptron()), "INT8")
    assert model.exact is not None
    torch.testing.assert_close(
        answers(model.call, torch.zeros(2, 12)), answers(model.exact, torch.zeros(2, 12)), atol=0.05, rtol=0.0
    )


class Sum(nn.Module):
    def forward(self, image: torch.Tensor) -> Any:
        return image.sum(1, keepdim=True)


class Exact(nn.Module):
    """Its linear layer is of FP64."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 3, dtype=torch.float64)

    def forward(self, image: torch.Tensor) -> Any:
        return self.layer(image.double())


class Block(nn.Module):
    """Its linear layer stands in a block of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 3)

    def forward(self, image: torch.Tensor) -> Any:
        with torch.no_grad():
            return self.layer(image) + 1


def case(make: Any) -> bytes:
    return models.exported(models.Case(make, models.floats(12), {"image": {0: models.BATCH}}))


class Half(nn.Module):
    """Computes in BF16 by itself, and answers FP32."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 3, dtype=torch.bfloat16)

    def forward(self, image: torch.Tensor) -> Any:
        return self.layer(image.bfloat16()).float()


class Stored(nn.Module):
    """Keeps its weights in BF16, and computes in FP32."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 3, dtype=torch.bfloat16)

    def forward(self, image: torch.Tensor) -> Any:
        return image @ self.layer.weight.float().T


class HalfBlock(nn.Module):
    """Computes in BF16 in a block of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Half()

    def forward(self, image: torch.Tensor) -> Any:
        with torch.no_grad():
            return self.layer(image)


class Whole(nn.Module):
    def forward(self, image: torch.Tensor) -> Any:
        return image.argmax(1, keepdim=True)


@pytest.mark.parametrize(
    ("make", "asked", "want"),
    [
        pytest.param(models.Perceptron, "Auto", "FP32", id="of FP32"),
        pytest.param(Half, "Auto", "BF16", id="of BF16 by itself"),
        pytest.param(Half, "FP32", "BF16", id="of BF16 by itself, whatever is asked"),
        pytest.param(Half, "BF16", "BF16", id="of BF16 by itself, as is asked"),
        pytest.param(HalfBlock, "Auto", "BF16", id="of BF16 in a block"),
        pytest.param(Stored, "Auto", "FP32", id="with weights of BF16 that it casts"),
        pytest.param(Exact, "Auto", "FP64", id="of FP64"),
        pytest.param(Whole, "Auto", None, id="of whole numbers"),
        pytest.param(models.Perceptron, "BF16", "BF16", id="of FP32, asked for BF16"),
        pytest.param(models.Perceptron, "INT8", "INT8", id="of FP32, asked for INT8"),
    ],
)
def test_a_program_says_what_it_is_computed_in(make: Any, asked: str, want: str | None) -> None:
    assert at(loaded(case(make)), asked).precision == want


class Mixed(nn.Module):
    """One layer of BF16, and one of FP32."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Half(), nn.Linear(3, 3)

    def forward(self, image: torch.Tensor) -> Any:
        return self.second(self.first(image))


@pytest.mark.parametrize(("make", "asked"), [(Half, "BF16"), (Mixed, "INT8")])
def test_a_difference_to_what_is_no_fp32_is_not_told_as_one(make: Any, asked: str) -> None:
    assert calibrate(at(loaded(case(make)), asked), 1, 4).difference is None


@pytest.mark.parametrize(
    ("dtype", "want"), [(torch.float32, "FP32"), (torch.bfloat16, "BF16"), (torch.float16, "FP16")]
)
@pytest.mark.filterwarnings("ignore:.torch.jit.load:DeprecationWarning")
def test_a_torchscript_says_what_its_weights_are_of(dtype: torch.dtype, want: str) -> None:
    module = models.Perceptron().to(dtype)
    assert loaded(saved(module, torch.zeros(1, 12, dtype=dtype))).precision == want


def test_a_keras_model_says_what_its_layers_compute_in() -> None:
    keras = keras_files.keras()
    mixed = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, dtype="mixed_bfloat16"), keras.layers.Dense(2)])
    assert loaded(keras_files.saved(mixed)).precision == "BF16"


def test_weights_alone_are_computed_in_fp32(tmp_path: Path) -> None:
    files = statedicts.bundle(statedicts.timm_folder(statedicts.timm_module(), tmp_path))
    assert recognised_folder(files, Model("Auto", "", False)).load("cpu").precision == "FP32"


@pytest.mark.parametrize("make", [models.Perceptron, Mixed])
def test_rows_of_a_model_in_bytes_are_equal_as_far_as_bytes_tell(make: Any) -> None:
    """Whether the file is of FP32 or partly of BF16: the bytes are no finer."""
    model, answer = at(loaded(case(make)), "INT8"), torch.ones(2, 3)
    assert are_equal(model, [answer], [answer + 0.03])
    assert not are_equal(model, [answer], [answer + 0.3])


@pytest.mark.parametrize("make", [Sum, Exact])
def test_a_model_without_linear_layers_is_refused_in_bytes_and_before_it_is_loaded(make: Any) -> None:
    data = case(make)
    why = r"no linear layer of FP32 .* spec\.runtime\.precision: BF16"
    with pytest.raises(ModelError, match=why):
        inspect(io.BytesIO(data), len(data), Model("Auto", "", False, precision="INT8"))
    with pytest.raises(ModelError, match=why):
        at(loaded(data), "INT8")
    inspect(io.BytesIO(data), len(data), Model("Auto", "", False, precision="BF16"))


@pytest.mark.parametrize("make", [models.Perceptron, Block])
def test_a_model_with_linear_layers_is_computed_in_bytes(make: Any) -> None:
    data = case(make)
    inspect(io.BytesIO(data), len(data), Model("Auto", "", False, precision="INT8"))
    assert at(loaded(data), "INT8").exact is not None


def test_a_format_that_cannot_is_refused_before_it_is_loaded() -> None:
    data = keras_files.good()
    inspect(io.BytesIO(data), len(data), Model("Auto", "", False, precision="BF16"))
    with pytest.raises(ModelError, match=r"Keras .* or BF16, not in INT8; correct spec\.runtime\.precision"):
        inspect(io.BytesIO(data), len(data), Model("Auto", "", False, precision="INT8"))


def test_a_folder_that_cannot_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    files = statedicts.bundle(statedicts.timm_folder(statedicts.timm_module(), tmp_path))
    recognised_folder(files, Model("Auto", "", False, precision="BF16"))
    with pytest.raises(
        ModelError, match=r"StateDict .* not computed in INT8, as spec\.runtime\.precision says; set it to BF16"
    ):
        recognised_folder(files, Model("Auto", "", False, precision="INT8"))


def test_a_keras_model_answers_nearly_the_same_in_half_precision() -> None:
    model = at(loaded(keras_files.good()), "BF16")
    assert model.exact is not None
    assert (loaded(keras_files.good()).precision, model.precision) == ("FP32", "BF16")
    rows = torch.rand(8, 6)
    want, found = answers(model.exact, rows), calibrate(model, 1, 8)
    torch.testing.assert_close(answers(found.call, rows), want, atol=0.02, rtol=0.0)
    assert found.max_rows > 1


def test_a_state_dict_says_by_how_much_it_differs_and_why_not_in_bytes(tmp_path: Path) -> None:
    def found(precision: str) -> Loaded:
        files = statedicts.bundle(statedicts.timm_folder(statedicts.timm_module(), tmp_path))
        return at(recognised_folder(files, Model("Auto", "", False)).load("cpu"), precision)

    apart = calibrate(found("BF16"), 1, 2).difference
    assert apart is not None
    assert 0 < apart < 0.05
    with pytest.raises(ModelError, match=r"StateDict models are no graph.*spec\.runtime\.precision: BF16"):
        found("INT8")


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("want", "got", "apart"),
    [
        pytest.param([1.0, 2.0], [1.0, 2.5], 0.5, id="the largest of all"),
        pytest.param([INF, NAN], [INF, NAN], 0.0, id="what is no number on both sides"),
        pytest.param([1.0, 1.0], [1.0, NAN], INF, id="what is a number on one side only"),
        pytest.param([1.0, INF], [1.0, -INF], INF, id="opposite infinities"),
        pytest.param([], [], 0.0, id="nothing"),
    ],
)
def test_difference(want: list[float], got: list[float], apart: float) -> None:
    assert difference([torch.tensor(want)], [torch.tensor(got)]) == apart


def test_labels_are_no_numbers_to_subtract() -> None:
    assert difference([torch.tensor([3])], [torch.tensor([8])]) == 0.0


def test_the_metric_is_there_where_something_was_measured() -> None:
    metrics = Metrics("m", "v1")
    assert b"model_difference_to_fp32" not in metrics.render(0)
    metrics.difference = 0.0125
    assert b'model_difference_to_fp32{model_name="m",model_version="v1"} 0.0125' in metrics.render(0)


def test_a_word_that_is_none_is_named() -> None:
    with pytest.raises(ModelError, match="EVENKEEL_PRECISION is not one of Auto, FP32, BF16, INT8: 'bf16'"):
        config.serve({"EVENKEEL_MODEL_PATH": "m.pt2", "EVENKEEL_PRECISION": "bf16"})
