"""May two processes ever hold the Lease at once?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel_operator.world.lease import Move, Seen, decide


def seen(holder: str, since: float = 100.0, duration_s: float = 30.0) -> Seen:
    return Seen(holder=holder, duration_s=duration_s, transitions=1, version="1", since=since)


@pytest.mark.parametrize(
    ("lease", "now", "want"),
    [
        pytest.param(None, 0.0, Move.TAKE, id="there is none"),
        pytest.param(seen(""), 100.0, Move.TAKE, id="it was released"),
        pytest.param(seen("me"), 500.0, Move.RENEW, id="ours, even when late"),
        pytest.param(seen("other"), 100.0, Move.WAIT, id="another's, just seen: its time stamps are not trusted"),
        pytest.param(seen("other"), 129.9, Move.WAIT, id="another's, nearly expired"),
        pytest.param(seen("other"), 130.0, Move.TAKE, id="another's, seen unchanged for its duration"),
    ],
)
def test_decide(lease: Seen | None, now: float, want: Move) -> None:
    assert decide(lease, "me", now) is want


@given(
    sent=st.floats(0, 1000),
    answered_after=st.floats(0, 60),
    seen_after=st.floats(0, 60),
    offset=st.floats(-1e6, 1e6),
)
def test_no_successor_may_take_it_while_a_write_of_ours_may_land(
    sent: float, answered_after: float, seen_after: float, offset: float
) -> None:
    """Our clock and the successor's differ by any offset: only durations count."""
    duration_s = 30.0
    last_write_starts = sent + duration_s * 2 / 3
    last_write_ends = last_write_starts + duration_s / 3
    renewed = sent + min(answered_after, 5.0)  # no earlier than it was sent
    theirs = Seen("me", duration_s, 1, "2", since=renewed + seen_after + offset)
    assert decide(theirs, "other", last_write_ends - 0.001 + offset) is Move.WAIT
