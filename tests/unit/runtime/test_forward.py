"""Does a request that the model fails at fail alone, whoever shares its call?"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import orjson
import pytest
import torch

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.engine.batching import Batch, Work
from evenkeel_runtime.engine.forward import BadAnswer, Forward
from evenkeel_runtime.models.datatypes import ANY
from evenkeel_runtime.models.loaded import Signature
from evenkeel_runtime.serve.answer import Writer
from evenkeel_runtime.serve.oip import Plan
from evenkeel_runtime.serve.views import output_datatype

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


def test_what_a_model_takes_that_does_not_say_is_what_the_request_says() -> None:
    """bfloat16 lies in numpy as UINT16 does; the kind of the request tells them apart."""
    tensor = Tensor("input_0", ANY, (-1,))
    forward = Forward(Signature((tensor,), (tensor,), None, None), lambda value: [value.float()], "cpu", max_rows=0)
    half = np.array([0x3F80], np.uint16)
    for word, want in (("BF16", 1.0), ("UINT16", 0x3F80)):
        alone = Work(1, ((word, ()),), SimpleNamespace(arrays=[half]))
        (answer,) = forward.run(Batch((alone,), rows=1)).values()
        assert isinstance(answer, list)
        assert answer[0].tolist() == [want]


def test_an_answer_in_bfloat16_is_told_from_one_of_bits() -> None:
    tensor = Tensor("output_0", ANY, (-1,))
    for dtype, want in ((torch.bfloat16, "BF16"), (torch.uint16, "UINT16")):
        answer = torch.ones(2).to(dtype)
        forward = Forward(Signature((ROW,), (tensor,), None, None), lambda _, a=answer: [a], "cpu", max_rows=0)
        (answered,) = forward.run(Batch((work(1, 2),), rows=2)).values()
        assert isinstance(answered, list)
        (array,) = answered
        assert output_datatype(ANY, array) == want
        body = Writer("m", "v", (tensor,)).write(Plan(None, (), 2, (), 0, ((0, False),)), [array])[1]
        assert orjson.loads(body)["outputs"][0] == {"name": "output_0", "datatype": want, "shape": [2], "data": [1, 1]}


def test_an_answer_in_complex_numbers_is_refused_by_name() -> None:
    forward = Forward(Signature((ROW,), (ROW,), None, None), lambda x: [torch.complex(x * 1.0, x * 1.0)], "cpu", 0)
    with pytest.raises(BadAnswer, match="the model answers complex64, which no answer can carry"):
        forward.run(Batch((work(1),), rows=1))
