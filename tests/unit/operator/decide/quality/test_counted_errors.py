"""Are the errors of numbers read as the feedback service meant them, and is nothing else taken for them?"""

from __future__ import annotations

import json

import pytest

from evenkeel_operator.decide.quality import cohorts
from evenkeel_operator.decide.quality.cohorts import COHORT
from evenkeel_operator.decide.quality.counted import Unjudgeable, objectives, read
from evenkeel_operator.feedback.records import COHORT_S, Errors
from tests.unit.operator.decide.quality.test_counted import AT, AT_S, STABLE, body, series, wanted

ERRORS = (
    {"metric": "MAE", "ceiling": 3.5, "maxError": 20, "margin": 0.2},
    {"metric": "RMSE", "ceiling": 5, "maxError": 20, "margin": 0.3},
)


def test_of_numbers_the_sums_of_their_errors_are_read() -> None:
    told = {AT_S: [(0, 2, 0.5, 0.25), (4, 1, 9.0, 81.0)], AT_S + COHORT_S: [(1, 1, 1.5, 2.25)]}
    got = read(body(series(classes=0, predictions={(AT_S, 0): 5}, errors=Errors(4, 11.0, 83.5), deviations=told)))
    first, second = got.cohorts(STABLE)
    assert (got.revisions[STABLE].classes, first.start, first.predictions, first.labels) == (0, AT, (5,), (3,))
    assert (second.start, second.predictions, second.labels) == (AT + COHORT, (0,), (1,))
    mae, rmse = objectives(wanted(*ERRORS), got, STABLE)
    for objective, want in ((mae, (0.5 + 9.0) / 3), (rmse, (81.25 / 3) ** 0.5)):
        (row, _) = cohorts.counted_by(objective.measure, got.cohorts(STABLE))
        value = objective.measure.value(row.labels)
        assert isinstance(value, float)
        assert objective.measure.to_objective(value) == pytest.approx(want)
    assert (mae.floor, mae.margin, mae.measure.cap) == (3.5, 0.2, 32.0)


def test_a_service_that_tells_no_deviations_is_not_taken_for_one_without_labels() -> None:
    row = {"start": AT_S, "errors": {"count": 3, "absolute": 1.5, "squared": 2.5}}
    told = {"revision": STABLE, "assignment": "Unassigned", "classes": 0, "cohorts": [row]}
    with pytest.raises(ValueError, match="upgrade it"):
        read(json.dumps({"revisions": [told]}).encode())


@pytest.mark.parametrize(
    ("of_errors", "classes", "want"),
    [
        pytest.param(True, 2, "answers classes; MAE and RMSE are of numbers", id="an error of classes"),
        pytest.param(False, 0, "ask for MAE or RMSE", id="a share of numbers"),
    ],
)
def test_a_metric_of_the_other_kind_cannot_be_judged(of_errors: bool, classes: int, want: str) -> None:
    asked = wanted(*ERRORS) if of_errors else wanted({"metric": "F1", "floor": 0.9})
    with pytest.raises(Unjudgeable, match=want):
        objectives(asked, read(body(series(classes=classes))), STABLE)
