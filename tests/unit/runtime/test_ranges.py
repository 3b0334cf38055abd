"""Is a number that a model cannot look up refused with its range, before the model is given it?"""

from __future__ import annotations

import io
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.engine.batching import Batch, Work
from evenkeel_runtime.engine.forward import Forward
from evenkeel_runtime.models.loaded import BadInput, Loaded, Range, Signature
from tests.unit.runtime import keras_files, models, test_export, test_keras


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(10, 3), nn.Embedding(6, 3)


class TwoTables(Table):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.words(ids) + self.places(ids)
        return found


class Reshaped(Table):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.words(ids.unsqueeze(1)[:, 0].to(torch.int32).long())
        return found


class Selected(Table):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.words.weight.index_select(0, ids)


class Unfollowed(Table):
    """The number is another one by the time that it is looked up: 10 and 19 are good."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.words(ids % 10)
        return found


class WithoutGradients(Table):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = self.words(ids)
        return found * 2.0


def loaded(module: nn.Module) -> Loaded:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = {"ids": {0: models.BATCH}}
        program = torch.export.export(module, (torch.zeros(4, dtype=torch.int64),), dynamic_shapes=shapes)
        torch.export.save(program, stream)
    return test_export.loaded(stream.getvalue())


@pytest.mark.parametrize(
    ("module", "want"),
    [
        pytest.param(TwoTables(), (Range(0, 0, 5),), id="of two tables the smaller one"),
        pytest.param(Reshaped(), (Range(0, 0, 9),), id="another shape, another type, the same numbers"),
        pytest.param(Selected(), (Range(0, 0, 9),), id="selected rows"),
        pytest.param(WithoutGradients(), (Range(0, 0, 9),), id="within a block"),
        pytest.param(Unfollowed(), (), id="a number that is computed is not followed"),
    ],
)
def test_a_programs_ranges_are_its_tables(module: nn.Module, want: tuple[Range, ...]) -> None:
    model = loaded(module)
    assert model.signature.ranges == want
    last = want[0].most if want else 19
    for index, (got,) in ((index, model.call(torch.tensor([index]))) for index in (0, last)):
        torch.testing.assert_close(got, module(torch.tensor([index])))
    if want:
        with pytest.raises((IndexError, RuntimeError)):
            model.call(torch.tensor([last + 1]))


def test_a_keras_models_ranges_are_its_tables() -> None:
    _, model = test_keras.opened(keras_files.saved(test_keras.listed()))
    assert model.signature.ranges == (Range(0, 0, 9),)


def forward(asked: Range) -> Forward:
    def call(ids: torch.Tensor) -> Any:
        return [ids * 10]

    tensor = Tensor("ids", "INT64", (-1,))
    return Forward(Signature((tensor,), (tensor,), 0, ((1,),), ranges=(asked,)), call, "cpu", max_rows=4)


def work(*ids: int) -> Work:
    return Work(len(ids), "k", SimpleNamespace(arrays=[np.array(ids)]))


@pytest.mark.parametrize(
    ("ids", "want"),
    [
        pytest.param((0, 9), None, id="both ends are good"),
        pytest.param((3, 10), "ids holds 10, the model takes 0 to 9", id="beyond the end"),
        pytest.param((-1,), "ids holds -1, the model takes 0 to 9", id="before the beginning"),
        pytest.param((1, 2, 3, 4, 10), "ids holds 10, the model takes 0 to 9", id="in a request of several calls"),
    ],
)
def test_what_cannot_be_looked_up_is_refused_by_name(ids: tuple[int, ...], want: str | None) -> None:
    one = Batch((work(*ids),), len(ids))
    if want is None:
        (answer,) = forward(Range(0, 0, 9)).run(one).values()
        assert isinstance(answer, list)
        assert answer[0].tolist() == [10 * index for index in ids]
        return
    with pytest.raises(BadInput, match=want):
        forward(Range(0, 0, 9)).run(one)


def test_only_who_sent_it_is_refused() -> None:
    answers = forward(Range(0, 0, 9)).run(Batch((work(1), work(99), work(2)), 3))
    refused = answers.pop(1)
    assert isinstance(refused, BadInput)
    assert [answer[0].tolist() for answer in answers.values() if isinstance(answer, list)] == [[10], [20]]
