"""Is a model of very many classes judged by its accuracy, in rows that its classes do not make larger?"""

from __future__ import annotations

import pytest

from evenkeel_operator.decide.quality.counted import MOST_CLASSES, objectives, read
from tests.unit.operator.decide.quality.test_counted import CANARY, STABLE, body, series, wanted

AT_S = 1_767_268_800


@pytest.mark.parametrize("classes", [MOST_CLASSES + 1, 1000])
def test_of_very_many_classes_the_accuracy_is_judged(classes: int) -> None:
    last = classes - 1
    confusion = {(AT_S, k, k): 3 for k in range(classes)} | {
        (AT_S, last, 0): 7,
        (AT_S, 0, last): 1,
    }
    told = series(
        classes=classes,
        predictions={(AT_S, k): 4 for k in range(classes)},
        confusion=confusion,
        pairs={(AT_S, CANARY, last, 1, last): 5, (AT_S, CANARY, 2, 1, last): 2},
        unlabelled_pairs={(AT_S, CANARY, last, 1): 4},
    )
    known = read(body(told))
    (objective,) = objectives(wanted({}), known, STABLE)
    (row,) = known.cohorts(STABLE)
    assert objective.measure.cells == len(row.labels) == 4
    assert objective.measure.value(row.labels) == pytest.approx(3 * classes / (3 * classes + 8))
    assert known.revisions[STABLE].coverage([row]).total == pytest.approx((3 * classes + 8) / (4 * classes))
    (pair,) = known.pairs(STABLE, CANARY)
    assert pair.labels == {(0, 1): 5, (1, 1): 2}
    assert pair.unlabelled == {(last % MOST_CLASSES, 1): 4}
    assert len(row.predictions) == MOST_CLASSES
