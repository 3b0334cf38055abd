"""Does a request that the model fails at fail alone, whoever shares its call?"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.engine.batching import Batch, Work
from evenkeel_runtime.engine.forward import Forward
from evenkeel_runtime.models.loaded import Signature

TABLE = torch.arange(8) * 10
ROW = Tensor("index", "INT64", (-1,))


def look_up(indices: torch.Tensor) -> list[torch.Tensor]:
    return [TABLE[indices]]


def work(*indices: int) -> Work:
    return Work(len(indices), "k", SimpleNamespace(arrays=[np.array(indices)]))


@pytest.fixture
def forward() -> Forward:
    return Forward(Signature((ROW,), (ROW,), 0, ((1,),)), look_up, "cpu", max_rows=4)


def test_an_index_beyond_the_table_fails_its_own_request(forward: Forward) -> None:
    works = (work(1, 2), work(99), work(3))
    first, second, third = forward.run(Batch(works, rows=4)).values()
    assert isinstance(second, IndexError)
    for answer, want in ((first, [10, 20]), (third, [30])):
        assert isinstance(answer, list)
        assert answer[0].tolist() == want


def test_a_request_by_itself_raises_what_the_model_raises(forward: Forward) -> None:
    with pytest.raises(IndexError):
        forward.run(Batch((work(99),), rows=1))
