"""Are errors told by the power of two that they are of, those of nothing by themselves?"""

from __future__ import annotations

import pytest

from evenkeel_operator.decide.quality.deviations import ZERO
from evenkeel_operator.feedback.counts import BITS, deviations

HALF = 1 << BITS - 1
"""A sum of absolute errors of 0.5, as it is stored; that of squares is half as much."""


@pytest.mark.parametrize(
    ("rows", "want"),
    [
        pytest.param([(ZERO, 3, 0, 0), (0, 1, HALF, HALF // 2)], [(ZERO, 3, 0.0, 0.0), (0, 1, 0.5, 0.25)], id="both"),
        pytest.param(
            [(ZERO, -1, 0, 0), (0, 2, HALF, HALF // 2)],
            [(0, 1, 0.5, 0.25)],
            id="one of 0 that an earlier release kept, corrected since",
        ),
        pytest.param([(ZERO, -1, 0, 0), (0, 1, 0, 0)], [], id="it was the only one"),
        pytest.param([(55, 1, HALF, HALF)], [], id="one that no two numbers have"),
    ],
)
def test_deviations(rows: list[tuple[int, int, int, int]], want: list[tuple[int, int, float, float]]) -> None:
    assert deviations(rows) == want
