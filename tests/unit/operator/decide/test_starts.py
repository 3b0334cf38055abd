"""Is the time of a start that of starts, and of nothing else that a pod goes through?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide.snapshot import Replica, freeze
from evenkeel_operator.decide.starts import MOST_STARTS, Starts
from tests.builders import DEFAULTS, modeldeployment, pod

BEGIN = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = 3600.0


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def replica(name: str, *, scheduled: float | None = 0.0, ready: float | None = None) -> Replica:
    """Return one that was created at BEGIN; `scheduled` and `ready` are seconds since then, None while it is not."""
    return Replica(
        name=name,
        revision="digits-1",
        node=None if scheduled is None else "node-1",
        ready=ready is not None,
        terminating=False,
        failure=None,
        created_at=BEGIN,
        scheduled_at=None if scheduled is None else at(scheduled),
        ready_at=None if ready is None else at(ready),
    )


@pytest.mark.parametrize(
    ("looks", "want"),
    [
        pytest.param([[]], None, id="no replica"),
        pytest.param([[replica("a")]], None, id="one that starts still"),
        pytest.param([[replica("a")], [replica("a", ready=30)]], 30.0, id="one that was seen to start"),
        pytest.param([[replica("a", ready=HOUR)]], None, id="one that was ready when it was first seen"),
        pytest.param(
            [[replica("a", ready=30)], [replica("a")], [replica("a", ready=HOUR)]],
            None,
            id="one that lost its readiness",
        ),
        pytest.param(
            [[replica("a")], [replica("a", ready=30)], [replica("a")], [replica("a", ready=HOUR)]],
            30.0,
            id="one that lost its readiness after it was seen to start",
        ),
        pytest.param(
            [
                [replica("a", scheduled=None)],
                [replica("a", scheduled=HOUR)],
                [replica("a", scheduled=HOUR, ready=3640)],
            ],
            40.0,
            id="one that waited an hour for its node",
        ),
        pytest.param([[replica("a")], [replica("a", scheduled=None, ready=30)]], None, id="one without a node"),
        pytest.param(
            [[replica(f"r{n}") for n in range(10)], [replica(f"r{n}", ready=20 + n) for n in range(10)]],
            28.0,
            id="nine of ten",
        ),
    ],
)
def test_the_time_of_a_start(looks: list[list[Replica]], want: float | None) -> None:
    starts = Starts()
    for rows in looks:
        starts.note(rows)
    assert starts.seconds() == want


def test_each_start_counts_once_and_the_latest_count() -> None:
    old = [replica(f"old-{n}", ready=100) for n in range(MOST_STARTS + 5)]
    new = [replica(f"new-{n}", ready=10) for n in range(MOST_STARTS)]
    starts = Starts()
    starts.note([replica(row.name) for row in old])
    starts.note(old)
    assert starts.seconds() == 100.0
    starts.note([*old, *(replica(row.name) for row in new)])
    for _ in range(3):
        starts.note([*old, *new])
        assert starts.seconds() == 10.0


def test_a_pods_moments_are_those_of_what_holds() -> None:
    rows: list[Object] = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T12:00:10Z"},
        {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T12:00:11Z"},
    ]
    starting = pod("digits-1", conditions=rows)
    ready = pod("digits-1", conditions=[rows[0], {**rows[1], "status": "True"}])
    waiting = pod("digits-1", conditions=[{**rows[0], "status": "False"}])
    got = [
        freeze(deployment=modeldeployment(), children=[found], defaults=DEFAULTS).replicas[0]
        for found in (starting, ready, waiting)
    ]
    assert [(row.ready, row.scheduled_at, row.ready_at) for row in got] == [
        (False, at(10), None),
        (True, at(10), at(11)),
        (False, None, None),
    ]
