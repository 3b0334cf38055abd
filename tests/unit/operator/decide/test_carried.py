"""Does a capacity outlive the operator, and nothing that is none?"""

from __future__ import annotations

import pytest

from evenkeel_operator.decide.capacity import Capacity
from evenkeel_operator.decide.carried import Carried


@pytest.mark.parametrize("is_attainable", [True, False])
def test_what_is_written_is_read(is_attainable: bool) -> None:
    want = Carried(Capacity(93.75, 81.5, 120.25, is_attainable), 0.2, 0.95)
    assert Carried.from_json(want.to_json()) == want


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
