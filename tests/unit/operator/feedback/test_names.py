"""Are the names at hand those that were used last, and no more of them than fit?"""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from evenkeel_operator.feedback.names import Names, Of

REVISIONS = [(bytes(16), f"digits-{number}") for number in range(5)]
NAMES = ("spam", "ham")
WEIGHT = sum(map(sys.getsizeof, NAMES))


def at_hand(names: Names) -> list[Of]:
    return [of for of in REVISIONS if names.get(of)]


def test_what_was_used_last_stays() -> None:
    names = Names(most_revisions=2)
    names.put(REVISIONS[0], NAMES)
    names.put(REVISIONS[1], NAMES)
    assert names.get(REVISIONS[0]) == NAMES
    names.put(REVISIONS[2], NAMES)
    assert at_hand(names) == [REVISIONS[0], REVISIONS[2]]


def test_long_names_leave_room_for_fewer() -> None:
    names = Names(most_bytes=3 * WEIGHT)
    for of in REVISIONS[:3]:
        names.put(of, NAMES)
    assert at_hand(names) == REVISIONS[:3]
    names.put(REVISIONS[3], NAMES * 2)
    assert at_hand(names) == REVISIONS[2:4]


def test_names_that_do_not_fit_at_all_are_not_at_hand() -> None:
    names = Names(most_bytes=WEIGHT)
    names.put(REVISIONS[0], NAMES * 2)
    assert names.get(REVISIONS[0]) == ()
    names.put(REVISIONS[1], NAMES)
    assert names.get(REVISIONS[1]) == NAMES


@given(st.lists(st.tuples(st.sampled_from(REVISIONS), st.integers(1, 4))), st.integers(1, 4), st.integers(1, 9))
def test_no_more_is_kept_than_fits_however_often_it_is_told(
    puts: list[tuple[Of, int]], most_revisions: int, most: int
) -> None:
    names = Names(most_revisions, most * WEIGHT)
    for of, count in puts:
        names.put(of, NAMES * count)
        kept = at_hand(names)
        assert len(names) == len(kept) <= most_revisions
        assert sum(len(names.get(of)) for of in kept) <= most * len(NAMES)
        assert names.get(of) == (NAMES * count if count <= most else ())
