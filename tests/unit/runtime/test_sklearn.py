"""Are skops files served as scikit-learn answers, described without being built, and refused by name where hostile?"""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from evenkeel_runtime.config import Model
from evenkeel_runtime.contract import Reason, Tensor
from evenkeel_runtime.engine.calibrate import calibrate
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.models.inspect import recognise
from evenkeel_runtime.models.loaded import Loaded, Signature
from tests.unit.runtime.inspected import inspect
from tests.unit.runtime.skops_files import (
    FEATURES,
    HOSTILE,
    LABELS,
    ROWS,
    TARGET,
    attribute,
    dumped,
    edited,
    good,
    node,
    zipped,
)

TREE = "sklearn.tree._tree.Tree"
TRUSTED = (TREE, "sklearn.metrics._scorer._PassthroughScorer", "sklearn.model_selection._split.StratifiedKFold")
TEXT = np.array(["ash", "beech", "yew"])
PROBABILITIES = Tensor("probabilities", "FP64", (-1, 3))
LABEL = Tensor("label", "INT64", (-1,))


def opened(data: bytes, *trusted: str) -> tuple[Signature, Loaded]:
    """Inspect as `prepare` does, then load as the server does."""
    model = Model("Auto", "", False, trusted_types=frozenset(trusted))
    found, signature = inspect(io.BytesIO(data), len(data), model)
    assert found.name == "Sklearn"
    _, archive = recognise(io.BytesIO(data), len(data))
    return signature, found.load(archive, memoryview(data), "cpu", model.trusted_types)


def refusal(data: bytes, *trusted: str) -> str:
    with pytest.raises(ModelError) as refused:
        opened(data, *trusted)
    assert refused.value.reason == Reason.FORMAT_REFUSED
    return refused.value.message


CLASSIFIERS = {
    "a pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
    "a scaler that writes over its input": make_pipeline(StandardScaler(copy=False), LogisticRegression()),
    "no probabilities": RidgeClassifier(),
    "no probabilities, as it was told": SVC(),
    "the best of a search": GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {}, cv=2),
    "one against the rest": OneVsRestClassifier(LogisticRegression()),
    "an ensemble that was trained in two processes": RandomForestClassifier(4, n_jobs=2, random_state=0),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize(
    ("classes", "first"),
    [
        pytest.param(np.array([0, 1, 2]), LABEL, id="numbers"),
        pytest.param(TEXT, Tensor("label", "BYTES", (-1,)), id="text"),
    ],
)
def test_classifier_answers_as_scikit_learn_does(name: str, classes: Any, first: Tensor) -> None:
    estimator = CLASSIFIERS[name].fit(ROWS, classes[LABELS])
    signature, loaded = opened(dumped(estimator), *TRUSTED)
    has_probabilities = hasattr(estimator, "predict_proba")
    assert signature.inputs == (Tensor("input", "FP64", (-1, FEATURES)),)
    assert signature.outputs == loaded.signature.outputs == (first, PROBABILITIES)[: 1 + has_probabilities]
    assert loaded.parameters["classes"] == classes.tolist()
    assert signature.classes == loaded.signature.classes == tuple(str(name) for name in classes.tolist())
    with torch.inference_mode():
        label, *rest = loaded.call(torch.from_numpy(ROWS.copy()))
    got = [text.decode() for text in np.asarray(label)] if first.datatype == "BYTES" else label.tolist()
    assert got == estimator.predict(ROWS.copy()).tolist()
    for probabilities in rest:
        np.testing.assert_allclose(probabilities.numpy(), estimator.predict_proba(ROWS.copy()), atol=1e-12)


@pytest.mark.parametrize(
    ("estimator", "target", "output"),
    [
        pytest.param(LinearRegression(), TARGET, Tensor("prediction", "FP64", (-1,)), id="a number"),
        pytest.param(
            LinearRegression(), np.stack([TARGET, -TARGET], 1), Tensor("prediction", "FP64", (-1, 2)), id="two numbers"
        ),
        pytest.param(
            TransformedTargetRegressor(LinearRegression(), func=np.log1p, inverse_func=np.expm1),
            TARGET - TARGET.min(),
            Tensor("prediction", "FP64", (-1,)),
            id="the number that a function of numpy makes of it",
        ),
        pytest.param(KMeans(3, n_init=1, random_state=0), None, LABEL, id="a cluster"),
        pytest.param(IsolationForest(n_estimators=4, random_state=0), None, LABEL, id="1, or -1 for an outlier"),
        pytest.param(LogisticRegression(), LABELS.astype(float), Tensor("label", "FP64", (-1,)), id="a class 1.0"),
    ],
)
def test_others_answer_as_scikit_learn_does(estimator: Any, target: Any, output: Tensor) -> None:
    estimator.fit(ROWS, target)
    signature, loaded = opened(dumped(estimator), TREE, "sklearn.tree._classes.ExtraTreeRegressor")
    assert signature.outputs[0] == loaded.signature.outputs[0] == output
    (got, *_) = loaded.call(torch.from_numpy(ROWS))
    np.testing.assert_allclose(got.numpy(), estimator.predict(ROWS), atol=1e-9)


def test_rows_share_a_call_where_they_can_be_tried_out() -> None:
    _, loaded = opened(good())
    assert calibrate(loaded, 1, 256).max_rows > 1


