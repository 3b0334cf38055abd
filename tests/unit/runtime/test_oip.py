"""Are requests read and answers written value for value, in every element type?"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.models.datatypes import ANY, DATATYPES
from evenkeel_runtime.serve.answer import Writer
from evenkeel_runtime.serve.body import BadRequest
from evenkeel_runtime.serve.oip import Reader


def reader(word: str = "FP32", inputs: tuple[Tensor, ...] | None = None) -> Reader:
    return Reader(inputs or (Tensor("x", word, (-1, 3)),), (Tensor("y", word, (-1, 3)),), True, 100)


def asked(word: str, data: list[Any]) -> Any:
    entry = {"name": "x", "datatype": word, "shape": [len(data) // 3, 3], "data": data}
    return reader(word).read(orjson.dumps({"inputs": [entry]}), None)


VALUES: dict[str, list[Any]] = {"BOOL": [True, False, True], "BF16": [0.5, -2.0, 1.0], "FP16": [0.5, -2.0, 65504.0]}


@pytest.mark.parametrize("word", [datatype.word for datatype in DATATYPES])
def test_every_element_type_there_and_back(word: str) -> None:
    values = VALUES.get(word, [0, 1, 100])
    found = asked(word, values)
    writer = Writer("m", "v", (Tensor("y", word, (-1, 3)),))
    _, text = writer.write(found.plan, found.arrays)
    entry = orjson.loads(text)["outputs"][0]
    assert (entry["datatype"], entry["data"]) == (word, values)
    size = found.arrays[0].nbytes
    header = {"inputs": [{"name": "x", "datatype": word, "shape": [1, 3], "parameters": {"binary_data_size": size}}]}
    packed = orjson.dumps(header)
    again = reader(word).read(packed + found.arrays[0].tobytes(), len(packed))
    assert again.arrays[0].tobytes() == found.arrays[0].tobytes()


@pytest.mark.parametrize(
    ("word", "data"),
    [
        ("INT8", [128, 0, 0]),
        ("UINT8", [-1, 0, 0]),
        ("INT64", [2**63, 0, 0]),
        ("UINT64", [2**64 - 1, -1, 0]),
        ("UINT64", [2**64 - 1, 0.5, 0]),
        ("INT32", [1.5, 0.0, 0.0]),
        ("INT32", [True, False, True]),
        ("BOOL", [0, 1, 2]),
        ("FP16", [65520.0, 0.0, 0.0]),
        ("FP32", [3.5e38, 0.0, 0.0]),
        ("FP32", ["NaN", 0.0, 0.0]),
        ("FP32", [{}, 0.0, 0.0]),
    ],
)
def test_values_that_do_not_fit(word: str, data: list[Any]) -> None:
    with pytest.raises(BadRequest, match=r"inputs\[x\]\.data|not JSON"):
        asked(word, data)


def test_kept_headers_give_the_same_answer_and_stay_bounded() -> None:
    found = reader()
    for rows in range(1, 101):
        for identifier in range(10):
            header = orjson.dumps(
                {
                    "id": str(identifier),
                    "inputs": [
                        {
                            "name": "x",
                            "datatype": "FP32",
                            "shape": [rows, 3],
                            "parameters": {"binary_data_size": rows * 12},
                        }
                    ],
                }
            )
            for _ in range(2):
                got = found.read(header + bytes(rows * 12), len(header))
                assert (got.plan.rows, got.plan.id) == (rows, str(identifier))
            with pytest.raises(BadRequest):
                found.read(header + bytes(rows * 12 + 4), len(header))
    assert len(found._plans) <= 512


def test_model_that_does_not_say_what_it_takes() -> None:
    found = Reader((Tensor("input_0", ANY, (-1,)),), (Tensor("output_0", ANY, (-1,)),), False, 100)
    entry = {"name": "input_0", "datatype": "INT16", "shape": [2, 2], "data": [[1, 2], [3, 4]]}
    got = found.read(orjson.dumps({"inputs": [entry]}), None)
    assert got.arrays[0].dtype == np.int16
    assert got.plan.rows == 1
    _, text = Writer("m", "v", (Tensor("output_0", ANY, (-1,)),)).write(got.plan, got.arrays)
    assert orjson.loads(text)["outputs"][0] == {
        "name": "output_0",
        "datatype": "INT16",
        "shape": [2, 2],
        "data": [1, 2, 3, 4],
    }


def test_inputs_with_different_rows() -> None:
    inputs = (Tensor("a", "FP32", (-1, 1)), Tensor("b", "FP32", (-1, 1)))
    entries = [
        {"name": name, "datatype": "FP32", "shape": [rows, 1], "data": [0.0] * rows}
        for name, rows in (("a", 1), ("b", 2))
    ]
    with pytest.raises(BadRequest, match="b has 2 rows, a has 1"):
        Reader(inputs, (), True, 10).read(orjson.dumps({"inputs": entries}), None)


@pytest.mark.parametrize(
    ("word", "data", "want"),
    [
        pytest.param("FP32", "[" * 900 + "1" + "]" * 900, "nested too deep: in more than 16 lists", id="too deep"),
        pytest.param(
            "BYTES", "[" * 900 + '"a"' + "]" * 900, "nested too deep: in more than 16 lists", id="text, too deep"
        ),
        pytest.param("FP32", "[[1,2],3]", "uneven", id="uneven"),
        pytest.param("FP32", "[true,1,2]", "values that are not FP32", id="a boolean among numbers"),
        pytest.param("INT8", "[[0,1,false]]", "values that are not INT8", id="a nested boolean among integers"),
        pytest.param("BOOL", "[true,1,false]", "values that are not BOOL", id="a number among booleans"),
    ],
)
def test_what_is_wrong_with_values_is_called_what_it_is(word: str, data: str, want: str) -> None:
    body = f'{{"inputs":[{{"name":"x","datatype":"{word}","shape":[1,3],"data":{data}}}]}}'
    with pytest.raises(BadRequest, match=rf"inputs\[x\]\.data .*{want}"):
        reader(word).read(body.encode(), None)


def test_a_model_of_a_fixed_batch_says_how_to_export_it_for_more() -> None:
    found = Reader((Tensor("x", "FP32", (1, 3)),), (), False, 1, (), "export it anew")
    for shape, want in (([2, 3], r"takes \[1, 3\]; export it anew$"), ([1, 4], r"takes \[1, 3\]$")):
        entry = {"name": "x", "datatype": "FP32", "shape": shape, "data": []}
        with pytest.raises(BadRequest, match=want):
            found.read(orjson.dumps({"inputs": [entry]}), None)
