"""Does an alarm on a quality stand until it is over, whatever becomes of its labels?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from evenkeel_operator.api.status import Status
from evenkeel_operator.decide import accuracy, standing
from evenkeel_operator.decide.accuracy import Quality, measure
from evenkeel_operator.decide.snapshot import NO_SIGNAL
from tests.unit.operator.decide.test_accuracy import (
    ACCURACY,
    MAE,
    NOW,
    REVISION,
    STABLE,
    counted,
    found,
    of_numbers,
    spec,
)

SERVED = {"served": [{"revision": REVISION, "since": "2026-01-05T00:00:00Z"}]}
ALARM = {
    "revision": REVISION,
    "since": "2026-01-05T00:00:00Z",
    "reason": "DriftSuspected",
    "began": "2026-01-05T00:00:00Z",
    "raised": "2026-01-05T01:00:00Z",
}
OF_ANOTHER = ALARM | {"revision": "digits-old"}


def after(alarm: Mapping[str, Any] | None, floor: float = 0.9) -> Status:
    """Return a status in which an alarm is kept."""
    row = {"metric": "Accuracy", "state": "Fresh", "floor": floor, "asOf": "2026-01-06T00:00:00Z"}
    return Status.model_validate({**SERVED, "accuracy": [row if alarm is None else row | {"alarm": alarm}]})


def again(before: Status, right: int, wrong: int, acknowledged: str | None = None) -> Quality:
    """Return what is found by labels of another day, with what the status has kept."""
    asked, known = spec(ACCURACY), counted(right, wrong, NOW - timedelta(hours=6))
    kept = standing.kept(asked, before, acknowledged, NOW)
    return measure(asked.objectives.accuracy, known, STABLE, NOW, kept=kept)


@pytest.mark.parametrize(
    ("before", "quality", "want"),
    [
        pytest.param(after(ALARM), lambda b: again(b, 0, 0), "DriftSuspected", id="its labels are looked at no longer"),
        pytest.param(after(ALARM), lambda b: again(b, 45, 5), "DriftSuspected", id="few labels have come since"),
        pytest.param(after(ALARM), lambda b: None, "DriftSuspected", id="the operator has just started"),
        pytest.param(
            after(ALARM),
            lambda b: Quality(NO_SIGNAL, NOW),
            "DriftSuspected",
            id="the feedback service has not answered",
        ),
        pytest.param(
            after(ALARM),
            lambda b: replace(again(b, 45, 5), is_stale=True),
            "DriftSuspected",
            id="the feedback service answers no more",
        ),
        pytest.param(
            after(ALARM | {"reason": "Decayed"}), lambda b: None, "Decayed", id="it is the revision that has decayed"
        ),
        pytest.param(
            after(ALARM), lambda b: again(b, 9900, 100), "AboveFloor", id="the metric is above its floor again"
        ),
        pytest.param(
            after(ALARM | {"resolved": "2026-01-06T00:00:00Z"}),
            lambda b: again(b, 0, 0),
            "LabelsMissing",
            id="it is over",
        ),
        pytest.param(after(OF_ANOTHER), lambda b: again(b, 0, 0), "LabelsMissing", id="it was of another revision"),
        pytest.param(after(ALARM, 0.8), lambda b: again(b, 0, 0), "LabelsMissing", id="it was of another floor"),
        pytest.param(
            after(ALARM),
            lambda b: again(b, 0, 0, "2026-01-05T01:00:00Z"),
            "LabelsMissing",
            id="a person has acknowledged it",
        ),
        pytest.param(
            after(ALARM),
            lambda b: again(b, 0, 0, "2026-01-05T00:59:59Z"),
            "DriftSuspected",
            id="a person has acknowledged one before it",
        ),
        pytest.param(
            after(ALARM),
            lambda b: again(b, 0, 0, "2027-01-05T01:00:00Z"),
            "DriftSuspected",
            id="a person has acknowledged what nobody has seen yet",
        ),
        pytest.param(after(ALARM), lambda b: again(b, 0, 0, "yes"), "DriftSuspected", id="at no time"),
        pytest.param(
            after(ALARM), lambda b: again(b, 0, 0, "2026-01-07"), "DriftSuspected", id="at a time without zone"
        ),
    ],
)
def test_an_alarm_is_told_until_it_is_over(
    before: Status, quality: Callable[[Status], Quality | None], want: str
) -> None:
    known = quality(before)
    (got,) = accuracy.rows(spec(ACCURACY), known, before)
    assert got.reason == want
    told = Status.model_validate({**SERVED, **accuracy.status(spec(ACCURACY), known, before)})
    (again_got,) = accuracy.rows(spec(ACCURACY), None, told)
    assert (again_got.reason in ("DriftSuspected", "Decayed")) == (want in ("DriftSuspected", "Decayed")), (
        "what is kept"
    )


def test_an_alarm_says_what_ends_it() -> None:
    (got,) = accuracy.rows(spec(ACCURACY), None, after(ALARM), "tomorrow")
    assert "evenkeel.dev/acknowledge=2026-01-05T01:00:00Z" in got.message
    assert "which is 'tomorrow' and no time" in got.message
    (got,) = accuracy.rows(spec(ACCURACY), None, after(ALARM), "2027-01-05T01:00:00Z", NOW)
    assert "shown to be above its floor" in got.message
    assert "which is '2027-01-05T01:00:00Z' and still to come" in got.message
    (kept,) = accuracy.status(spec(ACCURACY), found(700, 300), Status.model_validate(SERVED))["accuracy"]
    assert kept["alarm"]["reason"] == "DriftSuspected"
    assert set(kept["alarm"]) == set(ALARM)


@pytest.mark.parametrize(("ceiling", "is_kept"), [(3.0, True), (8.0, False)])
def test_an_alarm_on_an_error_is_over_when_the_spec_has_another_ceiling(ceiling: float, is_kept: bool) -> None:
    told = accuracy.status(spec(MAE), of_numbers(6.0), Status.model_validate(SERVED))
    before, asked = Status.model_validate({**SERVED, **told}), spec(MAE | {"ceiling": ceiling})
    (row,) = accuracy.rows(asked, None, before)
    assert (row.reason == "DriftSuspected") == is_kept
    assert ("shown to be below its ceiling" in row.message) == is_kept
    (kept,) = standing.kept(asked, before, None, NOW)
    assert (kept is not None) == is_kept
    (row_told,) = accuracy.status(asked, Quality(NO_SIGNAL, NOW), before)["accuracy"]
    assert ("alarm" in row_told) == is_kept
