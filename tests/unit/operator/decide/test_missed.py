"""Is no replica removed while an answer is lost, and one added all the same where the others ask for it?"""

from __future__ import annotations

import pytest

from evenkeel_operator.decide.capacity import Capacity
from evenkeel_operator.decide.memory import Memory
from evenkeel_operator.decide.replicas import Decision, Fleet, Fresh, Limit, Scaling, Signals, decide

CARRIES = Capacity(rate=10.0, shrink_rate=9.0, max_rate=15.0)


def signals(rate: float, ready: int, missed: int, heard: int | None = None) -> Signals:
    return Signals(
        Fresh(rate), Fresh(0.0), Fresh(0.1), ready, ready - missed if heard is None else heard, missed=missed
    )


def decided(given: Signals) -> Decision:
    """Return what is decided on `given`, after hours in which one replica was enough."""
    memory, now, bounds = Memory(), 1e9, Scaling(1, 40, 0.2, 0.95)
    for _ in range(180):
        now += 60.0
        _, memory = decide(signals(5.0, 1, 0), Fleet(1, 1), bounds, CARRIES, memory, now)
    return decide(given, Fleet(given.ready, given.ready), bounds, CARRIES, memory, now + 5.0)[0]


@pytest.mark.parametrize(
    ("given", "want", "limit"),
    [
        pytest.param(signals(5.0, 8, 0), 1, Limit.DEMAND, id="every replica has answered: the rest goes"),
        pytest.param(signals(5.0, 8, 1), 8, Limit.HOLD, id="one of eight has not: the size is held"),
        pytest.param(signals(5.0, 4, 4, heard=4), 4, Limit.HOLD, id="nobody has"),
        pytest.param(signals(5.0, 30, 1), 1, Limit.DEMAND, id="one of thirty: of so many some are always missed"),
        pytest.param(signals(5.0, 30, 2), 30, Limit.HOLD, id="two of thirty"),
        pytest.param(
            signals(5.0, 8, 1, heard=5), 8, Limit.SILENT_REPLICAS, id="a quarter is silent for longer as well"
        ),
    ],
)
def test_a_lost_answer_takes_no_replica_away(given: Signals, want: int, limit: Limit) -> None:
    got = decided(given)
    assert (got.size, got.limit) == (want, limit)
    if limit is Limit.HOLD:
        assert got.message.endswith(f"{given.missed} of {given.ready} replicas did not answer the last time")


def test_one_whose_answer_was_lost_has_as_much_as_the_others() -> None:
    whole, lost = decided(signals(120.0, 8, 0)), decided(signals(105.0, 8, 1))
    assert lost.size >= whole.size > 8
