"""Does what passes between the front and an engine arrive as it was, and is an engine's end told to whoever waits?"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from evenkeel_runtime.contract import Reason, Tensor
from evenkeel_runtime.engine.batching import Batch, Work
from evenkeel_runtime.engine.cuda import DeviceLost
from evenkeel_runtime.engine.forward import BadAnswer, Forward
from evenkeel_runtime.engine.process import EngineLost
from evenkeel_runtime.engine.shared import Room
from evenkeel_runtime.models.loaded import BadInput, Range, Signature
from tests.unit.runtime.remotes import remote

ROW = Tensor("x", "INT64", (-1,))
KIND = (("INT64", ()),)
COMPLEX = "the model answers complex64, which no answer can carry: save one of real numbers"


def texts(*values: bytes, shape: tuple[int, ...] = (-1,)) -> Any:
    made = np.empty(len(values), object)
    made[:] = values
    return made.reshape(shape)


@pytest.mark.parametrize(
    "arrays",
    [
        pytest.param([np.arange(12, dtype=np.float32).reshape(3, 4)], id="numbers"),
        pytest.param([np.arange(3, dtype=np.int8), np.ones((2, 2), np.float64)], id="several, of other types"),
        pytest.param([np.arange(24).reshape(4, 6)[::2, ::3]], id="numbers that do not lie side by side"),
        pytest.param([np.array([True, False]), np.array([3, 4], np.uint16)], id="truth values and small numbers"),
        pytest.param([np.array([1, 2], np.uint16).view("V2")], id="bfloat16, as bits"),
        pytest.param([np.array(np.nan), np.array([np.inf, -0.0])], id="a single number, and what is none"),
        pytest.param([np.zeros((0, 5), np.float32), np.zeros((2, 0))], id="no numbers"),
        pytest.param([texts(b"a", b"", b"\xff\x00b" * 50, b"z")], id="texts, of which one is empty"),
        pytest.param([texts(b"", shape=(1, 1)), texts(), np.arange(2)], id="a table of an empty text, and no texts"),
        pytest.param([np.arange(1 << 20)], id="more than a page"),
    ],
)
def test_arrays_arrive_as_they_were(arrays: list[Any]) -> None:
    ours = Room()
    theirs = Room(ours.fd)
    for group in ([arrays[0]], arrays, arrays * 3):
        told = ours.write([group, [], group])
        for got in (theirs.read(told[0]), theirs.read(told[2])):
            assert [(one.dtype, one.shape) for one in got] == [(one.dtype, one.shape) for one in group]
            assert [one.tobytes() if not one.dtype.hasobject else one.tolist() for one in got] == [
                one.tobytes() if not one.dtype.hasobject else one.tolist() for one in group
            ]
        assert theirs.read(told[1]) == []


def test_what_was_read_stays_while_the_memory_grows() -> None:
    ours = Room()
    theirs = Room(ours.fd)
    (before,) = theirs.read(ours.write([[np.arange(4)]])[0])
    large = np.full(1 << 16, 7)
    told = ours.write([[np.arange(4), large]])
    assert np.array_equal(theirs.read(told[0])[1], large)
    assert before.tolist() == [0, 1, 2, 3], "a view of memory that is gone would be a fault"


def called(x: torch.Tensor) -> list[torch.Tensor]:
    """Double each number; some are not taken."""
    for value in x.tolist():
        match value:
            case -1:
                raise ValueError("a number below zero\nTwo lines of it")
            case -2:
                raise DeviceLost("the GPU answers this process no more")
            case -3:
                raise RuntimeError("half a letter: \udce4")
            case -4:
                return [torch.complex(x * 1.0, x * 1.0)]
    return [x * 2]


def forward() -> Forward:
    asked = Range(0, -10, 100)
    return Forward(Signature((ROW,), (ROW,), 0, ((1,),), ranges=(asked,)), called, "cpu", max_rows=8)


def batch(*groups: list[int]) -> Batch:
    works = [Work(len(group), KIND, SimpleNamespace(arrays=[np.array(group)])) for group in groups]
    return Batch(tuple(works), sum(map(len, groups)))


def test_each_request_of_a_batch_has_its_own_rows() -> None:
    engine, _ = remote(forward())
    for groups in ([[1]], [[1, 2], [3], [4, 5, 6]], [[7] * 20]):
        got = engine.run(batch(*groups))
        want = [[2 * value for value in group] for group in groups]
        assert [outputs[0].tolist() for outputs in got.values() if not isinstance(outputs, Exception)] == want
        assert list(got) == list(range(len(groups)))
    assert engine.cpu_s > 0


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        pytest.param(101, BadInput, "x holds 101, the model takes -10 to 100", id="what the model does not take"),
        pytest.param(-4, BadAnswer, COMPLEX, id="an answer that is none"),
        pytest.param(-2, DeviceLost, "the GPU answers this process no more", id="a lost GPU"),
        pytest.param(-1, "ValueError", "a number below zero\nTwo lines of it", id="an error of the model's own"),
        pytest.param(-3, "RuntimeError", "half a letter: ?", id="an error that is no Unicode"),
    ],
)
def test_errors_are_what_they_were(value: int, kind: type[Exception] | str, message: str) -> None:
    engine, _ = remote(forward())
    with pytest.raises(Exception) as told:  # noqa: PT011 - its type is what is compared
        engine.run(batch([value]))
    assert (told.value.__class__ is kind or told.value.__class__.__name__ == kind, str(told.value)) == (True, message)
    got = engine.run(batch([5], [value]))
    good, bad = got[0], got[1]
    assert not isinstance(good, Exception)
    assert good[0].tolist() == [10], "nobody is answered with another one's error"
    assert isinstance(bad, Exception)
    assert str(bad) == message


@pytest.mark.parametrize(
    ("status", "want"),
    [
        pytest.param(-9, "engine 3 has ended: killed by signal 9", id="killed"),
        pytest.param(1, "engine 3 has ended: exit status 1", id="of itself"),
    ],
)
def test_who_waits_for_an_engine_that_ends_hears_how(status: int, want: str) -> None:
    engine, pipe = remote(forward(), status, 3)
    assert not isinstance(engine.run(batch([1]))[0], Exception)
    engine.pipe.close()
    pipe.close()
    with pytest.raises(EngineLost, match=want) as told:
        engine.run(batch([1]))
    assert told.value.reason == Reason.ENGINE_LOST
    assert isinstance(told.value, DeviceLost), "it ends the replica as a lost GPU does"