def test_an_encoder_of_numbers_is_served_without_being_tried_out() -> None:
    whole = np.round(ROWS)
    estimator = make_pipeline(OneHotEncoder(sparse_output=False), LogisticRegression()).fit(whole, LABELS)
    _, loaded = opened(dumped(estimator))
    assert loaded.signature.example is None
    assert (loaded.call(torch.from_numpy(whole))[0].numpy() == estimator.predict(whole)).all()


def test_compressed_files_are_read() -> None:
    import skops.io

    estimator = LogisticRegression().fit(ROWS, LABELS)
    _, loaded = opened(skops.io.dumps(estimator, compression=zipfile.ZIP_DEFLATED))
    assert (loaded.call(torch.from_numpy(ROWS))[0].numpy() == estimator.predict(ROWS)).all()


def test_names_of_columns_are_told_and_not_asked_for() -> None:
    estimator = LogisticRegression().fit(ROWS, LABELS)
    estimator.feature_names_in_ = np.array([f"x{index}" for index in range(FEATURES)], dtype=object)
    _, loaded = opened(dumped(estimator))
    assert loaded.parameters["features"] == [f"x{index}" for index in range(FEATURES)]
    loaded.call(torch.from_numpy(ROWS))  # warnings are errors here


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_and_nothing_runs(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    data = HOSTILE[name].build(good(), canary)
    message = refusal(data)
    for word in HOSTILE[name].words:
        assert word in message
    assert not canary.exists()


def test_a_tree_needs_the_specs_word_and_no_other_will_do() -> None:
    data = dumped(RandomForestClassifier(2).fit(ROWS, LABELS))
    for trusted in ((), ("sklearn.tree._tree",), ("sklearn.tree._tree.Tree2",)):
        assert f"not trusted by themselves: {TREE}; " in refusal(data, *trusted)
    opened(data, TREE)


def test_the_server_builds_nothing_untrusted_whoever_calls_it() -> None:
    data = dumped(RandomForestClassifier(2).fit(ROWS, LABELS))
    found, archive = recognise(io.BytesIO(data), len(data))
    with pytest.raises(ModelError, match="not trusted"):
        found.load(archive, memoryview(data), "cpu", frozenset())


def test_a_trusted_type_that_is_not_here_is_named_before_a_replica_exists() -> None:
    data = attribute(lambda canary: node("ObjectNode", "their_package.steps.Step"))(good(), Path())
    assert "does not have their_package.steps.Step" in refusal(data, "their_package.steps.Step")


def test_a_format_is_recognised_by_content_only() -> None:
    below_a_folder = edited(lambda members, canary: None)(good(), Path())
    members = {f"m/{name}": content for name, content in _members(below_a_folder).items()}
    with pytest.raises(ModelError, match="no exported model"):
        recognise(io.BytesIO(zipped(members)), len(zipped(members)))


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def by_name() -> Any:
    return ColumnTransformer([("x", StandardScaler(), ["height", "weight"])])


BESIDE_THE_POINT = {
    "an estimator that is not fitted": (LogisticRegression(), "fit it before"),
    "a dict": ({"a": 1}, "builtins.dict"),
    "no estimator at the end": (make_pipeline(StandardScaler(), "passthrough").fit(ROWS), "predicts nothing"),
    "a transformer": (StandardScaler().fit(ROWS), "predicts nothing"),
    "words for input": (
        make_pipeline(CountVectorizer(), LogisticRegression()).fit(["a word", "words"] * 3, [0, 1] * 3),
        "n_features_in_",
    ),
    "text for categories": (
        make_pipeline(OneHotEncoder(sparse_output=False), LogisticRegression()).fit(TEXT[LABELS][:, None], LABELS),
        "fitted on text",
    ),
    "columns by name": (make_pipeline(by_name(), LogisticRegression()), "columns by name"),
    "several labels": (
        KNeighborsClassifier(1, algorithm="brute").fit(ROWS, np.stack([LABELS, LABELS], 1)),
        "several labels",
    ),
    "several labels at once": (
        OneVsRestClassifier(LogisticRegression()).fit(ROWS, np.eye(3, dtype=int)[LABELS]),
        "several labels",
    ),
}


@pytest.mark.parametrize("name", BESIDE_THE_POINT)
def test_what_no_request_can_ask_is_refused(name: str) -> None:
    estimator, word = BESIDE_THE_POINT[name]
    assert word in refusal(dumped(estimator))


def test_an_older_scikit_learn_is_told_of_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def older(members: dict[str, bytes], canary: Path) -> None:
        import sklearn

        members["schema.json"] = members["schema.json"].replace(f'\\"{sklearn.__version__}\\"'.encode(), b'\\"1.2.0\\"')

    data = edited(older)(good(), Path())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, loaded = opened(data)
    assert loaded.parameters["sklearn_version"] == "1.2.0"
    assert "1.2.0" in caplog.text


def test_nobody_pays_for_scikit_learn_who_serves_something_else() -> None:
    words = (
        "import sys, evenkeel_runtime.serve.server, evenkeel_runtime.prepare\n"
        "from evenkeel_runtime.models import formats\n"
        "print([name for name in ('sklearn', 'skops', 'joblib') if name in sys.modules])"
    )
    got = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert got.stdout == "[]\n"
