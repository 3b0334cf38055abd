"""Does a capacity outlive the operator, and nothing that is none?"""

from __future__ import annotations

import pytest

from evenkeel_operator.decide.capacity import Capacity
from evenkeel_operator.decide.carried import Carried

FORESEEN = (0.05, 0.06, 0.07, 0.09, 0.125, 0.15, 0.2)


@pytest.mark.parametrize(
    "capacity",
    [
        pytest.param(Capacity(93.75, 81.5, 120.25, foreseen_s=FORESEEN), id="that meets the target"),
        pytest.param(Capacity(93.75, 81.5, 120.25, is_attainable=False), id="that never meets it"),
    ],
)
def test_what_is_written_is_read(capacity: Capacity) -> None:
    want = Carried(capacity, 0.2, 0.95)
    assert Carried.from_json(want.to_json(), want.foreseen_json() or "[]") == want


def test_what_an_earlier_release_wrote_is_read_and_it_reads_what_is_written() -> None:
    text = "[0.2,0.95,93.75,81.5,120.25,true]"
    assert Carried.from_json(text) == Carried(Capacity(93.75, 81.5, 120.25), 0.2, 0.95)
    assert Carried(Capacity(93.75, 81.5, 120.25, foreseen_s=FORESEEN), 0.2, 0.95).to_json() == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("{}", id="no list"),
        pytest.param("[0.2,0.95,93.0,81.0,true]", id="one rate too few"),
        pytest.param("[0.2,0.95,93.0,81.0,120.0,140.0,true]", id="one too many"),
        pytest.param('[0.2,0.95,"fast",81.0,120.0,true]', id="a word"),
        pytest.param("[0.2,0.95,NaN,81.0,120.0,true]", id="no number"),
        pytest.param("[0.2,0.95,0,81.0,120.0,true]", id="a replica that carries nothing"),
        pytest.param("[0.2,0.95,1e999,81.0,120.0,true]", id="one that carries everything"),
        pytest.param("[" * 100_000, id="too deep"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the capacity cannot be read"):
        Carried.from_json(text)


@pytest.mark.parametrize(
    ("target_s", "quantile", "want"),
    [
        pytest.param(0.2, 0.95, True, id="the same target"),
        pytest.param(0.1, 0.95, False, id="half of it"),
        pytest.param(0.2, 0.99, False, id="another quantile"),
    ],
)
def test_it_is_for_one_target(target_s: float, quantile: float, want: bool) -> None:
    assert Carried(Capacity(93.0, 81.0, 120.0), 0.2, 0.95).is_for(target_s, quantile) is want


@pytest.mark.parametrize(
    "foreseen",
    [
        pytest.param("[0.1,0.2]", id="too few"),
        pytest.param("[0,0,0,0,0,0,0]", id="of nothing"),
        pytest.param("[[0.1]]", id="no numbers"),
        pytest.param("7", id="no list"),
        pytest.param("", id="no JSON"),
    ],
)
def test_latencies_that_cannot_be_foreseen_are_refused(foreseen: str) -> None:
    with pytest.raises(ValueError, match="the capacity cannot be read"):
        Carried.from_json("[0.2,0.95,93.0,81.0,120.0,true]", foreseen)
