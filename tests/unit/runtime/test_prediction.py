"""Does a receipt say the class and the confidence that the answer's tensors say, whatever the classes are?"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from evenkeel_runtime.models.inspect import recognise
from evenkeel_runtime.receipts import SCALE
from evenkeel_runtime.serve.prediction import prediction_of
from tests.unit.runtime.skops_files import LABELS, ROWS, dumped


@pytest.mark.parametrize(
    "classes",
    [
        pytest.param(np.array(["ash", "beech", "yew"]), id="text"),
        pytest.param(np.array(["žlutá", "", "日本"]), id="text that is not ASCII, or empty"),
        pytest.param(np.array([7, 3, 5]), id="numbers"),
        pytest.param(np.array([2.0, 1.0, 3.0]), id="numbers in floating point"),
    ],
)
@pytest.mark.parametrize(
    "estimator",
    [pytest.param(LogisticRegression(), id="sure"), pytest.param(RidgeClassifier(), id="does not say how sure")],
)
def test_a_classifier_of_scikit_learn_predicts(estimator: Any, classes: Any) -> None:
    estimator.fit(ROWS, classes[LABELS])
    data = dumped(estimator)
    found, archive = recognise(io.BytesIO(data), len(data))
    loaded = found.load(archive, memoryview(data), "cpu", frozenset())
    prediction = prediction_of(loaded.signature, loaded.parameters)
    assert prediction is not None
    assert prediction.names == tuple(map(str, estimator.classes_.tolist()))
    with torch.inference_mode():
        arrays = [np.asarray(answer) for answer in loaded.call(torch.from_numpy(ROWS.copy()))]
    got, confidences = prediction.many(arrays)
    assert [estimator.classes_[class_] for class_ in got] == estimator.predict(ROWS.copy()).tolist()
    if hasattr(estimator, "predict_proba"):
        want = estimator.predict_proba(ROWS.copy()).max(axis=1)
        assert confidences == pytest.approx((want * SCALE).tolist(), abs=2)
    else:
        assert set(confidences) == {0}
