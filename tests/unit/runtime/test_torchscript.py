"""Is TorchScript loaded only where the spec trusts it, and described without being run?"""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
import torch

from evenkeel_runtime.config import Model
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


def saved(module: torch.nn.Module, *example: torch.Tensor) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jit: Any = torch.jit
        made = jit.trace(module.eval(), example) if example else jit.script(module.eval())
        jit.save(made, stream)
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
