"""Does a canary get the verdict that its rows deserve, whoever slept meanwhile, and is it told with its numbers?"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel_operator.decide.quality import story
from evenkeel_operator.decide.quality.cohorts import COHORT, Answers, Cohort, Pairs
from evenkeel_operator.decide.quality.evidence import Objective
from evenkeel_operator.decide.quality.measures import Metric, classification
from evenkeel_operator.decide.quality.verdict import OnMissingLabels, Progress, Rows, Rules, State, Step, Why, judge
from evenkeel_operator.decide.snapshot import NO_SIGNAL
from evenkeel_runtime.receipts import Assignment

START = datetime(2026, 1, 5, tzinfo=UTC)
HORIZON = timedelta(hours=1)
DRAWN = {"old": Assignment.STABLE, "new": Assignment.CANARY}
OBJECTIVE = Objective(classification(Metric.ACCURACY, 2), 0.5, 0.05, HORIZON)
RULES = Rules((Step(10), Step(50)), (OBJECTIVE,))
FIRST = Progress(True, True, (START,))
LAST = Progress(True, True, (START, START + COHORT))
SOON = START + timedelta(minutes=6)
DAY = START + timedelta(days=1)


def labelled(stable: int, canary: int, count: int = 80) -> tuple[Cohort, ...]:
    """Return `count` cohorts of 40 labels of either revision, of which so many are right."""
    return tuple(
        Cohort(name, START + i * COHORT, (40, 0), (hits, 40 - hits, 0, 0), DRAWN[name])
        for i in range(count)
        for name, hits in (("old", stable), ("new", canary))
    )


def unlabelled(canary: tuple[int, int] = (20, 20)) -> tuple[Cohort, ...]:
    return tuple(
        Cohort(name, START + i * COHORT, predictions, (0,) * 4, DRAWN[name])
        for i in range(8)
        for name, predictions in (("old", (20, 20)), ("new", canary))
    )


def answered(failed: int = 0, slow: int = 0) -> tuple[Answers, ...]:
    """Return half an hour of samples, 60 a minute of the canary, of which so many failed or were slow."""
    return tuple(
        row
        for i in range(30)
        for row in (
            Answers("old", START + timedelta(minutes=i), 540, 0, 0),
            Answers("new", START + timedelta(minutes=i), 60, slow, failed),
        )
    )


def rows(cohorts: tuple[Cohort, ...] = (), answers: tuple[Answers, ...] = ()) -> Rows:
    return Rows("old", "new", cohorts, answers=answers)


FLOOR_90 = replace(RULES, objectives=(replace(OBJECTIVE, floor=0.9, margin=0.5),))
MISSING = {mode: replace(RULES, on_missing_labels=mode) for mode in OnMissingLabels}


def test_labels_are_not_missed_before_the_first_cohort_that_counts_could_have_any() -> None:
    hold = MISSING[OnMissingLabels.HOLD]
    quick = replace(hold, objectives=(replace(OBJECTIVE, horizon=timedelta(seconds=1)),))
    began = START + timedelta(minutes=5)  # so the first cohort that counts ends at 30 minutes
    progress = replace(FIRST, steps_began=(began,))
    known = rows(unlabelled(), answered())
    early = judge(quick, progress, known, began + timedelta(minutes=16))
    late = judge(quick, progress, known, START + timedelta(minutes=30, seconds=2))
    assert early.why is not Why.LABELS_MISSING
    assert (late.state, late.why) == (State.HELD, Why.LABELS_MISSING)


@pytest.mark.parametrize("mode", OnMissingLabels)
@pytest.mark.parametrize("pairs", [pytest.param(None, id="split"), pytest.param((), id="mirrored")])
def test_labels_that_nobody_knows_are_not_missing(mode: OnMissingLabels, pairs: tuple[Pairs, ...] | None) -> None:
    unknown = replace(rows(answers=answered()), pairs=pairs, counted_at=NO_SIGNAL)
    got = judge(MISSING[mode], LAST, unknown, DAY)
    assert (got.state, got.why, got.step) == (State.CANARY, Why.LABELS_UNKNOWN, 1)
    assert "nobody knows" in story.sentences(got)[0]


def test_a_canary_of_unknown_labels_goes_no_step_on_and_goes_back_if_it_fails() -> None:
    unknown = replace(rows(answers=answered()), counted_at=NO_SIGNAL)
    assert judge(RULES, FIRST, unknown, SOON).why is Why.LABELS_UNKNOWN
    assert judge(replace(RULES, objectives=()), FIRST, unknown, SOON).why is Why.STEP_PASSED
    failing = replace(rows(answers=answered(60)), counted_at=NO_SIGNAL)
    assert judge(RULES, FIRST, failing, SOON).why is Why.FAILING


def test_labels_count_that_were_mature_when_they_were_counted() -> None:
    known = rows(labelled(38, 20), answered())
    assert judge(RULES, LAST, known, DAY).state is State.ROLLED_BACK
    early = replace(known, counted_at=START + timedelta(minutes=70))
    got = judge(RULES, LAST, early, DAY)
    assert got.evidence is not None
    assert (got.state, got.evidence.labels) == (State.CANARY, 0)
    at_the_time = judge(RULES, LAST, known, START + timedelta(minutes=70))
    assert (got.state, got.why) == (at_the_time.state, at_the_time.why)


@pytest.mark.parametrize(
    ("stable", "canary", "want"),
    [
        pytest.param(0, 20, (State.ROLLED_BACK, Why.SLOW), id="the canary alone"),
        pytest.param(20, 20, (State.CANARY, Why.TESTING), id="both alike"),
        pytest.param(20, 10, (State.CANARY, Why.TESTING), id="the canary less"),
        pytest.param(4, 30, (State.ROLLED_BACK, Why.SLOW), id="stable within the budget, the canary not"),
    ],
)
def test_slow_answers_that_stable_shares_do_not_go_back(stable: int, canary: int, want: tuple[State, Why]) -> None:
    """Percent of the answers that are slow; 5 are allowed."""
    known = tuple(
        Answers(name, START + timedelta(minutes=i), 100, slow, 0)
        for i in range(120)
        for name, slow in (("old", stable), ("new", canary))
    )
    got = judge(replace(RULES, objectives=(), slow_budget=0.05), FIRST, rows(answers=known), START + timedelta(hours=2))
    assert (got.state, got.why) in (want, (State.CANARY, Why.STEP_PASSED) if want[0] is State.CANARY else want)


@pytest.mark.parametrize(
    ("rules", "progress", "known", "now", "want"),
    [
        pytest.param(RULES, Progress(), rows(), START, (State.PENDING, Why.NOT_PLACED, None), id="no node"),
        pytest.param(RULES, Progress(True), rows(), START, (State.WARMING, Why.STARTING, None), id="not ready yet"),
        pytest.param(
            RULES, Progress(True, True), rows(), START, (State.CANARY, Why.STEP_PASSED, 0), id="ready: the first step"
        ),
        pytest.param(RULES, FIRST, rows(), SOON, (State.CANARY, Why.TESTING, 0), id="no samples yet"),
        pytest.param(
            RULES,
            FIRST,
            rows(answers=answered()),
            START + timedelta(minutes=4),
            (State.CANARY, Why.TESTING, 0),
            id="enough samples, not enough time",
        ),
        pytest.param(
            RULES, FIRST, rows(answers=answered()), SOON, (State.CANARY, Why.STEP_PASSED, 1), id="a step is passed"
        ),
        pytest.param(
            RULES,
            FIRST,
            rows(answers=answered(failed=1)),
            SOON,
            (State.CANARY, Why.TESTING, 0),
            id="more failures than allowed, too few to prove it: no step",
        ),
        pytest.param(
            RULES, FIRST, rows(answers=answered(60)), SOON, (State.ROLLED_BACK, Why.FAILING, 0), id="it only fails"
        ),
        pytest.param(
            replace(RULES, slow_budget=0.01),
            FIRST,
            rows(answers=answered(slow=60)),
            SOON,
            (State.ROLLED_BACK, Why.SLOW, 0),
            id="it is only slow",
        ),
        pytest.param(
            RULES, FIRST, rows(labelled(38, 20)), DAY, (State.ROLLED_BACK, Why.WORSE, 0), id="worse waits for no step"
        ),
        pytest.param(
            FLOOR_90,
            FIRST,
            rows(labelled(38, 30)),
            DAY,
            (State.ROLLED_BACK, Why.BELOW_FLOOR, 0),
            id="below the floor that the stable revision meets",
        ),
        pytest.param(
            FLOOR_90,
            FIRST,
            rows(labelled(30, 30)),
            DAY,
            (State.HELD, Why.DRIFT_SUSPECTED, 0),
            id="below the floor as the stable revision is",
        ),
        pytest.param(
            RULES,
            FIRST,
            rows(labelled(38, 38)),
            DAY,
            (State.CANARY, Why.TESTING, 0),
            id="not worse, but steps are left to take",
        ),
        pytest.param(
            RULES,
            LAST,
            rows(labelled(38, 38), answered()),
            DAY,
            (State.PROMOTED, Why.NOT_WORSE, 1),
            id="not worse, in the last step",
        ),
        pytest.param(
            RULES,
            LAST,
            rows(labelled(38, 38)),
            DAY,
            (State.CANARY, Why.TESTING, 1),
            id="not worse, and nothing known of its answers",
        ),
        pytest.param(
            RULES,
            LAST,
            rows(labelled(38, 37, count=1), answered()),
            START + timedelta(days=8),
            (State.INCONCLUSIVE, Why.OUT_OF_TIME, 1),
            id="time is up",
        ),
        pytest.param(RULES, FIRST, rows(), DAY, (State.CANARY, Why.NO_TRAFFIC, 0), id="no request came"),
        pytest.param(
            MISSING[OnMissingLabels.HOLD],
            LAST,
            rows(unlabelled(), answered()),
            DAY,
            (State.HELD, Why.LABELS_MISSING, 1),
            id="no label: held",
        ),
        pytest.param(
            MISSING[OnMissingLabels.LATENCY_ONLY],
            LAST,
            rows(unlabelled((40, 0)), answered()),
            DAY,
            (State.PROMOTED, Why.ANSWERS_GOOD, 1),
            id="no label, and the spec is content with answers",
        ),
        pytest.param(
            MISSING[OnMissingLabels.PROXY],
            LAST,
            rows(unlabelled((40, 0)), answered()),
            DAY,
            (State.HELD, Why.PROXY_DIFFERS, 1),
            id="no label, and it predicts other classes",
        ),
        pytest.param(
            MISSING[OnMissingLabels.PROXY],
            LAST,
            rows(unlabelled(), answered()),
            DAY,
            (State.PROMOTED, Why.ANSWERS_GOOD, 1),
            id="no label, and it predicts the same classes",
        ),
        pytest.param(
            replace(RULES, objectives=()),
            LAST,
            rows(answers=answered()),
            DAY,
            (State.PROMOTED, Why.ANSWERS_GOOD, 1),
            id="no objective of accuracy",
        ),
    ],
)
def test_verdict(
    rules: Rules, progress: Progress, known: Rows, now: datetime, want: tuple[State, Why, int | None]
) -> None:
    got = judge(rules, progress, known, now)
    assert (got.state, got.why, got.step) == want
    assert got.quarantine == ("new" if want[0] is State.ROLLED_BACK else None)
    assert story.sentences(got)


def test_a_final_verdict_stands_whatever_comes_later() -> None:
    final = judge(RULES, LAST, rows(labelled(38, 38), answered()), DAY)
    assert judge(RULES, LAST, rows(labelled(38, 0)), DAY, final) is final


def test_a_refusal_before_the_promotion_counts_though_both_are_there_by_now() -> None:
    """Who slept finds evidence for both: first a bad day, then a very good one."""
    later = tuple(replace(row, start=row.start + 40 * COHORT) for row in labelled(20, 40, 400))
    got = judge(RULES, LAST, rows(labelled(38, 20, 40) + later, answered()), START + timedelta(days=6))
    assert got.state is State.ROLLED_BACK
    assert got.evidence is not None
    assert got.evidence.refused_at is not None
    assert got.evidence.refused_at < START + 40 * COHORT + HORIZON


ANSWERS_ONLY = replace(RULES, steps=(Step(50, timedelta(minutes=5), 600),), objectives=())


def of_answers(*minutes: tuple[int, int]) -> Rows:
    """Return a minute for each of these: the canary's samples and how many of them failed; none of stable's did."""
    return rows(
        answers=tuple(
            row
            for i, (samples, failed) in enumerate(minutes)
            for row in (
                Answers("old", START + timedelta(minutes=i), samples, 0, 0),
                Answers("new", START + timedelta(minutes=i), samples, 0, failed),
            )
        )
    )


@pytest.mark.parametrize(
    ("minutes", "want"),
    [
        pytest.param(
            [(60, 0)] * 6 + [(60, 60)] * 20,
            State.ROLLED_BACK,
            id="it fails once the step has lasted, before there were enough samples",
        ),
        pytest.param(
            [(60, 0)] * 6 + [(60, 60)] * 3 + [(60_000, 0)] * 20,
            State.ROLLED_BACK,
            id="so it did, and by now that is a small part of all",
        ),
        pytest.param(
            [(60, 0)] * 20 + [(60, 60)] * 20, State.ROLLED_BACK, id="it fails after nobody has looked when it was good"
        ),
        pytest.param([(60, 0)] * 20, State.PROMOTED, id="it never fails"),
    ],
)
def test_without_objectives_of_accuracy_one_that_fails_is_not_left_in_its_last_step(
    minutes: list[tuple[int, int]], want: State
) -> None:
    got = judge(ANSWERS_ONLY, FIRST, of_answers(*minutes), START + timedelta(hours=1))
    assert got.state is want


@given(seed=st.integers(0, 10**6), canary=st.integers(20, 40))
@settings(max_examples=5)
def test_rows_in_any_order_and_any_pieces_give_the_same_verdict(seed: int, canary: int) -> None:
    rng = random.Random(seed)
    whole = labelled(36, canary, 12)
    pieces = []
    for row in whole:
        part = tuple(rng.randint(0, int(n)) for n in row.labels)
        pieces.append(replace(row, predictions=(0, 0), labels=part))
        pieces.append(replace(row, labels=tuple(a - b for a, b in zip(row.labels, part, strict=True))))
    rng.shuffle(pieces)
    now = START + timedelta(hours=8)
    assert judge(RULES, LAST, rows(tuple(pieces)), now) == judge(RULES, LAST, rows(whole), now)


def test_a_verdict_is_told_with_its_numbers() -> None:
    told = " ".join(story.sentences(judge(RULES, FIRST, rows(labelled(38, 20)), DAY)))
    for want in (
        "rolled back",
        "canary 0.5000",
        "stable 0.9500",
        "margin 0.05",
        "a rollback reached 100",
        "Revision new",
    ):
        assert want in told, told


@pytest.mark.parametrize(
    ("stable", "canary", "is_told"),
    [
        pytest.param(38, 38, False, id="both meet their floor: it is nobody's question what counts"),
        pytest.param(28, 28, True, id="both miss it: it says why it does not count against the canary"),
    ],
)
def test_a_floor_that_does_not_count_is_told_where_something_speaks_for_it(
    stable: int, canary: int, is_told: bool
) -> None:
    told = " ".join(story.sentences(judge(FLOOR_90, FIRST, rows(labelled(stable, canary)), DAY)))
    assert ("It does not count" in told) == is_told, told
