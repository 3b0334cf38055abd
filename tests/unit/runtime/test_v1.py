"""Are KServe V1 requests read and answered row by row?"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.models.datatypes import ANY
from evenkeel_runtime.serve.body import BadRequest
from evenkeel_runtime.serve.v1 import Predictions

ONE = (Tensor("x", "FP32", (-1, 2)),)
TWO = (Tensor("a", "FP32", (-1, 2)), Tensor("b", "INT64", (-1,)))


def predictions(inputs: tuple[Tensor, ...], *, has_batch: bool = True) -> Predictions:
    outputs = tuple(Tensor(f"to_{tensor.name}", tensor.datatype, tensor.shape) for tensor in inputs)
    return Predictions(inputs, outputs, has_batch, 3)


def there_and_back(model: Predictions, instances: Any) -> Any:
    """Return what a model that answers its inputs predicts."""
    asked = model.read(orjson.dumps({"instances": instances}))
    _, body = model.write(asked.plan, asked.arrays)
    return orjson.loads(body)["predictions"]


@pytest.mark.parametrize(
    ("inputs", "instances", "want"),
    [
        pytest.param(ONE, [[1.5, 2.0], [3.0, 4.0]], [[1.5, 2.0], [3.0, 4.0]], id="a row is the only input's value"),
        pytest.param(ONE, [{"x": [1.0, 2.0]}], [[1.0, 2.0]], id="the only input by its name"),
        pytest.param(
            TWO,
            [{"a": [1.0, 2.0], "b": 7}, {"b": 8, "a": [3.0, 4.0]}],
            [{"to_a": [1.0, 2.0], "to_b": 7}, {"to_a": [3.0, 4.0], "to_b": 8}],
            id="several inputs, in any order",
        ),
        pytest.param((Tensor("n", "INT64", (-1,)),), [1, 2, 3], [1, 2, 3], id="numbers"),
        pytest.param((Tensor("x", "BF16", (-1, 1)),), [[0.5]], [[0.5]], id="bfloat16"),
        pytest.param((Tensor("t", "BYTES", (-1,)),), ["tief", "højt"], ["tief", "højt"], id="text"),
        pytest.param((Tensor("t", "BYTES", (-1, 2)),), [["a", "b"]], [["a", "b"]], id="several texts a row"),
        pytest.param((Tensor("t", "BYTES", (-1,)),), [{"b64": "YWI="}, "c"], ["ab", "c"], id="bytes in base64"),
        pytest.param(
            (Tensor("t", "BYTES", (-1,)), Tensor("n", "INT8", (-1,))),
            [{"t": {"b64": "YWI="}, "n": 1}],
            [{"to_t": "ab", "to_n": 1}],
            id="base64 among several inputs",
        ),
    ],
)
def test_rows_come_back_as_rows(inputs: tuple[Tensor, ...], instances: Any, want: Any) -> None:
    assert there_and_back(predictions(inputs), instances) == want


def test_a_model_without_a_batch_dimension_takes_one_instance() -> None:
    model = predictions((Tensor("x", "FP32", (2, 2)),), has_batch=False)
    assert there_and_back(model, [[[1.0, 2.0], [3.0, 4.0]]]) == [[[1.0, 2.0], [3.0, 4.0]]]
    with pytest.raises(BadRequest, match="2 rows are more than the one"):
        model.read(orjson.dumps({"instances": [[[1.0]], [[2.0]]]}))


@pytest.mark.parametrize(
    ("instances", "want"),
    [
        pytest.param([[1.0, 2.0]], [[1.0, 2.0]], id="without the leading 1"),
        pytest.param([[[1.0, 2.0]]], [[[1.0, 2.0]]], id="with it"),
        pytest.param([{"x": [1.0, 2.0]}], [[1.0, 2.0]], id="by its name"),
    ],
)
def test_a_model_of_exactly_one_row_takes_a_row(instances: Any, want: Any) -> None:
    assert there_and_back(predictions((Tensor("x", "FP32", (1, 2)),), has_batch=False), instances) == want


def test_a_model_of_exactly_one_row_says_how_to_export_it_for_more() -> None:
    tensors = (Tensor("x", "FP32", (1, 2)),)
    model = Predictions(tensors, tensors, False, 1, (), "export it anew")
    with pytest.raises(BadRequest, match="2 rows are more than the one this model takes; export it anew"):
        model.read(orjson.dumps({"instances": [[1.0, 2.0], [1.0, 2.0]]}))
    with pytest.raises(BadRequest, match=r"the shape \[3\], the model takes \[1, 2\], or \[2\]"):
        model.read(orjson.dumps({"instances": [[1.0, 2.0, 3.0]]}))


def test_a_model_that_does_not_say_its_types_gets_floats() -> None:
    model = Predictions((Tensor("input_0", ANY, (-1,)),), (Tensor("output_0", ANY, (-1,)),), False, 3)
    asked = model.read(orjson.dumps({"instances": [[[1, 2], [3, 4]]]}))
    assert asked.arrays[0].dtype == np.float32
    assert asked.arrays[0].tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("inputs", "document", "want"),
    [
        (ONE, {}, "instances is missing"),
        (ONE, {"instances": 7}, "instances has to be a list"),
        (ONE, {"instances": []}, "no rows"),
        (ONE, {"instances": [[1.0, 2.0]] * 4}, "4 rows are more than the 3"),
        (ONE, {"instances": [[1.0]]}, r"instances has the shape \[1, 1\], the model takes \[-1, 2\]"),
        (ONE, {"instances": [[1.0, 2.0], [1.0]]}, "instances is uneven"),
        (ONE, {"instances": [["1", "2"]]}, "instances holds values that are not FP32"),
        (ONE, {"instances": [{"y": [1.0, 2.0]}]}, r"instances\[0\] has no 'x'"),
        (ONE, {"instances": [{"x": [1.0, 2.0], "y": 1}]}, "no input 'y'"),
        (ONE, {"instances": [{"x": [1.0, 2.0]}, [1.0, 2.0]]}, r"instances\[1\] is not an object"),
        ((Tensor("t", "BYTES", (-1,)),), {"instances": ["a", 7]}, "instances holds values that are not strings"),
        ((Tensor("t", "BYTES", (-1,)),), {"instances": [{"b64": "%"}]}, "b64 is not base64"),
        ((Tensor("t", "BYTES", (-1,)),), {"instances": [{"b64": "é"}]}, "b64 is not base64"),
        ((Tensor("t", "BYTES", (-1,)),), {"instances": [{"b64": "YWI="}, {"t": "c"}]}, r"instances\[0\] has no 't'"),
        (ONE, {"instances": [[True, 1.0]]}, "instances holds values that are not FP32"),
        (TWO, {"instances": [[1.0, 2.0]]}, "a value for each of a, b"),
        (TWO, {"instances": [{"a": [1.0, 2.0], "b": 0.5}]}, r"instances\[\].b holds values that are not INT64"),
    ],
)
def test_a_wrong_request_is_told_where_it_is_wrong(inputs: tuple[Tensor, ...], document: Any, want: str) -> None:
    with pytest.raises(BadRequest, match=want):
        predictions(inputs).read(orjson.dumps(document))


@pytest.mark.parametrize("datatype", ["FP32", "BYTES", ANY])
@pytest.mark.parametrize("first", ["", '"a",'], ids=["all of it", "a later value"])
def test_what_is_nested_deeper_than_any_tensor_is_told_so(datatype: str, first: str) -> None:
    """What JSON's reader lets through is deep enough to end Python's own recursion."""
    body = f'{{"instances":[[{first}{"[" * 1000}{"]" * 1000}]]}}'
    want = "uneven" if first and datatype != "BYTES" else "instances is nested too deep: in more than 16 lists"
    with pytest.raises(BadRequest, match=want):
        predictions((Tensor("x", datatype, (-1, 2)),)).read(body.encode())
