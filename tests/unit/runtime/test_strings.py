"""Do strings arrive as they were sent, in every form, and through the model's batches?"""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.engine.batching import Batch, Work
from evenkeel_runtime.engine.calibrate import calibrate
from evenkeel_runtime.engine.forward import Forward
from evenkeel_runtime.models.datatypes import ANY
from evenkeel_runtime.models.loaded import Loaded, Signature
from evenkeel_runtime.serve.answer import Writer
from evenkeel_runtime.serve.body import BadRequest
from evenkeel_runtime.serve.oip import Asked, Reader

TEXT = Tensor("text", "BYTES", (-1,))
READER = Reader((TEXT,), (TEXT,), True, 100)


def binary(values: list[bytes], **change: Any) -> Asked:
    """Read a binary request for these strings, with fields of its input changed."""
    data = b"".join(struct.pack("<I", len(value)) + value for value in values)
    entry = {"name": "text", "datatype": "BYTES", "shape": [len(values)]}
    header = orjson.dumps(
        {
            "inputs": [{**entry, "parameters": {"binary_data_size": len(data)}, **change}],
            "parameters": {"binary_data_output": True},
        }
    )
    return READER.read(header + data, len(header))


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=9))
def test_bytes_come_back_in_binary(values: list[bytes]) -> None:
    asked = binary(values)
    assert asked.arrays[0].tolist() == values
    head, body = Writer("m", "1", (TEXT,)).write(asked.plan, asked.arrays)
    length = int(head.partition(b"inference-header-content-length: ")[2].split(b"\r\n")[0])
    (entry,) = orjson.loads(body[:length])["outputs"]
    assert len(body) - length == entry["parameters"]["binary_data_size"]
    assert body[length:] == b"".join(struct.pack("<I", len(value)) + value for value in values)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=9))
def test_text_comes_back_in_json(values: list[str]) -> None:
    entry = {"name": "text", "datatype": "BYTES", "shape": [len(values)], "data": values}
    for _ in range(2):  # the second time, nothing that was kept may stand in the way
        asked = READER.read(orjson.dumps({"inputs": [entry]}), None)
        assert asked.arrays[0].tolist() == [value.encode() for value in values]
        _, body = Writer("m", "1", (TEXT,)).write(asked.plan, asked.arrays)
        assert orjson.loads(body)["outputs"] == [entry]


def test_bytes_that_are_no_text_have_a_sign_in_json() -> None:
    asked = READER.read(orjson.dumps({"inputs": [{**TEXT_ENTRY, "data": ["a"]}]}), None)
    _, body = Writer("m", "1", (TEXT,)).write(asked.plan, [np.array([b"\xff!"], object)])
    assert orjson.loads(body)["outputs"][0]["data"] == ["�!"]


TEXT_ENTRY = {"name": "text", "datatype": "BYTES", "shape": [1]}


@pytest.mark.parametrize(
    ("data", "want"),
    [
        pytest.param([1], "not strings", id="a number"),
        pytest.param([None], "not strings", id="null"),
        pytest.param([["a"], ["b"]], "has 2 values", id="too many"),
        pytest.param([["a"], "b"], "lists of different lengths", id="uneven lists"),
        pytest.param("a", "a list of strings", id="a lone string"),
    ],
)
def test_json_that_holds_no_strings(data: Any, want: str) -> None:
    with pytest.raises(BadRequest, match=want):
        READER.read(orjson.dumps({"inputs": [{**TEXT_ENTRY, "data": data}]}), None)


@pytest.mark.parametrize(
    ("change", "want"),
    [
        pytest.param({"shape": [2]}, "string 1 ends behind", id="fewer strings than the shape says"),
        pytest.param({"shape": [3]}, "at least 12", id="fewer bytes than the lengths alone need"),
        pytest.param({"shape": [2**39]}, "rows|at least", id="a shape of terabytes"),
        pytest.param({"shape": [0]}, "no rows", id="no rows"),
        pytest.param({"datatype": "FP32"}, "datatype", id="another datatype"),
    ],
)
def test_binary_that_does_not_add_up(change: dict[str, Any], want: str) -> None:
    with pytest.raises(BadRequest, match=want):
        binary([b"abcdef"], **change)


@pytest.mark.parametrize("length", [0, 5, 7, 2**32 - 1])
def test_a_length_that_is_not_the_strings(length: int) -> None:
    entry = {**TEXT_ENTRY, "parameters": {"binary_data_size": 10}}
    header = orjson.dumps({"inputs": [entry]})
    with pytest.raises(BadRequest, match=r"inputs\[text\]"):
        READER.read(header + struct.pack("<I", length) + b"abcdef", len(header))


def test_a_model_that_does_not_say_what_it_takes_is_given_no_strings() -> None:
    reader = Reader((Tensor("input_0", ANY, (-1,)),), (), False, 100)
    entry = {"name": "input_0", "datatype": "BYTES", "shape": [1], "data": ["a"]}
    with pytest.raises(BadRequest, match="datatype is 'BYTES', the model takes ANY"):
        reader.read(orjson.dumps({"inputs": [entry]}), None)


def shouted(text: Any) -> Any:
    """Stand for a text model: it is given numpy arrays of bytes, and answers such."""
    assert text.dtype == object
    return [np.array([value.upper() for value in text], object)]


SIGNATURE = Signature((TEXT,), (Tensor("loud", "BYTES", (-1,)),), 0, ((1,),))
LOADED = Loaded("Test", "test", SIGNATURE, shouted, "cpu", traceable=False)


def test_a_model_of_strings_is_tried_out_and_batched() -> None:
    found = calibrate(LOADED, cpus=1, most_rows=8)
    assert found.max_rows > 1
    assert found.forward_s is not None


def test_strings_of_several_requests_share_a_call_and_come_back_to_their_own() -> None:
    calls: list[int] = []

    def call(text: Any) -> Any:
        calls.append(len(text))
        return shouted(text)

    forward = Forward(SIGNATURE, call, "cpu", max_rows=4)
    works = tuple(
        Work(len(words), "k", SimpleNamespace(arrays=[np.array(words, object)])) for words in ([b"a"], [b"b", b"cd"])
    )
    for answer, want in zip(forward.run(Batch(works, rows=3)).values(), ([b"A"], [b"B", b"CD"]), strict=True):
        assert isinstance(answer, list)
        assert answer[0].tolist() == want
    assert calls == [3]
    large = Work(9, "k", SimpleNamespace(arrays=[np.array([b"x"] * 9, object)]))
    (answer,) = forward.run(Batch((large,), rows=9)).values()
    assert isinstance(answer, list)
    assert answer[0].tolist() == [b"X"] * 9
    assert calls == [3, 4, 4, 1]
