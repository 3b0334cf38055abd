"""Is the last hour one of time?"""

from __future__ import annotations

import pytest

from evenkeel_operator.decide.minutes import Minutes


@pytest.mark.parametrize(
    ("ended", "now", "want"),
    [
        pytest.param([], 0.0, (0, 0), id="none"),
        pytest.param([(0.0, True), (60.0, False)], 60.0, (1, 2), id="both count"),
        pytest.param([(0.0, True), (60.0, False)], 3600.0, (0, 1), id="the first is an hour ago"),
        pytest.param([(0.0, True), (60.0, True), (30_000.0, False)], 30_000.0, (0, 1), id="a night lies between"),
        pytest.param([(0.0, True)], 30_000.0, (0, 0), id="none since the evening"),
    ],
)
def test_what_is_said_of_the_last_hour(ended: list[tuple[float, bool]], now: float, want: tuple[int, int]) -> None:
    minutes = Minutes()
    for at, is_missed in ended:
        minutes.note(is_missed=is_missed, now=at)
    assert minutes.counted(now) == want


def test_another_target_begins_anew() -> None:
    minutes = Minutes()
    minutes.note(is_missed=True, now=0.0)
    minutes.clear()
    assert minutes.counted(0.0) == (0, 0)
