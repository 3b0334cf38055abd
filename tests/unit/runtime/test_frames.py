"""Does a request whose surroundings are known read as it would have without them?"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.serve.body import BadRequest
from evenkeel_runtime.serve.oip import Reader


def reader(word: str = "FP32", shape: tuple[int, ...] = (-1, 3)) -> Reader:
    return Reader((Tensor("x", word, shape),), (Tensor("y", "FP32", (-1, 3)),), True, 100)


def request(values: Any, word: str = "FP32", shape: tuple[int, ...] = (1, 3), **more: Any) -> bytes:
    entry = {"name": "x", "shape": shape, "datatype": word, "data": values}
    return json.dumps({"inputs": [entry], **more}).encode()


def is_known(found: Reader, body: bytes) -> bool:
    return found._frames.read(body) is not None


@given(
    first=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
    second=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
    identifier=st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\')),
)
def test_other_values_in_a_known_frame_read_as_they_would_alone(
    first: list[float], second: list[float], identifier: str
) -> None:
    found, body = reader(), request(second, id=identifier)
    found.read(request(first, id=identifier), None)
    alone = reader().read(body, None)
    if identifier.isascii():
        assert is_known(found, body)
    got = found.read(body, None)
    assert got.plan == alone.plan
    assert got.arrays[0].tobytes() == alone.arrays[0].tobytes()


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("FP32", [1, 2, 3]),
        ("FP64", [0.1, -0.0, 1e-320]),
        ("FP16", [65504, 0.5, -1]),
        ("INT8", [-128, 0, 127]),
        ("UINT64", [0, 1, 2**64 - 1]),
        ("INT64", [-(2**63), 0, 2**63 - 1]),
        ("FP32", [[1.5, 2.5, 3.5]]),
    ],
)
def test_values_at_the_edge_of_their_type(word: str, values: list[Any]) -> None:
    found = reader(word)
    want = found.read(request(values, word), None)
    assert is_known(found, request(values, word))
    got = found.read(request(values, word), None)
    assert got.arrays[0].dtype == want.arrays[0].dtype
    assert got.arrays[0].tobytes() == want.arrays[0].tobytes()


@pytest.mark.parametrize(
    ("word", "values", "want"),
    [
        pytest.param("FP32", [True, 0, 0], "", id="a boolean among floats"),
        pytest.param("FP32", [None, 0, 0], "not FP32", id="null"),
        pytest.param("FP32", ["1", 0, 0], "not FP32", id="a number in quotes"),
        pytest.param("FP32", [3.5e38, 0, 0], "outside FP32", id="a float too large"),
        pytest.param("FP32", [1, 2], "has 2 values, the shape", id="too few"),
        pytest.param("FP32", [[1, 2], [3]], "uneven", id="uneven lists"),
        pytest.param("FP32", {}, "a list of numbers", id="an object"),
        pytest.param("FP32", 5, "a list of numbers", id="a lone number"),
        pytest.param("INT8", [128, 0, 0], "outside INT8", id="an integer too large"),
        pytest.param("INT8", [1.0, 0, 0], "not INT8", id="a float among integers"),
        pytest.param("UINT8", [-1, 0, 0], "outside UINT8", id="a negative number"),
    ],
)
def test_a_wrong_value_in_a_known_frame_is_told_as_in_any_other(word: str, values: Any, want: str) -> None:
    found, alone = reader(word), reader(word)
    found.read(request([1, 2, 3], word), None)
    assert is_known(found, request([3, 2, 1], word))
    told = []
    for one in (found, alone):
        try:
            told.append(one.read(request(values, word), None).arrays[0].tolist())
        except BadRequest as error:
            told.append(error.message)
    assert told[0] == told[1]
    assert want in str(told[0])


TWICE = b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3],"data":[1,2,3]}]}'
ESCAPED = b'{"inputs":[{"x\\"data":[1,2,3],"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}'
SPELT = b'{"inputs":[{"d\\u0061ta":[9,9,9],"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}'
ELSEWHERE = b'{"parameters":{"data":[1,2,3]},"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data" :[1,2,3]}]}'
IN_TEXT = b'{"id":"data","inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}'


@pytest.mark.parametrize("body", [TWICE, ESCAPED, SPELT, ELSEWHERE, IN_TEXT])
def test_a_frame_that_could_be_read_in_two_ways_is_not_kept(body: bytes) -> None:
    found = reader()
    for values in (b"[1,2,3]", b"[4,5,6]"):
        other = body.replace(b"[1,2,3]", values)
        assert not is_known(found, other)
        want = json.loads(values)
        assert found.read(other, None).arrays[0].tolist() == [want]


def test_what_is_added_behind_the_values_is_seen() -> None:
    found = reader()
    found.read(request([1, 2, 3]), None)
    body = request([1, 2, 3]).replace(b"3]}]}", b'3],"datatype":"FP64"}]}')
    with pytest.raises(BadRequest, match="FP64"):
        found.read(body, None)


def test_frames_stay_bounded() -> None:
    found = reader()
    for number in range(2000):
        found.read(request([1, 2, 3], id=str(number)), None)
    assert len(found._frames._frames) <= 512
    large = np.zeros((100, 3)).tolist()
    found.read(request(large, shape=(100, 3), parameters={"note": "x" * 5000}), None)
    assert not is_known(found, request(large, shape=(100, 3), parameters={"note": "x" * 5000}))
