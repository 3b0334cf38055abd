"""Is each metric the number that everybody else computes, and are its scores' means the metric?"""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as others

from evenkeel_operator.decide.quality import deviations, linearised
from evenkeel_operator.decide.quality.measures import Average, Measure, Metric, cell, classification, dot, regression
from evenkeel_operator.decide.snapshot import NO_SIGNAL

PREDICTED = [0, 0, 1, 1, 2, 2, 2, 1, 0, 2, 1, 0]
ACTUAL = [0, 1, 1, 1, 2, 0, 2, 2, 0, 2, 1, 0]


def counted(predicted: list[int], actual: list[int], classes: int) -> list[int]:
    counts = [0] * classes**2
    for p, a in zip(predicted, actual, strict=True):
        counts[cell(p, a, classes)] += 1
    return counts


@pytest.mark.parametrize(
    ("measure", "want"),
    [
        pytest.param(classification(Metric.ACCURACY, 3), others.accuracy_score(ACTUAL, PREDICTED), id="accuracy"),
        *(
            pytest.param(classification(metric, 3, average), of(ACTUAL, PREDICTED, average=word), id=f"{metric} {word}")
            for metric, of in [
                (Metric.PRECISION, others.precision_score),
                (Metric.RECALL, others.recall_score),
                (Metric.F1, others.f1_score),
            ]
            for average, word in [(Average.MACRO, "macro"), (Average.WEIGHTED, "weighted")]
        ),
        pytest.param(
            classification(Metric.F1, 3, Average.BINARY, positive=2),
            others.f1_score(ACTUAL, PREDICTED, average=None)[2],
            id="F1 of one class",
        ),
        pytest.param(
            classification(Metric.F1, 3, Average.MACRO, beta=2.0),
            others.fbeta_score(ACTUAL, PREDICTED, beta=2.0, average="macro"),
            id="F2, which counts a miss four times as much",
        ),
    ],
)
def test_metric_is_what_scikit_learn_computes(measure: Measure, want: float) -> None:
    got = measure.value(counted(PREDICTED, ACTUAL, 3))
    assert got == pytest.approx(want)


def test_what_never_occurred_is_not_zero() -> None:
    recall = classification(Metric.RECALL, 2, Average.BINARY)
    assert recall.value([7, 0, 2, 0]) is NO_SIGNAL
    assert classification(Metric.ACCURACY, 2).value([0, 0, 0, 0]) is NO_SIGNAL


@pytest.mark.parametrize("metric", [Metric.MAE, Metric.RMSE])
def test_errors_of_a_regression(metric: Metric) -> None:
    measure = regression(metric, cap=8.0)
    errors = [0.25, 1.35, 1.35, 4.05, 0.0, 100.0]
    counts = measure.counts(deviations.sums((math.frexp(e)[1], 1, e, e * e) for e in errors))
    capped = [min(e, 8.0) for e in errors]
    want = sum(capped) / 6 if metric is Metric.MAE else math.sqrt(sum(e * e for e in capped) / 6)
    got = measure.value(counts)
    assert isinstance(got, float)
    assert measure.to_objective(got) == pytest.approx(want)
    assert measure.from_objective(measure.to_objective(got)) == pytest.approx(got)
    shifted = measure.to_objective(got - measure.shift(got, 0.5))
    assert shifted == pytest.approx(want + 0.5), "a margin is a step of the error itself"


def test_a_number_is_refused_as_a_class() -> None:
    with pytest.raises(ValueError, match="regression"):
        classification(Metric.RMSE, 3)


MEASURES = [
    classification(Metric.ACCURACY, 2),
    classification(Metric.F1, 2, Average.BINARY),
    classification(Metric.PRECISION, 2, Average.BINARY),
    classification(Metric.RECALL, 2, Average.MACRO),
    classification(Metric.F1, 2, Average.MACRO),
    classification(Metric.F1, 2, Average.WEIGHTED),
]


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.name)
@given(counts=st.lists(st.integers(20, 400), min_size=4, max_size=4), shift=st.sampled_from([0.0, 0.01]))
@settings(max_examples=25)
def test_scores_have_the_metric_as_their_mean(measure: Measure, counts: list[int], shift: float) -> None:
    """With plug-ins from the very counts that are averaged, up to the few labels' worth of the prior."""
    known = [count * 10**6 for count in counts]
    plugin = linearised.learnt(measure, known, known, 0.9)
    assert plugin is not None
    scores = linearised.scores(measure, plugin, plugin.stable_sizes, shift)
    got = dot(scores, counts) / sum(counts)
    assert got == pytest.approx(shift, abs=1e-6)
    value = measure.value(counts)
    assert plugin.value == pytest.approx(value, abs=1e-6)


def test_sizes_are_learnt_before_they_are_used() -> None:
    f1 = classification(Metric.F1, 2, Average.BINARY)
    assert linearised.learnt(f1, [10, 2, 2, 10], [0] * 4, 0.9) is None
    assert linearised.learnt(f1, [20, 5, 5, 20], [0] * 4, 0.9) is not None
    assert linearised.learnt(classification(Metric.ACCURACY, 2), [0] * 4, [0] * 4, 0.9) is not None
