"""What does a fitted scikit-learn estimator take and answer, as far as its `.skops` file says?

Read from the description of the estimator; the estimator itself is not built: the container that inspects holds the
credentials of the model's store, and what scikit-learn computes with crafted arrays is for a container that holds none.
Where several classes nest (a pipeline, a search, a selection), the one that answers is looked for inside.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from evenkeel_runtime.failure import refused
from evenkeel_runtime.models.schema import Node, Schema, nodes, type_name

_CLASSES_BYTES = 16 << 20
_NESTING = 20
_PIPELINE = "sklearn.pipeline.Pipeline"
_COLUMNS = "sklearn.compose._column_transformer.ColumnTransformer"
_INNER = ("best_estimator_", "estimator_", "regressor_", "final_estimator_")
_ENCODERS = ("label_binarizer_", "_label_binarizer", "le_", "_label_encoder")
_KINDS = {
    "ClassifierMixin": "classifier",
    "RegressorMixin": "regressor",
    "ClusterMixin": "clusterer",
    "OutlierMixin": "outlier detector",
}
_WITH_PROBABILITIES = {
    "sklearn.svm._classes.SVC": ("probability", (True,)),
    "sklearn.svm._classes.NuSVC": ("probability", (True,)),
    "sklearn.linear_model._stochastic_gradient.SGDClassifier": ("loss", ("log_loss", "modified_huber")),
    "sklearn.ensemble._voting.VotingClassifier": ("voting", ("soft",)),
    "sklearn.neighbors._nearest_centroid.NearestCentroid": ("metric", ("euclidean",)),
}
"""Classifiers that answer probabilities with some of their options only: the option, and its values that do."""

Class = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Fitted:
    """`classes` are those of a classifier, in the order of its probabilities; `targets` is how many numbers a regressor
    answers per row, None for one that answers just the number. `version` is the scikit-learn that fitted it."""

    kind: str
    features: int
    feature_names: tuple[str, ...]
    classes: tuple[Class, ...]
    has_probabilities: bool
    targets: int | None
    version: str

    @property
    def has_text_classes(self) -> bool:
        return any(isinstance(name, str) for name in self.classes)


def describe(schema: Schema) -> Fitted:
    """Return what the file says of its estimator, or refuse one that no request of numbers can reach."""
    root = schema.root
    _refuse_text(schema)
    answering = _answering(root)
    kind, found = _kind(answering)
    if kind == "classifier":
        classes = _classes(schema, answering)
        has_probabilities = _has_probabilities(answering, found, _NESTING)
    else:
        classes, has_probabilities = (), False
    features = _features(root)
    names = _texts(_nested(root, "feature_names_in_"), schema)
    return Fitted(
        kind=kind,
        features=features,
        feature_names=tuple(names) if len(names) == features else (),
        classes=classes,
        has_probabilities=has_probabilities,
        targets=_targets(schema, answering) if kind == "regressor" else None,
        version=str(_value(answering, "_sklearn_version") or ""),
    )


def _attributes(node: Node) -> dict[str, Any]:
    """Return the attributes of an object, by name; an object without any has none."""
    content = node.get("content")
    inner = content.get("content") if isinstance(content, dict) and node.get("__loader__") == "ObjectNode" else None
    return inner if isinstance(inner, dict) else {}


def _attribute(node: Node, name: str) -> Node | None:
    found = _attributes(node).get(name)
    return found if isinstance(found, dict) and isinstance(found.get("__loader__"), str) else None


def _items(node: Node | None) -> list[Node]:
    """Return what a list or a tuple holds."""
    content = node.get("content") if node is not None and node["__loader__"] in ("ListNode", "TupleNode") else None
    return [item for item in content if isinstance(item, dict)] if isinstance(content, list) else []


def _literal(node: Node | None) -> Any:
    """Return a value that JSON holds, None for any other."""
    if node is None or node.get("__loader__") != "JsonNode" or not isinstance(node.get("content"), str):
        return None
    try:
        return json.loads(node["content"])
    except (ValueError, RecursionError):
        return None


def _value(node: Node, name: str) -> Any:
    return _literal(_attribute(node, name))


def _steps(node: Node) -> list[Node]:
    """Return the estimators of a pipeline, in their order, without those that pass everything through."""
    pairs = [_items(pair) for pair in _items(_attribute(node, "steps"))]
    return [pair[1] for pair in pairs if len(pair) == 2 and pair[1].get("__loader__") == "ObjectNode"]


def _is(node: Node, name: str) -> bool:
    return type_name(node) == name


def _answering(root: Node) -> Node:
    """Return the estimator whose answer is the root's answer."""
    node = root
    for _ in range(_NESTING):
        if _is(node, _PIPELINE):
            steps = _steps(node)
            if not steps:
                raise refused("the pipeline has no estimator at its end; save one that predicts")
            node = steps[-1]
        elif (best := _attribute(node, "best_estimator_")) is not None:
            node = best
        else:
            return node
    raise refused(f"the estimator is nested more than {_NESTING} levels deep; save one of fewer parts")


def _nested(node: Node, name: str) -> Node | None:
    """Return the attribute of that name of the outermost estimator that has it on the way of a row into the model."""
    for _ in range(_NESTING):
        if (found := _attribute(node, name)) is not None:
            return found
        steps = _steps(node) if _is(node, _PIPELINE) else []
        inner = [found for inner in _INNER if (found := _attribute(node, inner)) is not None]
        many = _items(_attribute(node, "estimators_")) or _items(_attribute(node, "transformer_list"))
        if not (following := [*steps, *inner, *many]):
            return None
        node = following[0] if following[0]["__loader__"] != "TupleNode" else (_items(following[0]) or [{}])[-1]
        if "__loader__" not in node:
            return None
    return None


