"""Is what is learnt of a replica's speed bounded, whatever replicas and a ConfigMap say?"""

from __future__ import annotations

import pytest

from evenkeel_operator.api.modeldeployment import MOST_ROWS
from evenkeel_operator.decide.capacity import Roofline
from evenkeel_operator.decide.observed import Batches
from evenkeel_operator.decide.readings import MOST_SIZES
from evenkeel_operator.decide.speed import Speed


def test_of_many_sizes_those_with_the_most_batches_are_kept() -> None:
    speed = Speed()
    speed.note([Batches(8, 1000, 8000, 80.0)], 0.0)
    for tick in range(20):
        speed.note([Batches(100 + tick * MOST_SIZES + n, 1, 1, 99.0) for n in range(MOST_SIZES)], 5.0)
    points = speed._points(())
    assert len(points) <= MOST_SIZES
    count, seconds = points[8]
    assert seconds / count == pytest.approx(0.08)


def test_what_was_written_is_read() -> None:
    speed = Speed(Roofline(0.02, 0.01, 0.005, MOST_ROWS))
    text = speed.to_json()
    assert text is not None
    assert Speed.from_json(text).roofline == speed.roofline


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("null", id="null"),
        pytest.param("[1,1,1]", id="a number too few"),
        pytest.param('[1,1,1,"x"]', id="a word"),
        pytest.param("[1,1,1,0]", id="no rows"),
        pytest.param(f"[1,1,1,{MOST_ROWS + 1}]", id="more rows than a call may have"),
        pytest.param(f"[1,1,1,{2**62}]", id="batches that no memory holds"),
        pytest.param("[1,1,1,Infinity]", id="rows without end"),
        pytest.param(f"[{10**400},1,1,8]", id="a time beyond all floats"),
        pytest.param("[1,NaN,1,8]", id="a time that is no number"),
        pytest.param("[1,-1,1,8]", id="a time below zero"),
        pytest.param("[0,0,0,8]", id="no time"),
        pytest.param("[" * 100_000, id="lists in lists without end"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the batch times cannot be read"):
        Speed.from_json(text)
