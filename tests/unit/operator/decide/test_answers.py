"""Do two readings of a replica give the samples that they hold, and are these the same after they were kept?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel_operator.decide.answers import FINE, MOST_BYTES, MOST_SPAN_S, Samples
from evenkeel_operator.decide.quality.cohorts import ANSWERS, COHORT, Answers
from evenkeel_operator.decide.readings import MOST_COUNT, Beside, CanaryReading, Latencies, Reading, Sent

STABLE, CANARY = "digits-old", "digits-new"
NOW = datetime(2026, 1, 1, 12, 34, 56, tzinfo=UTC)
MINUTE = NOW.replace(second=0)
EDGES, TARGET_S = (0.05, 0.1, 0.2), 0.1
SPAN_S = 60.0
"""Long enough that whatever ends in it is a sample."""


def latencies(fast: int, slow: int) -> Latencies:
    """Return so many requests within the target, in two buckets, and so many above it, in two more."""
    return Latencies(TARGET_S, EDGES, (fast // 2, fast - fast // 2, slow // 2, slow - slow // 2))


def sent(fast: int = 0, slow: int = 0, **failed: int) -> Sent:
    return Sent(fast + slow + sum(failed.values()), fast + slow, failed, latencies(fast, slow))


def told(
    split: Sent | None = None, mirror: Sent | None = None, revision: str = CANARY, beside: Beside | None = None
) -> CanaryReading:
    return CanaryReading(revision, 200.0, 1, split, mirror, beside)


def reading(
    uptime_s: float = 100.0,
    fast: int = 0,
    slow: int = 0,
    failed: int = 0,
    rejected: int = 0,
    canary: CanaryReading | None = None,
    boot: str = "a",
) -> Reading:
    ended = fast + slow + failed + rejected
    return Reading(
        boot, uptime_s, True, 1, ended, ended, failed, rejected, 0, 0, 0, latencies(fast, slow), (), (), 0, canary
    )


def noted(before: Reading, after: Reading, *, was_taken_away: bool = False) -> Samples:
    """Return the samples between two readings of one replica."""
    found = Samples(STABLE, CANARY)
    found.note("r", before, NOW - timedelta(seconds=5))
    found.note("r", after, NOW, was_taken_away=was_taken_away)
    return found


def counts(found: Samples, revision: str) -> tuple[int, int, int]:
    """Return all samples of a revision, the slow and the failed ones."""
    rows = [row for row in found.rows() if row.revision == revision]
    return sum(r.samples for r in rows), sum(r.slow for r in rows), sum(r.failed for r in rows)


NONE = (0, 0, 0)
INTERVALS = [
    pytest.param(reading(), reading(160.0), NONE, NONE, id="nothing has ended"),
    pytest.param(
        reading(fast=7, failed=1, rejected=1),
        reading(160.0, fast=12, slow=3, failed=3, rejected=4, canary=told()),
        (13, 3, 5),
        NONE,
        id="of one that does not tell what could have been the canary's, all that ended, errors and refusals failed",
    ),
    pytest.param(
        reading(fast=50, canary=told(beside=Beside(10, 1, 1))),
        reading(160.0, fast=90, slow=9, failed=9, rejected=9, canary=told(beside=Beside(16, 3, 2))),
        (6, 2, 1),
        NONE,
        id="of stable's, only what could have been the canary's, and by the canary's measure",
    ),
    pytest.param(
        reading(canary=told(beside=Beside(90, 9, 9), revision="digits-older")),
        reading(160.0, canary=told(beside=Beside(4, 1, 1))),
        (4, 1, 1),
        NONE,
        id="what was beside another canary is not counted",
    ),
    pytest.param(
        reading(canary=told(beside=Beside(9, 9, 0))),
        reading(160.0, canary=told(sent(3), beside=Beside(12, 8, 0))),
        NONE,
        (3, 0, 0),
        id="what ran backwards beside the canary says nothing",
    ),
    pytest.param(
        reading(canary=told(replace(sent(4), abandoned=1))),
        reading(160.0, canary=told(replace(sent(6, 1), abandoned=3))),
        NONE,
        (5, 1, 0),
        id="who gave up on the canary before it was late is none of the slow, as with stable",
    ),
    pytest.param(
        reading(), reading(160.0, canary=told(sent(6, 2))), NONE, (8, 2, 0), id="all since it was told of the canary"
    ),
    pytest.param(
        reading(canary=told(sent(5, 5, error=5))),
        reading(160.0, canary=told(sent(6, 7, error=8))),
        NONE,
        (6, 2, 3),
        id="of the canary, too, what ended in between only",
    ),
    pytest.param(
        reading(canary=told()),
        reading(160.0, canary=told(sent(4, late=3))),
        NONE,
        (7, 3, 0),
        id="one that was late is slow and has not failed",
    ),
    pytest.param(
        reading(canary=told()),
        reading(160.0, canary=told(sent(1, unreachable=1, busy=1, broken=1, full=1, error=1, refused=1))),
        NONE,
        (7, 0, 6),
        id="one that it did not answer for another reason has failed",
    ),
    pytest.param(
        reading(canary=told()),
        reading(160.0, canary=told(sent(3), sent(2, 1, error=1))),
        NONE,
        (7, 1, 1),
        id="shares and copies add up",
    ),
    pytest.param(
        reading(), reading(160.0, canary=told(sent(9), revision="digits-older")), NONE, NONE, id="of another canary"
    ),
    pytest.param(
        reading(canary=told(sent(50), revision="digits-older")),
        reading(160.0, canary=told(sent(9))),
        NONE,
        (9, 0, 0),
        id="after another canary it counts from the start",
    ),
    pytest.param(
        reading(fast=9),
        reading(160.0, fast=4, canary=told(sent(2))),
        NONE,
        (2, 0, 0),
        id="a histogram that began again says nothing of that interval",
    ),
    pytest.param(
        reading(failed=9), reading(160.0, fast=4, failed=3), NONE, NONE, id="a counter that ran backwards says nothing"
    ),
    pytest.param(
        reading(canary=told(sent(4, error=4))),
        reading(160.0, fast=1, canary=told(sent(9, error=3))),
        (1, 0, 0),
        NONE,
        id="nor does one of the canary's, and stable's own counts all the same",
    ),
]


@pytest.mark.parametrize(("before", "after", "stable", "canary"), INTERVALS)
def test_what_ended_between_two_readings_is_counted_by_what_became_of_it(
    before: Reading, after: Reading, stable: tuple[int, int, int], canary: tuple[int, int, int]
) -> None:
    got = noted(before, after)
    assert (counts(got, STABLE), counts(got, CANARY)) == (stable, canary)
    assert {row.start for row in got.rows()} <= {MINUTE}


def test_one_reading_alone_gives_no_samples() -> None:
    found = Samples(STABLE, CANARY)
    found.note("r", reading(fast=100, canary=told(sent(100))), NOW)
    assert found.rows() == ()


def test_a_process_that_has_started_again_begins_anew() -> None:
    found = noted(reading(fast=5), reading(3.0, fast=50, canary=told(sent(50)), boot="b"))
    assert found.rows() == ()
    found.note("r", reading(63.0, fast=53, canary=told(sent(51)), boot="b"), NOW)
    assert (counts(found, STABLE), counts(found, CANARY)) == ((3, 0, 0), (1, 0, 0))


def test_a_replica_that_was_away_is_not_continued() -> None:
    found = Samples(STABLE, CANARY)
    found.note("r", reading(fast=5), NOW)
    found.keep(["another"])
    found.note("r", reading(160.0, fast=50), NOW)
    assert found.rows() == ()


def test_a_target_that_has_moved_is_counted_by_its_new_edges() -> None:
    moved = replace(reading(160.0, fast=9, canary=told()), latencies=Latencies(0.2, EDGES, (1, 1, 1, 2)))
    before = replace(reading(fast=9), latencies=Latencies(0.1, (0.04, 0.1, 0.3), (9, 9, 9, 9)))
    assert counts(noted(before, moved), STABLE) == (5, 2, 0)


@pytest.mark.parametrize(("was_taken_away", "want"), [(False, (9, 1, 5)), (True, (6, 1, 2))])
def test_a_replica_that_was_taken_away_excuses_what_could_not_reach_it(
    was_taken_away: bool, want: tuple[int, int, int]
) -> None:
    after = reading(160.0, canary=told(sent(3, late=1, unreachable=3, error=2)))
    assert counts(noted(reading(canary=told()), after, was_taken_away=was_taken_away), CANARY) == want


def test_of_every_replica_and_second_there_is_one_sample_at_most() -> None:
    found = noted(reading(), reading(105.0, fast=1000, canary=told(sent(700))))
    assert (counts(found, STABLE)[0], counts(found, CANARY)[0]) == (5, 5)
    for replica in ("s", "t"):
        found.note(replica, reading(), NOW)
        found.note(replica, reading(103.0, fast=50, canary=told()), NOW)
    assert counts(found, STABLE)[0] == 11
    short = noted(reading(), reading(100.2, fast=50, canary=told()))
    assert counts(short, STABLE)[0] == 1, "what ended is seen, however short it was"


def test_shares_of_many_are_drawn_and_not_rounded() -> None:
    """A tenth failed: of 300 samples about 30 have, and not none, though no second had a failure of its own."""
    found = Samples(STABLE, CANARY)
    for n in range(301):
        found.note("r", reading(100.0 + n, canary=told(beside=Beside(100 * n, 0, 10 * n))), NOW)
    samples, _, failed = counts(found, STABLE)
    assert samples == 300
    assert 10 <= failed <= 60, "within six standard deviations"


outcomes = st.tuples(*[st.integers(0, 400)] * 4)
intervals = st.lists(st.tuples(st.floats(0, 90), outcomes, outcomes), max_size=4)


def told_in_turn(parts: Sequence[tuple[float, tuple[int, ...], tuple[int, ...]]]) -> list[Reading]:
    """Return readings of one process, each with some requests more than the last."""
    answers, uptime_s, own, its = [reading(canary=told())], 100.0, [0] * 4, [0] * 4
    for span_s, more, more_its in parts:
        uptime_s += span_s
        own = [a + b for a, b in zip(own, more, strict=True)]
        its = [a + b for a, b in zip(its, more_its, strict=True)]
        split = sent(its[0], its[1], late=its[2], error=its[3])
        fast, slow, failed, rejected = own
        answers.append(reading(uptime_s, fast, slow, failed, rejected, told(split)))
    return answers


@given(intervals)
def test_samples_are_no_more_than_requests_and_seconds_of_one_kind_each_and_the_same_each_time(
    parts: list[tuple[float, tuple[int, ...], tuple[int, ...]]],
) -> None:
    found, again = Samples(STABLE, CANARY), Samples(STABLE, CANARY)
    for answer in told_in_turn(parts):
        found.note("r", answer, NOW)
        again.note("r", answer, NOW)
    assert found.rows() == again.rows()
    most_s = sum(max(1, round(span_s)) for span_s, *_ in parts)
    for revision, index in ((STABLE, 1), (CANARY, 2)):
        samples, slow, failed = counts(found, revision)
        everything = [sum(column) for column in zip(*(part[index] for part in parts), strict=True)] or [0] * 4
        failures = everything[2] + everything[3] if revision == STABLE else everything[3]
        assert samples <= min(most_s, sum(everything))
        assert (samples > 0) == (sum(everything) > 0)
        assert slow + failed <= samples
        assert failed <= failures
        assert slow <= sum(everything) - failures


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"uptime_s": float(2**62)}, id="an uptime of ages"),
        pytest.param({"rejected": MOST_COUNT - 1}, id="more requests than there are"),
        pytest.param({"latencies": Latencies(TARGET_S, EDGES, (MOST_COUNT - 1,) * 4)}, id="endless answers"),
        pytest.param({"canary": told(sent(MOST_COUNT - 1, MOST_COUNT - 1))}, id="endless answers of the canary"),
    ],
)
def test_whoever_lies_takes_no_memory_and_gives_no_more_samples_than_others(change: Mapping[str, Any]) -> None:
    after = replace(reading(105.0, fast=10**7, canary=told(sent(10**7))), **change)
    got = noted(reading(canary=told()), after)
    assert max(counts(got, STABLE)[0], counts(got, CANARY)[0]) <= MOST_SPAN_S


# what is kept


starts = st.integers(0, 60 * 24 * 3).map(lambda ago: MINUTE - ago * ANSWERS)
a_row = st.integers(0, 60).flatmap(
    lambda samples: st.tuples(st.just(samples), st.integers(0, samples), st.integers(0, samples))
)
kept = st.dictionaries(st.tuples(st.booleans(), starts), a_row, max_size=60)


def samples_of(rows: Mapping[tuple[bool, datetime], tuple[int, int, int]]) -> Samples:
    text = {
        "version": 1,
        "stable": STABLE,
        "canary": CANARY,
        "rows": [[is_stable, int(at.timestamp()), *row] for (is_stable, at), row in rows.items()],
    }
    return Samples.from_json(json.dumps(text))


@given(kept)
def test_what_is_kept_is_read_as_it_was(rows: dict[tuple[bool, datetime], tuple[int, int, int]]) -> None:
    found = samples_of(rows)
    again = Samples.from_json(found.to_json(NOW))
    assert (again.stable, again.canary) == (STABLE, CANARY)
    assert again.rows() == found.rows()
    assert again.to_json(NOW) == found.to_json(NOW)


@given(kept, st.lists(starts, max_size=3))
def test_coarser_rows_have_the_same_totals_on_either_side_of_a_step(
    rows: dict[tuple[bool, datetime], tuple[int, int, int]], began: list[datetime]
) -> None:
    found = samples_of(rows)
    before = found.rows()
    found.to_json(NOW, [at + timedelta(seconds=17) for at in began])
    for since in (datetime.min.replace(tzinfo=UTC), *(at + timedelta(seconds=17) for at in began)):
        assert totals(found.rows(), since) == totals(before, since)
    fine = [row for row in before if row.start >= NOW - FINE]
    assert [row for row in found.rows() if row.start >= NOW - FINE] == fine, "what is new stays as it is"
    old = [row.start for row in found.rows() if row.revision == STABLE and row.start < NOW - FINE - COHORT]
    quarters = {(at.date(), at.hour, at.minute // 15) for at in old}
    assert len(old) <= len(quarters) + len(began), "a row for each quarter of an hour, and for each step"


def totals(rows: Sequence[Answers], since: datetime) -> dict[str, list[int]]:
    found = {STABLE: [0, 0, 0], CANARY: [0, 0, 0]}
    for row in rows:
        if row.start >= since:
            found[row.revision] = [
                a + b for a, b in zip(found[row.revision], (row.samples, row.slow, row.failed), strict=True)
            ]
    return found


def test_a_week_of_minutes_fits_and_nothing_of_it_is_lost() -> None:
    minutes = 7 * 24 * 60
    found = samples_of({(side, MINUTE - n * ANSWERS): (60, 1, 1) for n in range(minutes) for side in (True, False)})
    text = found.to_json(NOW)
    assert len(text.encode()) <= MOST_BYTES
    assert counts(Samples.from_json(text), STABLE) == (60 * minutes, minutes, minutes)


def test_of_what_does_not_fit_the_oldest_is_left_out() -> None:
    count = 2000
    found = samples_of({(True, MINUTE - n * COHORT): (900, 900, 900) for n in range(2 * count)})
    text = found.to_json(NOW)
    assert len(text.encode()) <= MOST_BYTES
    rows = Samples.from_json(text).rows()
    assert count // 2 < len(rows) < 2 * count
    assert rows == found.rows()[-len(rows) :]


def changed(**change: Any) -> str:
    good = {"version": 1, "stable": STABLE, "canary": CANARY, "rows": [[True, 1767268800, 5, 1, 1]]}
    return json.dumps(good | change)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("{", id="half an object"),
        pytest.param("null", id="null"),
        pytest.param("[]", id="a list"),
        pytest.param('"text"', id="a text"),
        pytest.param("[" * 50_000, id="lists in lists without end"),
        pytest.param("{}", id="nothing of what it has to have"),
        pytest.param(changed(version=2), id="of a later version"),
        pytest.param(changed(rows=None), id="no rows"),
        pytest.param(changed(rows=7), id="a number for rows"),
        pytest.param(changed(rows=[[True, 1767268800, 5, 1]]), id="a row too short"),
        pytest.param(changed(rows=[[True, 1767268800, 5, 6, 0]]), id="more slow ones than samples"),
        pytest.param(changed(rows=[[True, 1767268800, 5, 0, 6]]), id="more failures than samples"),
        pytest.param(changed(rows=[[True, 1767268800, -1, -1, -1]]), id="fewer samples than none"),
        pytest.param(changed(rows=[[True, 1767268800, {}, 0, 0]]), id="an object for a count"),
        pytest.param(changed(rows=[[True, 1767268800, "many", 0, 0]]), id="a word for a count"),
        pytest.param(changed(rows=[[True, float("nan"), 5, 1, 1]]), id="at no time"),
        pytest.param(changed(rows=[[True, float("inf"), 5, 1, 1]]), id="at the end of all times"),
        pytest.param(changed(rows=[[True, 10**18, 5, 1, 1]]), id="later than any date"),
        pytest.param(changed(rows=[[True, 253402300740, 5, 1, 1]]), id="in the last minute of the last year"),
        pytest.param(changed(rows=[[True, -62135596800, 5, 1, 1]]), id="in the first minute of the first year"),
    ],
)
def test_what_nobody_has_kept_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Samples.from_json(text)


@given(st.text(max_size=60))
def test_no_text_raises_anything_else(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Samples.from_json(text)
