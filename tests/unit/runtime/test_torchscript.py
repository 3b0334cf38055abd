"""Is TorchScript loaded only where the spec trusts it, and described without being run?"""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
import torch

from evenkeel_runtime.config import Model
from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.engine.calibrate import Calibrated, calibrate
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.models.inspect import recognise
from tests.unit.runtime.inspected import inspect
from tests.unit.runtime.models import Convolution, Perceptron

TRUSTED = Model("Auto", "ab" * 32, True)


class Two(torch.nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return left + right, left - right


class Listed(torch.nn.Module):
    def forward(self, values: list[torch.Tensor]) -> torch.Tensor:
        return values[0]


def saved(module: torch.nn.Module, *example: torch.Tensor, inputs: str | None = None) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jit: Any = torch.jit
        made = jit.trace(module.eval(), example) if example else jit.script(module.eval())
        jit.save(made, stream, **({} if inputs is None else {"_extra_files": {"inputs.json": inputs}}))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("module", "traced_with", "inputs", "outputs"),
    [
        pytest.param(Perceptron(), (torch.zeros(1, 12),), 1, 1, id="traced"),
        pytest.param(Convolution(), (torch.zeros(1, 1, 28, 28),), 1, 1, id="traced with submodules"),
        pytest.param(Two(), (), 2, 2, id="scripted, several of each"),
        pytest.param(Two(), (torch.zeros(2), torch.zeros(2)), 2, 2, id="traced, several of each"),
    ],
)
def test_described_and_run(
    module: torch.nn.Module, traced_with: tuple[torch.Tensor, ...], inputs: int, outputs: int
) -> None:
    data = saved(module, *traced_with)
    found, signature = inspect(io.BytesIO(data), len(data), TRUSTED)
    assert found.name == "TorchScript"
    assert [tensor.name for tensor in signature.inputs] == [f"input_{index}" for index in range(inputs)]
    assert [tensor.name for tensor in signature.outputs] == [f"output_{index}" for index in range(outputs)]
    _, archive = recognise(io.BytesIO(data), len(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = found.load(archive, memoryview(data), "cpu", frozenset())
    given = traced_with or (torch.ones(2), torch.ones(2))
    want = module(*given)
    for got, right in zip(loaded.call(*given), want if isinstance(want, tuple) else (want,), strict=True):
        torch.testing.assert_close(got, right)


@pytest.mark.parametrize(
    ("model", "word"),
    [
        pytest.param(Model("Auto", "ab" * 32, False), "allowNativeCode", id="not allowed"),
        pytest.param(Model("Auto", "", True), "sha256", id="not pinned"),
        pytest.param(Model("TorchExport", "ab" * 32, True), "TorchScript", id="another format"),
    ],
)
def test_refused_unless_trusted(model: Model, word: str) -> None:
    data = saved(Perceptron(), torch.zeros(1, 12))
    with pytest.raises(ModelError, match=word):
        inspect(io.BytesIO(data), len(data), model)


def test_forward_that_no_request_can_call() -> None:
    data = saved(Listed())
    with pytest.raises(ModelError, match="forward takes"):
        inspect(io.BytesIO(data), len(data), TRUSTED)


ROWS = '[{"datatype": "FP32", "shape": [-1, 12]}]'


def tried(module: torch.nn.Module, inputs: str | None, most: int = 64, rows: int = 0) -> Calibrated:
    """Return how the scripted module is called, or traced with so many rows."""
    data = saved(module, *([torch.zeros(rows, 12)] if rows else []), inputs=inputs)
    found, archive = recognise(io.BytesIO(data), len(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return calibrate(found.load(archive, memoryview(bytearray(data)), "cpu", frozenset()), 1, most)


class Centred(torch.nn.Module):
    def forward(self, row: torch.Tensor) -> torch.Tensor:
        return row - row.mean(0)


class CentredFromEight(torch.nn.Module):
    """Its rows influence each other where there are many."""

    def forward(self, row: torch.Tensor) -> torch.Tensor:
        return row - row.mean(0) if row.size(0) >= 8 else row


class Least(torch.nn.Module):
    def forward(self, row: torch.Tensor) -> torch.Tensor:
        return row.min()


class OneByOne(torch.nn.Module):
    """Takes one row, as its trace froze it."""

    def forward(self, row: torch.Tensor) -> torch.Tensor:
        return row.view(int(row.shape[0]), 3, 4)


@pytest.mark.parametrize(
    ("module", "inputs", "traced_with", "want"),
    [
        pytest.param(Perceptron(), ROWS, 2, "", id="rows that were seen to be independent share a call"),
        pytest.param(Perceptron(), None, 2, "inputs.json", id="no inputs named: with the way to name them"),
        pytest.param(
            Perceptron(), '[{"datatype": "FP32", "shape": [4, 12]}]', 2, "first dimensions", id="no free rows"
        ),
        pytest.param(Centred(), ROWS, 0, "another one than alone", id="rows that influence each other"),
        pytest.param(CentredFromEight(), ROWS, 0, "another one than alone", id="many rows that do"),
        pytest.param(Least(), ROWS, 0, "first dimensions", id="an answer for all rows"),
        pytest.param(OneByOne(), ROWS, 1, "first dimensions", id="a trace of one row"),
    ],
)
def test_why_requests_share_no_call(module: torch.nn.Module, inputs: str | None, traced_with: int, want: str) -> None:
    got = tried(module, inputs, rows=traced_with)
    assert (got.max_rows > 1) is (want == "")
    assert want in got.apart


class Wide(torch.nn.Module):
    """Takes pictures of 11 by 11 and more."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 2, 11)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(image).mean(dim=(2, 3))
        return found


@pytest.mark.parametrize("shape", ["-1, 1, -1, -1", "1, 1, -1, -1"])
def test_a_model_that_is_made_for_larger_sizes_than_are_tried_is_served_untried(shape: str) -> None:
    got = tried(Wide(), f'[{{"datatype": "FP32", "shape": [{shape}]}}]')
    assert (got.forward_s, got.max_rows) == (None, 0)
    assert "name all sizes" in got.apart
    with torch.inference_mode():
        (answer,) = got.call(torch.zeros(1, 1, 20, 30))
    assert answer.shape == (1, 2)


def test_inputs_that_the_file_names() -> None:
    named = '[{"name": "left", "datatype": "FP64", "shape": [-1, 4]}, {"datatype": "FP64", "shape": [-1, -1]}]'
    data = saved(Two(), inputs=named)
    _, signature = inspect(io.BytesIO(data), len(data), TRUSTED)
    assert signature.inputs == (Tensor("left", "FP64", (-1, 4)), Tensor("input_1", "FP64", (-1, -1)))


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param("[", id="no JSON"),
        pytest.param("[]", id="too few"),
        pytest.param(f"[{ROWS[1:-1]}, {ROWS[1:-1]}]", id="too many"),
        pytest.param('{"datatype": "FP32", "shape": [-1, 12]}', id="no list"),
        pytest.param('[{"shape": [-1, 12]}]', id="no datatype"),
        pytest.param('[{"datatype": "BYTES", "shape": [-1]}]', id="texts, which are no tensors"),
        pytest.param('[{"datatype": "FP32", "shape": [-1, 0]}]', id="a size of nothing"),
        pytest.param('[{"datatype": "FP32", "shape": [true, 12]}]', id="a size that is no number"),
        pytest.param('[{"datatype": "FP32", "shape": 12}]', id="a shape that is no list"),
        pytest.param('[{"datatype": ["FP32"], "shape": [-1, 12]}]', id="a datatype that is no word"),
        pytest.param('[{"name": "a b", "datatype": "FP32", "shape": [-1, 12]}]', id="a name of two words"),
    ],
)
def test_inputs_that_are_none_are_refused(inputs: str) -> None:
    data = saved(Perceptron(), torch.zeros(1, 12), inputs=inputs)
    with pytest.raises(ModelError, match=r"inputs\.json"):
        inspect(io.BytesIO(data), len(data), TRUSTED)
