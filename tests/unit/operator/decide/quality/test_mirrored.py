"""What is decided of a mirrored canary without a label? By what both revisions predicted of the same requests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evenkeel_operator.decide.quality.cohorts import COHORT, Pairs
from evenkeel_operator.decide.quality.verdict import OnMissingLabels, State, Why, judge
from tests.unit.operator.decide.quality.test_verdict import DAY, LAST, MISSING, START, answered, rows

HOLD, PROXY = OnMissingLabels.HOLD, OnMissingLabels.PROXY


@pytest.mark.parametrize(
    ("mode", "unlabelled", "want"),
    [
        pytest.param(PROXY, {(0, 1): 20, (1, 1): 20}, (State.HELD, Why.PROXY_DIFFERS), id="other classes"),
        pytest.param(
            PROXY,
            {(0, 0): 19, (0, 1): 1, (1, 1): 19, (1, 0): 1},
            (State.PROMOTED, Why.ANSWERS_GOOD),
            id="about the same classes",
        ),
        pytest.param(HOLD, {(0, 0): 1}, (State.HELD, Why.LABELS_MISSING), id="held, whatever they predicted"),
        pytest.param(HOLD, {}, (State.CANARY, Why.NO_TRAFFIC), id="nothing that both have answered"),
    ],
)
def test_without_a_label(
    mode: OnMissingLabels, unlabelled: dict[tuple[int, int], int], want: tuple[State, Why]
) -> None:
    pairs = tuple(Pairs(START + i * COHORT, {}, unlabelled) for i in range(4))
    got = judge(MISSING[mode], LAST, replace(rows(answers=answered()), pairs=pairs), DAY)
    assert (got.state, got.why) == want