def _features(root: Node) -> int:
    found = _literal(_nested(root, "n_features_in_"))
    if type(found) is not int or not 0 < found < 1 << 31:
        raise refused(
            f"the {type_name(root)} does not say how many numbers a row has (n_features_in_): it is not fitted, or "
            "takes text or tables; fit it on an array of numbers"
        )
    return found


def _kind(node: Node) -> tuple[str, type]:
    """Return what the estimator is, and its class, which is scikit-learn's own."""
    module, name = node["__module__"], node["__class__"]
    if node["__loader__"] != "ObjectNode" or not module.startswith("sklearn."):
        raise refused(f"the file holds a {type_name(node)}; this runtime serves scikit-learn's estimators")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise refused(f"this runtime's scikit-learn has no {type_name(node)}; save the model with the same") from error
    words = [base.__name__ for base in found.__mro__] if isinstance(found, type) else []
    for word, kind in _KINDS.items():
        if word in words and hasattr(found, "predict"):
            return kind, found
    raise refused(f"a {type_name(node)} predicts nothing by itself; save a pipeline that ends in an estimator")


def _classes(schema: Schema, node: Node) -> tuple[Class, ...]:
    """Return the classes in their order, of one kind: text, or numbers."""
    for holder in _with_inner(node, _NESTING):
        parts = [holder, *(inner for name in _ENCODERS if (inner := _attribute(holder, name)) is not None)]
        if any(_value(part, "y_type_") == "multilabel-indicator" for part in parts):
            raise refused(_several(node))
        for part in parts:
            if (found := _attribute(part, "classes_")) is not None:
                return _read_classes(schema, node, found)
    raise refused(f"the {type_name(node)} has no classes_; fit it before it is saved")


def _read_classes(schema: Schema, node: Node, found: Node) -> tuple[Class, ...]:
    if found["__loader__"] != "NdArrayNode":
        raise refused(_several(node))
    names: list[Any]
    if found.get("type") == "numpy" and len(schema.arrays[found["file"]].shape) == 1:
        names = schema.array(found["file"], _CLASSES_BYTES).tolist()
    else:
        names = [_literal(item) for item in found["content"]] if isinstance(found.get("content"), list) else []
    is_text = [isinstance(name, str) for name in names]
    if not names or any(not isinstance(name, Class) for name in names) or (any(is_text) and not all(is_text)):
        raise refused(f"the classes of the {type_name(node)} are neither all text nor all numbers: {str(names)[:80]}")
    return tuple(names)


def _several(node: Node) -> str:
    return f"the {type_name(node)} answers several labels per row; save one classifier per label"


def _with_inner(node: Node, depth: int) -> Iterator[Node]:
    """Yield an estimator and those that it asks."""
    yield node
    for name in _INNER:
        if depth and (inner := _attribute(node, name)) is not None:
            yield from _with_inner(_answering(inner), depth - 1)
    for inner in _items(_attribute(node, "estimators_"))[:1]:
        if depth:
            yield from _with_inner(_answering(inner), depth - 1)


def _has_probabilities(node: Node, found: type, depth: int) -> bool:
    """Return whether predict_proba is there: always, never, with an option, or where the inner estimator has it."""
    method = next((vars(base)["predict_proba"] for base in found.__mro__ if "predict_proba" in vars(base)), None)
    if method is None or isinstance(method, FunctionType):
        return method is not None
    if (option := _WITH_PROBABILITIES.get(type_name(node))) is not None:
        return _value(node, option[0]) in option[1]
    for inner in list(_with_inner(node, 1))[1:]:
        return depth > 0 and _has_probabilities(inner, _kind(inner)[1], depth - 1)
    return False


def _targets(schema: Schema, node: Node) -> int | None:
    """Return the length of a regressor's answer to a row, None where the answer is a single number."""
    count = _value(node, "n_outputs_")
    if type(count) is int:
        return count if count > 1 else None
    coefficients = _attribute(node, "coef_")
    array = schema.arrays.get(str(coefficients.get("file"))) if coefficients is not None else None
    if array is not None and len(array.shape) == 2 and _value(node, "_predict_1d") is not True:
        return array.shape[0]
    return None


def _texts(node: Node | None, schema: Schema) -> list[str]:
    """Return an array of text, empty where it is none."""
    if node is None or node.get("__loader__") != "NdArrayNode":
        return []
    if node.get("type") == "numpy":
        return schema.array(node["file"], _CLASSES_BYTES).tolist() if schema.arrays[node["file"]].kind == "U" else []
    found = [_literal(item) for item in node["content"]] if isinstance(node.get("content"), list) else []
    return found if all(isinstance(text, str) for text in found) else []


def _refuse_text(schema: Schema) -> None:
    """Raise where columns are chosen by name or hold text: a request carries one array of numbers."""
    for node in nodes(schema.root):
        if node["__loader__"] != "ObjectNode":
            continue
        if any(_texts(item, schema) for item in _items(_attribute(node, "categories_"))):
            raise refused(
                f"the {type_name(node)} was fitted on text, requests carry numbers; encode the text before training, "
                "and in the clients"
            )
        if _is(node, _COLUMNS):
            for row in _items(_attribute(node, "transformers")):
                columns = _items(row)[-1:]
                chosen = [_literal(item) for column in columns for item in (column, *_items(column))]
                if any(isinstance(name, str) for name in chosen) or any(
                    isinstance(name, list) and any(isinstance(n, str) for n in name) for name in chosen
                ):
                    raise refused(
                        f"the {type_name(node)} chooses columns by name, requests carry numbers in their order; choose "
                        "them by position and fit on an array (frame.to_numpy())"
                    )
