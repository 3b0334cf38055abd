"""Is a decayed revision left only where going back would help?"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from evenkeel_operator.decide.quality.cohorts import COHORT, Cohort
from evenkeel_operator.decide.quality.evidence import Objective
from evenkeel_operator.decide.quality.guard import Kept, Outcome, Served, watch
from evenkeel_operator.decide.quality.measures import Metric, classification

START = datetime(2026, 1, 5, tzinfo=UTC)
HORIZON = timedelta(hours=1)
NOW = START + timedelta(days=2)
OBJECTIVE = Objective(classification(Metric.ACCURACY, 2), 0.9, 0.01, HORIZON)
STABLE = Served("new", START)
OLD = Served("old", START - timedelta(days=2), START)


def of(revision: str, first: int, count: int, hits: int) -> list[Cohort]:
    """Return cohorts of 20 labels from number `first` after START on, of which `hits` are right."""
    return [Cohort(revision, START + (first + i) * COHORT, (20, 0), (hits, 20 - hits, 0, 0)) for i in range(count)]


GOOD_OLD = of("old", -100, 100, 19)
BAD = of("new", 0, 60, 14)
NEVER_GOOD = [row for n in range(0, 98, 7) for row in (*of("new", n, 2, 15), *of("new", n + 2, 5, 19))]
"""0.893 in all: after each bad half-hour the detector comes to rest in a good one."""


@pytest.mark.parametrize(
    ("earlier", "rows", "last_rollback", "want"),
    [
        pytest.param([OLD], GOOD_OLD + of("new", 0, 100, 19), None, (Outcome.QUIET, None, False), id="all is well"),
        pytest.param([OLD], GOOD_OLD, None, (Outcome.QUIET, None, False), id="no label is no decay"),
        pytest.param([OLD], GOOD_OLD + BAD, None, (Outcome.ROLL_BACK, "old", False), id="bad since it serves"),
        pytest.param([], GOOD_OLD + BAD, None, (Outcome.DECAYED, None, True), id="nothing to go back to"),
        pytest.param(
            [OLD],
            GOOD_OLD + of("new", 0, 100, 19) + of("new", 100, 60, 14),
            None,
            (Outcome.DECAYED, None, True),
            id="good for a day and then bad: the data have changed",
        ),
        pytest.param(
            [OLD],
            GOOD_OLD + NEVER_GOOD + of("new", 98, 60, 14),
            None,
            (Outcome.ROLL_BACK, "old", False),
            id="below its floor for a day, with good hours between, and then worse: its own fault",
        ),
        pytest.param(
            [OLD],
            of("old", -100, 40, 19) + of("old", -60, 60, 14) + BAD,
            None,
            (Outcome.DECAYED, None, True),
            id="the one before had decayed too",
        ),
        pytest.param(
            [Served("older", START - timedelta(days=4), START - timedelta(days=2))],
            BAD,
            None,
            (Outcome.DECAYED, None, True),
            id="nothing is known of the one before",
        ),
        pytest.param(
            [OLD],
            GOOD_OLD + BAD + of("old", 0, 10, 14),
            None,
            (Outcome.DECAYED, None, True),
            id="the one before is as bad in the same hours",
        ),
        pytest.param(
            [OLD],
            GOOD_OLD + BAD,
            NOW - timedelta(hours=1),
            (Outcome.DECAYED, None, False),
            id="one rollback a day is enough",
        ),
    ],
)
def test_guard(
    earlier: list[Served], rows: list[Cohort], last_rollback: datetime | None, want: tuple[Outcome, str | None, bool]
) -> None:
    got = watch([OBJECTIVE], STABLE, earlier, rows, NOW, last_rollback)
    assert (got.outcome, got.target, got.is_drift_suspected) == want
    assert got.quarantine == ("new" if want[0] is Outcome.ROLL_BACK else None)


def test_labels_of_a_cohort_that_is_not_mature_raise_no_alarm() -> None:
    assert watch([OBJECTIVE], STABLE, [OLD], GOOD_OLD + BAD, START + HORIZON).outcome is Outcome.QUIET


def test_good_labels_take_an_alarm_back_only_when_they_prove_it() -> None:
    rows = GOOD_OLD + BAD + of("new", 60, 15, 19)
    assert watch([OBJECTIVE], STABLE, [OLD], rows, NOW).outcome is Outcome.ROLL_BACK


LONG_AGO = Kept(START - timedelta(days=20), START - timedelta(days=19), is_drift_suspected=True)
SERVES = Served("new", START - timedelta(days=30))


@pytest.mark.parametrize(
    ("kept", "rows", "want"),
    [
        pytest.param(LONG_AGO, [], (Outcome.DECAYED, True, None), id="no label of it is left"),
        pytest.param(
            LONG_AGO, of("new", 0, 10, 19), (Outcome.DECAYED, True, None), id="few labels say that it is good again"
        ),
        pytest.param(
            LONG_AGO,
            GOOD_OLD + BAD,
            (Outcome.DECAYED, True, None),
            id="it is as bad, and nobody knows how it was before",
        ),
        pytest.param(
            LONG_AGO, of("new", 0, 180, 20), (Outcome.QUIET, False, 0), id="it is shown to be above its floor again"
        ),
        pytest.param(
            LONG_AGO,
            of("new", 0, 80, 20) + of("new", 80, 90, 14),
            (Outcome.DECAYED, True, None),
            id="and has decayed once more",
        ),
        pytest.param(
            replace(LONG_AGO, resolved=START + 60 * COHORT), BAD, (Outcome.QUIET, False, 60), id="it was acknowledged"
        ),
        pytest.param(
            replace(LONG_AGO, resolved=START + 20 * COHORT),
            of("new", -100, 100, 19) + of("new", 0, 150, 14),
            (Outcome.DECAYED, True, None),
            id="and nothing was mended",
        ),
    ],
)
def test_an_alarm_stands_until_it_is_resolved(
    kept: Kept, rows: list[Cohort], want: tuple[Outcome, bool, int | None]
) -> None:
    got = watch([OBJECTIVE], SERVES, [OLD], rows, NOW, kept=[kept])
    (alarm,) = got.alarms
    assert (got.outcome, got.is_drift_suspected) == want[:2]
    assert alarm.stands is (want[2] is None)
    if want[2] is not None and want[2]:
        assert alarm.resolved == START + want[2] * COHORT


def test_what_an_alarm_was_is_the_same_however_often_it_was_looked_at() -> None:
    """At once over all labels, and each hour with what was kept an hour before."""
    rows = of("new", 0, 60, 14) + of("new", 60, 110, 20) + of("new", 170, 20, 14)
    at_once, kept, moments = watch([OBJECTIVE], STABLE, [], rows, NOW + timedelta(days=1)), None, []
    for hour in range(1, 73):
        (alarm,) = watch([OBJECTIVE], STABLE, [], rows, START + timedelta(hours=hour), kept=[kept]).alarms
        if alarm.raised is not None:
            kept = Kept(alarm.began or alarm.raised, alarm.raised, True, alarm.resolved)
            moments.append((alarm.raised, alarm.resolved))
    assert moments[-1] == (at_once.alarms[0].raised, at_once.alarms[0].resolved)
    assert {resolved is None for _, resolved in moments} == {True, False}
