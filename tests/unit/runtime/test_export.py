"""Does our reading of a `.pt2` compute what torch's own reading of it computes?"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.engine.calibrate import calibrate
from evenkeel_runtime.engine.measure import are_equal
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.models.inspect import recognise
from evenkeel_runtime.models.loaded import Loaded
from tests.unit.runtime.models import BATCH, CASES, Case, exported, floats


def loaded(data: bytes) -> Loaded:
    found, archive = recognise(io.BytesIO(data), len(data))
    return found.load(archive, memoryview(bytearray(data)), "cpu", frozenset())


class Viewed(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.answer = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4 * 6 * 6, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.answer(self.convolution(image).view(image.shape[0], -1))
        return found


def test_a_tensor_may_lie_otherwise_than_where_the_program_was_exported() -> None:
    """A view of an image whose channels come last is not one of its rows, and cuDNN answers with such images."""
    model = loaded(exported(Case(Viewed, floats(3, 8, 8), {"image": {0: BATCH}})))
    rows = torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        want, got = model.call(rows), model.call(rows.contiguous(memory_format=torch.channels_last))
    assert are_equal(model, want, got)


@pytest.mark.parametrize("name", CASES)
def test_same_answers_as_torch(name: str) -> None:
    case = CASES[name]
    data = exported(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch.export.load(io.BytesIO(data)).module()
    ours = loaded(data)
    fastest = calibrate(ours, 1, 256).call
    for rows in case.rows:
        inputs = case.inputs(rows)
        with torch.inference_mode():
            want = theirs(*inputs)
            got = ours.call(*inputs)
            fast = fastest(*inputs)
        flat = [want] if isinstance(want, torch.Tensor) else list(want.values() if isinstance(want, dict) else want)
        assert len(got) == len(flat)
        for a, b, c in zip(flat, got, fast, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "batch"),
    [
        pytest.param(
            "perceptron",
            [Tensor("image", "FP32", (-1, 12))],
            [Tensor("linear_1", "FP32", (-1, 3))],
            1024,
            id="a free batch",
        ),
        pytest.param(
            "several inputs and a dict of outputs",
            [Tensor("left", "FP32", (-1, 6)), Tensor("right", "FP32", (-1, 6))],
            [Tensor("best", "FP32", (-1,)), Tensor("where", "INT64", (-1,)), Tensor("product", "FP32", (-1, 3))],
            1024,
            id="a dict's keys name the outputs",
        ),
        pytest.param(
            "half precision and booleans",
            [Tensor("row", "FP32", (-1, 4))],
            [Tensor("mul", "BF16", (-1, 4)), Tensor("to_1", "FP16", (-1, 4)), Tensor("gt", "BOOL", (-1, 4))],
            1024,
            id="every element type has a word",
        ),
        pytest.param(
            "fixed shape",
            [Tensor("image", "FP32", (2, 12))],
            [Tensor("linear_1", "FP32", (2, 3))],
            None,
            id="no free batch",
        ),
    ],
)
def test_signature(name: str, inputs: list[Tensor], outputs: list[Tensor], batch: int | None) -> None:
    got = loaded(exported(CASES[name])).signature
    assert list(got.inputs) == inputs
    assert list(got.outputs) == outputs
    assert got.batch == batch


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        pytest.param("perceptron", True, id="independent rows share a call"),
        pytest.param("rows that depend on each other", False, id="rows that depend on each other never do"),
        pytest.param("fixed shape", False, id="a fixed shape cannot"),
    ],
)
def test_only_independent_rows_share_a_call(name: str, shares: bool) -> None:
    assert (calibrate(loaded(exported(CASES[name])), 1, 256).max_rows > 0) is shares


@pytest.mark.parametrize("most", [1, 3, 8])
def test_no_call_has_more_rows_than_allowed(most: int) -> None:
    assert 1 <= calibrate(loaded(exported(CASES["perceptron"])), 1, most).max_rows <= most


def test_weights_are_views_of_the_file() -> None:
    """No copy: the model's memory is the file's."""
    data = bytearray(exported(CASES["perceptron"]))
    found, archive = recognise(io.BytesIO(data), len(data))
    model = found.load(archive, memoryview(data), "cpu", frozenset())
    before = model.call(torch.ones(1, 12))[0].clone()
    member = archive.members["data/weights/weight_0"]
    data[member.offset : member.offset + member.size] = bytes(member.size)
    assert not torch.equal(before, model.call(torch.ones(1, 12))[0])


class Turned(torch.nn.Module):
    def forward(self, row: torch.Tensor) -> torch.Tensor:
        return torch.complex(row, row)


def test_a_model_that_answers_complex_numbers_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"'complex_1' has an element type that .* answer can carry \(complex64\)"):
        loaded(exported(Case(Turned, lambda rows: (torch.ones(rows, 2),), None)))


def test_answers_in_numpy_are_compared_too() -> None:
    text: Any = np.array([b"a"], dtype=object)
    other: Any = np.array([b"b"], dtype=object)
    model = loaded(exported(CASES["perceptron"]))
    assert are_equal(model, [text], [text.copy()])
    assert not are_equal(model, [text], [other])
