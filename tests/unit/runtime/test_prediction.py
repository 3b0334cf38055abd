"""Does a receipt say the class and the confidence that the answer's tensors say, whatever the classes are?"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from evenkeel_runtime.config import Model
from evenkeel_runtime.models.inspect import recognise
from evenkeel_runtime.models.recognised import recognised
from evenkeel_runtime.receipts import SCALE
from evenkeel_runtime.serve.prediction import Prediction, prediction_of
from tests.unit.runtime.skops_files import LABELS, ROWS, dumped
from tests.unit.runtime.statedicts import CLASSES, bundle, single, torchvision_module


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


def test_a_state_dict_predicts_the_classes_that_its_file_names() -> None:
    names = [f"kind {number}" for number in range(CLASSES)]
    told = {"architecture": "squeezenet1_1", "num_classes": str(CLASSES), "classes": json.dumps(names)}
    (held,) = bundle(single(torchvision_module(), **told)).files.values()
    loaded = recognised(held.stream, held.size, Model("Auto", "", False), held.view).load("cpu")
    prediction = prediction_of(loaded.signature, loaded.parameters)
    assert prediction is not None
    assert (prediction.classes, prediction.names, prediction.told_names) == (CLASSES, tuple(names), tuple(names))


@pytest.mark.parametrize(
    ("names", "is_told"),
    [
        pytest.param(["ash", "日本"], True, id="distinct"),
        pytest.param(["crane", "crane"], False, id="one of two classes"),
        pytest.param(["ash", ""], False, id="empty"),
        pytest.param(["ash", "y" * 1025], False, id="endless"),
        pytest.param(["ash", "y\0"], False, id="with a zero"),
        pytest.param([f"{number:01000}" for number in range(1100)], False, id="too long together"),
    ],
)
def test_names_that_labels_cannot_use_are_not_told(names: list[str], is_told: bool) -> None:
    assert Prediction(0, len(names), tuple(names)).told_names == (tuple(names) if is_told else ())
