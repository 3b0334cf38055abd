"""Does the condition AccuracyMet say what the table in `accuracy` says, row by row, and the status the same?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from evenkeel_operator.api.modeldeployment import Spec
from evenkeel_operator.api.status import AccuracyStatus, Status
from evenkeel_operator.decide import accuracy
from evenkeel_operator.decide.accuracy import Quality, is_news, measure
from evenkeel_operator.decide.conditions import Row
from evenkeel_operator.decide.quality import deviations
from evenkeel_operator.decide.quality.cohorts import COHORT, Cohort
from evenkeel_operator.decide.quality.counted import NOTHING, Counted, Revision
from evenkeel_operator.decide.quality.floors import Interval
from evenkeel_operator.decide.quality.guard import Outcome, Served
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal
from tests.builders import modeldeployment

START = datetime(2026, 1, 5, tzinfo=UTC)
NOW = START + timedelta(days=3)
REVISION = "digits-new"
STABLE = Served(REVISION, START)
HORIZON = timedelta(hours=1)
ACCURACY = {"metric": "Accuracy", "floor": 0.9, "horizon": "1h"}
MAE = {"metric": "MAE", "ceiling": 3.0, "maxError": 16, "margin": 0.1, "horizon": "1h"}
RECALL = {"metric": "Recall", "floor": 0.5, "average": "Binary", "horizon": "1h"}


def spec(*objectives: Mapping[str, Any]) -> Spec:
    return Spec.model_validate(modeldeployment(objectives={"accuracy": list(objectives)})["spec"])


def counted(right: int, wrong: int, start: datetime = START, classes: int = 2) -> Counted:
    """Return labels of predictions of the first class, spread over ten cohorts."""
    rows = []
    for n in range(10):
        hits, misses = (total * (n + 1) // 10 - total * n // 10 for total in (right, wrong))
        labels = (hits, misses, *(0,) * (classes**2 - 2))
        rows.append(Cohort(REVISION, start + n * COHORT, (hits + misses, *(0,) * (classes - 1)), labels))
    return Counted({REVISION: Revision(REVISION, classes, (), tuple(rows), {})})


def found(right: int, wrong: int, *objectives: Mapping[str, Any], stable: Served | None = STABLE) -> Quality:
    return measure(spec(*(objectives or (ACCURACY,))).objectives.accuracy, counted(right, wrong), stable, NOW)


def decayed(quality: Quality) -> Quality:
    """Return a quality whose decay began with the revision, and could be undone."""
    assert quality.finding is not None
    return replace(quality, finding=replace(quality.finding, is_drift_suspected=False))


def numbers() -> Quality:
    known = Counted({REVISION: Revision(REVISION, 0, (), (), {})})
    return measure(spec(ACCURACY).objectives.accuracy, known, STABLE, NOW)


def of_numbers(error: float, *, labels: int = 2000, ceiling: float = 3.0) -> Quality:
    """Return the quality of a model whose errors are all alike; larger ones than 16 would count as that."""
    rows = tuple(
        Cohort(
            REVISION,
            START + n * COHORT,
            (labels // 10,),
            (labels // 10,),
            errors=deviations.sums(
                [(math.frexp(error)[1], labels // 10, labels // 10 * error, labels // 10 * error**2)]
            ),
        )
        for n in range(10)
    )
    known = Counted({REVISION: Revision(REVISION, 0, (), rows, {})})
    return measure(spec(MAE | {"ceiling": ceiling}).objectives.accuracy, known, STABLE, NOW)


TABLE = [
    pytest.param(lambda: found(1900, 100), True, "AboveFloor", "Accuracy is 0.9500", id="all above the floor"),
    pytest.param(lambda: found(120, 30), False, "BelowFloor", "Accuracy is 0.8000", id="one below the floor"),
    pytest.param(lambda: decayed(found(700, 300)), False, "Decayed", "it has decayed", id="an alarm"),
    pytest.param(
        lambda: found(700, 300), False, "DriftSuspected", "data seem to have changed", id="going back is no help"
    ),
    pytest.param(lambda: found(45, 5), None, "NotProven", "more labels will tell", id="neither"),
    pytest.param(lambda: found(0, 0), None, "LabelsMissing", "post them", id="no label counts yet"),
    pytest.param(lambda: found(9, 1, stable=None), None, "LabelsMissing", "post them", id="nothing serves yet"),
    pytest.param(
        lambda: replace(found(1900, 100), is_stale=True),
        None,
        "MetricsStale",
        "last known: Accuracy is 0.9500",
        id="the feedback service has stopped answering",
    ),
    pytest.param(
        lambda: replace(found(0, 0), is_stale=True),
        None,
        "MetricsStale",
        "last known: no label",
        id="it has stopped answering before there were labels",
    ),
    pytest.param(
        lambda: Quality(NO_SIGNAL, NOW), None, "MetricsMissing", "has not said yet", id="it has never answered"
    ),
    pytest.param(lambda: None, None, "MetricsMissing", "has not said yet", id="nobody has asked it yet"),
    pytest.param(numbers, None, "CannotBeJudged", "answers numbers", id="the labels are of something else"),
]


@pytest.mark.parametrize(("quality", "holds", "reason", "words"), TABLE)
def test_the_condition_follows_the_table(
    quality: Callable[[], Quality | None], holds: bool | None, reason: str, words: str
) -> None:
    (got,) = accuracy.rows(spec(ACCURACY), quality(), Status())
    assert (got.type, got.holds, got.reason) == ("AccuracyMet", holds, reason)
    assert words in got.message


@pytest.mark.parametrize(
    ("quality", "want", "reason"),
    [
        pytest.param(of_numbers(2.5), True, "AboveFloor", id="an error below its ceiling"),
        pytest.param(of_numbers(2.9, labels=50), None, "NotProven", id="an error about at it, by few labels"),
        pytest.param(of_numbers(3.5, labels=60), False, "BelowFloor", id="an error above it"),
        pytest.param(of_numbers(6.0), False, "DriftSuspected", id="an error far above it"),
    ],
)
def test_of_an_error_less_is_better(quality: Quality, want: bool | None, reason: str) -> None:
    (row,) = accuracy.rows(spec(MAE), quality, Status())
    assert (row.holds, row.reason) == (want, reason)
    assert "ceiling 3" in row.message
    (told,) = accuracy.status(spec(MAE), quality, Status())["accuracy"]
    assert (told["ceiling"], told["limit"], told.get("floor")) == (3.0, "<=3", None)
    assert told["lower"] <= told["observed"] <= told["upper"]


def test_an_error_in_a_small_unit_is_told_in_digits_and_not_as_nothing() -> None:
    small = spec(MAE | {"ceiling": 1e-5, "maxError": 1e-4, "margin": 1e-6})
    rows = Cohort(REVISION, START, (900,), (900,), errors=deviations.sums([(-16, 900, 900 * 1.2e-5, 900 * 1.44e-10)]))
    known = Counted({REVISION: Revision(REVISION, 0, (), (rows,), {})})
    quality = measure(small.objectives.accuracy, known, STABLE, NOW)
    (row,) = accuracy.rows(small, quality, Status())
    assert "MAE is 1.2e-05 (" in row.message
    (told,) = accuracy.status(small, quality, Status())["accuracy"]
    assert 0 < told["lower"] < told["observed"] == 1.2e-5 < told["upper"]


@pytest.mark.parametrize("classes", [0, 3], ids=["numbers", "other classes"])
def test_an_earlier_revision_that_answered_otherwise_is_nothing_to_go_back_to(classes: int) -> None:
    row = Cohort("digits-old", START - timedelta(days=2), (50,) * (classes or 1), (50,) * (classes**2 or 1))
    known = {**counted(700, 300).revisions, "digits-old": Revision("digits-old", classes, (), (row,), {})}
    before = Served("digits-old", START - timedelta(days=3), START)
    got = measure(spec(ACCURACY).objectives.accuracy, Counted(known), STABLE, NOW, (before,))
    assert got.finding is not None
    assert (got.finding.outcome, got.finding.target) == (Outcome.DECAYED, None)


def test_the_table_has_every_reason() -> None:
    assert accuracy.__doc__ is not None
    rows = [line.split("|") for line in accuracy.__doc__.splitlines() if line.startswith("|")][2:]
    told = {(cells[2].strip(), cells[3].strip()) for cells in rows}
    word = {"True": "True", "False": "False", "None": "Unknown"}
    assert told == {(word[str(case.values[1])], case.values[2]) for case in TABLE}


def met(*objectives: Mapping[str, Any], right: int = 1900, wrong: int = 100) -> Row:
    (row,) = accuracy.rows(spec(*objectives), found(right, wrong, *objectives), Status())
    return row


def test_a_horizon_that_an_earlier_release_has_let_be_stored_is_named() -> None:
    long = {"metric": "F1", "floor": 0.5, "horizon": "1000h"}
    got = met(ACCURACY | {"horizon": "720h"}, long)
    assert got.message.endswith(
        "; spec.objectives.accuracy of F1: horizon is 1000h, but labels are taken for 30 days (720h): shorten it"
    )
    assert "shorten it" not in met(ACCURACY | {"horizon": "720h"}).message


def test_every_objective_has_to_be_met_and_each_is_told() -> None:
    low = ACCURACY | {"metric": "F1", "average": "Weighted", "floor": 0.1}
    both = met(ACCURACY, low)
    assert (both.holds, both.reason) == (True, "AboveFloor")
    assert both.message.count("floor") == 2
    one = met(low, ACCURACY, right=120, wrong=30)
    assert (one.holds, one.reason) == (False, "BelowFloor")


def test_one_of_which_nothing_is_known_keeps_the_whole_from_being_met() -> None:
    """No label was ever of the positive class, so there is no recall."""
    got = met(ACCURACY, RECALL, right=1900, wrong=0)
    assert (got.holds, got.reason) == (None, "NotProven")


def test_only_labels_whose_horizon_has_passed_count() -> None:
    wanted = spec(ACCURACY).objectives.accuracy
    known = counted(1900, 100)
    for now, want in ((START + COHORT + HORIZON, 200), (START + 3 * COHORT + HORIZON, 600)):
        (before,) = measure(wanted, known, STABLE, now - timedelta(seconds=1)).intervals
        (got,) = measure(wanted, known, STABLE, now).intervals
        assert isinstance(got, Interval)
        assert got.labels == want
        assert isinstance(before, NoSignal) or before.labels == want - 200


# status


def test_without_an_objective_nothing_is_said() -> None:
    bare = Spec.model_validate(modeldeployment()["spec"])
    assert (accuracy.rows(bare, None, Status()), accuracy.status(bare, None, Status())) == ([], {})


@pytest.mark.parametrize(
    ("quality", "state"),
    [
        pytest.param(lambda: found(1900, 100), "Fresh", id="measured now"),
        pytest.param(lambda: replace(found(1900, 100), is_stale=True), "Stale", id="measured before"),
        pytest.param(lambda: found(0, 0), "NoLabels", id="no label counts yet"),
        pytest.param(numbers, "NoLabels", id="labels of something else"),
        pytest.param(lambda: Quality(NO_SIGNAL, NOW), "NoMetrics", id="nobody has answered"),
    ],
)
def test_the_status_has_a_row_for_each_objective(quality: Callable[[], Quality], state: str) -> None:
    (row,) = accuracy.status(spec(ACCURACY), quality(), Status())["accuracy"]
    read = AccuracyStatus.model_validate(row)
    assert (read.metric, read.state, read.floor, read.as_of) == ("Accuracy", state, 0.9, "2026-01-08T00:00:00Z")
    if state in ("Fresh", "Stale"):
        assert (read.observed, read.labels) == (0.95, 2000)
        assert read.lower is not None
        assert read.upper is not None
        assert 0.9 < read.lower < 0.95 < read.upper < 1.0
    else:
        assert {read.observed, read.lower, read.upper, read.labels} == {None}, "no signal is not zero"


@pytest.mark.parametrize(
    ("predictions", "want"),
    [
        pytest.param(
            (2000, 2000),
            {
                **{"share": 0.3, "least": {"class": "1", "share": 0.1}, "most": {"class": "0", "share": 0.5}},
                **{"skewed": True, "weighted": 0.85},
            },
            id="one class is labelled five times as often: the other's labels weigh five times as much",
        ),
        pytest.param(
            (2000, 400),
            {
                "share": 0.5,
                "least": {"class": "0", "share": 0.5},
                "most": {"class": "0", "share": 0.5},
                "skewed": False,
            },
            id="all classes alike",
        ),
        pytest.param((0, 0), None, id="no predictions were told"),
    ],
)
def test_the_status_says_what_the_labels_are_of(predictions: tuple[int, int], want: Mapping[str, Any] | None) -> None:
    row = Cohort(REVISION, START, predictions, (900, 100, 40, 160))
    known = Counted({REVISION: Revision(REVISION, 2, (), (row,), {})})
    found = measure(spec(ACCURACY).objectives.accuracy, known, STABLE, NOW)
    (told,) = accuracy.status(spec(ACCURACY), found, Status())["accuracy"]
    assert told.get("coverage") == want
    AccuracyStatus.model_validate(told)
    young = measure(spec(ACCURACY).objectives.accuracy, known, STABLE, START + HORIZON)
    assert "coverage" not in accuracy.status(spec(ACCURACY), young, Status())["accuracy"][0], "labels may still come"


def test_what_nobody_has_looked_at_yet_stays_as_it_was() -> None:
    told = accuracy.status(spec(ACCURACY), found(1900, 100), Status())
    before = Status.model_validate(told)
    assert accuracy.status(spec(ACCURACY), None, before) == told
    assert accuracy.status(spec(ACCURACY), None, Status()) == {}


@pytest.mark.parametrize(
    "objectives",
    [
        pytest.param([RECALL], id="another metric"),
        pytest.param([ACCURACY | {"floor": 0.5}], id="another floor"),
        pytest.param([RECALL, ACCURACY], id="one more before it"),
    ],
)
def test_what_was_measured_of_other_objectives_is_not_told_of_these(objectives: list[Mapping[str, Any]]) -> None:
    """The spec has changed since the last look."""
    asked, old = spec(*objectives), found(1900, 100)
    (row,) = accuracy.rows(asked, old, Status())
    assert (row.holds, row.reason) == (None, "MetricsMissing")
    told = accuracy.status(asked, old, Status())["accuracy"]
    assert [(r["metric"], r["state"]) for r in told] == [(o["metric"], "NoMetrics") for o in objectives]
    assert is_news(old, measure(asked.objectives.accuracy, counted(1900, 100), STABLE, NOW))


# alarms


@pytest.mark.parametrize(
    ("told", "newer", "want"),
    [
        pytest.param(lambda: None, lambda: Quality(NO_SIGNAL, NOW), True, id="the first look"),
        pytest.param(lambda: found(9, 1), lambda: found(9, 1), False, id="the same again"),
        pytest.param(
            lambda: found(9, 1), lambda: replace(found(9, 1), measured_at=NOW + COHORT), False, id="the same, later"
        ),
        pytest.param(lambda: found(9, 1), lambda: found(10, 1), True, id="a label more"),
        pytest.param(lambda: found(9, 1), lambda: replace(found(9, 1), is_stale=True), True, id="no answer any more"),
        pytest.param(
            lambda: found(9, 1), lambda: replace(found(9, 1), coverages=(None,)), True, id="predictions without labels"
        ),
        pytest.param(lambda: found(0, 0), numbers, True, id="a problem"),
        pytest.param(lambda: found(700, 300), lambda: decayed(found(700, 300)), True, id="another finding"),
        pytest.param(
            lambda: Quality(NO_SIGNAL, NOW), lambda: Quality(NO_SIGNAL, NOW + COHORT), False, id="still no answer"
        ),
        pytest.param(
            lambda: Quality(NO_SIGNAL, NOW), lambda: measure((), NOTHING, None, NOW), False, id="nothing is asked for"
        ),
    ],
)
def test_only_what_says_something_else_is_news(
    told: Callable[[], Quality | None], newer: Callable[[], Quality], want: bool
) -> None:
    assert is_news(told(), newer()) is want


def test_a_decay_is_found_by_the_detector_and_not_by_the_interval_alone() -> None:
    quality = found(700, 300)
    assert quality.finding is not None
    assert (quality.finding.outcome, quality.finding.is_drift_suspected) == (Outcome.DECAYED, True)


@pytest.mark.parametrize(
    ("horizon", "trial", "want"),
    [
        pytest.param("1h", None, 14, id="a fortnight"),
        pytest.param("240h", None, 20, id="twice a long horizon"),
        pytest.param("1h", ("Canary", 3), 14, id="a young trial"),
        pytest.param("1h", ("Held", 40), 42, id="all of a long trial, and some time before it"),
        pytest.param("1h", ("Promoted", 40), 14, id="a trial that is over"),
    ],
)
def test_labels_are_counted_since(horizon: str, trial: tuple[str, int] | None, want: int) -> None:
    """Days before now."""
    canary = None
    if trial is not None:
        began = (NOW - timedelta(days=trial[1])).isoformat().replace("+00:00", "Z")
        told = {"revision": "new", "stable": REVISION, "state": trial[0], "why": "Testing", "summary": "1/1 50%"}
        canary = {**told, "mode": "Split", "weight": 50, "began": began}
    got = accuracy.counted_since(
        spec({**ACCURACY, "horizon": horizon}), Status.model_validate({"canary": canary} if canary else {}), NOW
    )
    assert NOW - got == timedelta(days=want)
