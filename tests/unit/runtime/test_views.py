"""Does an output take the form that the client asks for: best classes, probabilities, or as it is?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.serve.body import BadRequest
from evenkeel_runtime.serve.oip import Reader
from evenkeel_runtime.serve.views import Outputs

SCORES = np.array([[0.5, 2.0, -1.0], [3.0, 3.0, 4.0]], np.float32)
SOFTMAX = np.exp(SCORES) / np.exp(SCORES).sum(1, keepdims=True)
CLASSES = ("cat", "dog", "owl")


def seen(
    parameters: dict[str, Any],
    array: NDArray[Any] = SCORES,
    classes: tuple[str, ...] = (),
    datatype: str = "FP32",
    has_batch: bool = True,
) -> tuple[str, str, Any]:
    output = Tensor("y", datatype, (-1, *array.shape[1:]) if has_batch else array.shape)
    reader = Reader((Tensor("x", "FP32", (-1,) if has_batch else (2,)),), (output,), has_batch, 10)
    given = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}
    asked = reader.read_document(
        {"inputs": [given], "outputs": [{"name": "y", "parameters": parameters}]},
        b"",
    )
    ((name, word, values),) = Outputs((output,), classes, has_batch).of(asked.plan, [array])
    return name, word, values.tolist()


@pytest.mark.parametrize(
    ("more", "want"),
    [
        pytest.param({}, [[b"2.000000:1"], [b"4.000000:2"]], id="without names, the value and the index"),
        pytest.param({"classes": CLASSES}, [[b"2.000000:1:dog"], [b"4.000000:2:owl"]], id="with the model's names"),
        pytest.param(
            {"classes": CLASSES[:2]},
            [[b"2.000000:1"], [b"4.000000:2"]],
            id="names of another number of classes are not these",
        ),
        pytest.param(
            {"array": SCORES.astype(np.int64), "datatype": "INT64"}, [[b"2:1"], [b"4:2"]], id="whole numbers stay whole"
        ),
        pytest.param(
            {"array": SCORES, "has_batch": False},
            [b"4.000000:5"],
            id="without a batch dimension all values are one row",
        ),
    ],
)
def test_the_best_class(more: dict[str, Any], want: list[Any]) -> None:
    assert seen({"classification": 1}, **more) == ("y", "BYTES", want)


def test_equals_are_ranked_by_index_and_no_more_are_named_than_there_are() -> None:
    want = [[b"2.000000:1", b"0.500000:0", b"-1.000000:2"], [b"4.000000:2", b"3.000000:0", b"3.000000:1"]]
    assert seen({"classification": 7}) == ("y", "BYTES", want)


def test_probabilities() -> None:
    name, word, values = seen({"probabilities": True})
    assert (name, word) == ("y", "FP32")
    np.testing.assert_allclose(values, SOFTMAX, rtol=1e-6)


def test_probabilities_of_large_scores_are_finite() -> None:
    _, _, values = seen({"probabilities": True}, np.array([[1e4, 0.0, 0.0]] * 2, np.float32))
    assert values == [[1.0, 0.0, 0.0]] * 2


def test_ranked_probabilities() -> None:
    _, word, values = seen({"classification": 1, "probabilities": True}, classes=CLASSES)
    want = [[b"%f:1:dog" % SOFTMAX[0, 1]], [b"%f:2:owl" % SOFTMAX[1, 2]]]
    assert (word, values) == ("BYTES", want)


def test_brain_floats_are_ranked_by_their_values() -> None:
    halves = (SCORES.view(np.uint32) >> 16).astype(np.uint16)
    _, word, values = seen({"classification": 1}, halves, datatype="BF16")
    assert (word, values) == ("BYTES", [[b"2.000000:1"], [b"4.000000:2"]])


def test_nothing_asked_leaves_the_output_as_it_is() -> None:
    for nothing in ({}, {"classification": 0}, {"probabilities": False}):
        assert seen(nothing) == ("y", "FP32", SCORES.tolist())


@pytest.mark.parametrize(
    ("parameters", "datatype", "word"),
    [
        pytest.param({"classification": -1}, "FP32", "classification", id="a negative number of classes"),
        pytest.param({"classification": True}, "FP32", "classification", id="true for a number of classes"),
        pytest.param({"classification": "3"}, "FP32", "classification", id="text for a number of classes"),
        pytest.param({"probabilities": 1}, "FP32", "probabilities", id="a number for true"),
        pytest.param({"classification": 2}, "BYTES", "nothing to rank", id="an output of texts"),
    ],
)
def test_what_cannot_be_seen_is_refused_by_name(parameters: dict[str, Any], datatype: str, word: str) -> None:
    with pytest.raises(BadRequest, match=word) as raised:
        seen(parameters, datatype=datatype)
    assert "outputs[y]" in raised.value.message
