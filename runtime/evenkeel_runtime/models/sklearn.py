"""How does a `.skops` file of a scikit-learn estimator become a callable?

skops rebuilds objects from a description of them, and by itself only of types it trusts: scikit-learn's estimators,
numpy's arrays and functions. What else a file holds is named, and built only where the spec trusts it by that name.
Nothing is unpickled. skops vouches for types, not for what their arrays say: scikit-learn's trees follow indices from
the file without looking at them (hence they are not trusted by themselves), so a file is loaded where no credentials
are.

Numbers travel as FP64, scikit-learn's own type: rounded to FP32 on the way, a value can cross a tree's threshold, and
the answer would not be the framework's. A classifier of text classes answers `label` as text, as `predict` does; its
metadata name the classes in the order of the probabilities.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.failure import refused
from evenkeel_runtime.models import fitted, schema
from evenkeel_runtime.models.archive import Archive
from evenkeel_runtime.models.datatypes import BYTES
from evenkeel_runtime.models.fitted import Fitted
from evenkeel_runtime.models.format import Format
from evenkeel_runtime.models.loaded import Loaded, Signature

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

NAME = "Sklearn"
PLATFORM = "sklearn_skops"
_INPUT = "input"
_TORCH_WRAPPER = "sklearn.externals.array_api_compat.torch"
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, RecursionError, ImportError)
"""What skops raises at a tree that does not look like its own."""

log = logging.getLogger("evenkeel")

Answer = Callable[["NDArray[np.float64]"], "NDArray[Any]"]


def recognises(archive: Archive) -> bool:
    return archive.root == "" and schema.MEMBER in archive.members


def untrusted(archive: Archive) -> frozenset[str]:
    return _untrusted(schema.parse(archive))


def signature(archive: Archive) -> Signature:
    tree = schema.parse(archive)
    _require_installed(_untrusted(tree))
    return _signature(fitted.describe(tree))


def load(archive: Archive, buffer: memoryview, device: str, trusted: frozenset[str]) -> Loaded:
    """Return the estimator, which runs on the CPU whatever the device is."""
    tree = schema.parse(archive)
    needed = _untrusted(tree)
    if needed - trusted:
        raise refused(f"the file holds types that are not trusted: {', '.join(sorted(needed - trusted))[:1000]}")
    _require_installed(needed)
    found = fitted.describe(tree)
    estimator = _built(tree, needed)
    _note_version(found)
    _spare_cpus()
    call = _call(estimator, found)
    seen = _tried(call, _signature(found))
    return Loaded(NAME, PLATFORM, seen, call, "cpu", traceable=False, parameters=_parameters(found))


FORMAT = Format(NAME, False, recognises, untrusted, signature, load)


def _skops() -> Any:
    """Return skops.io, which imports all of scikit-learn to learn the names of its types.

    scikit-learn's wrapper of torch is left out of that: it would import torch where only a file is inspected.
    """
    is_new = _TORCH_WRAPPER not in sys.modules
    if is_new:
        sys.modules[_TORCH_WRAPPER] = None  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of modules that are deprecated, and imported because they are there
            import skops.io
    finally:
        if is_new:
            del sys.modules[_TORCH_WRAPPER]
    return skops.io


def _untrusted(tree: schema.Schema) -> frozenset[str]:
    """Return the types that skops does not trust by itself, judged without building any."""
    try:
        return frozenset(_skops().get_untrusted_types(data=tree.without_values()))
    except _MALFORMED as error:
        raise refused(
            f"{schema.MEMBER} is not what skops writes ({type(error).__name__}: {str(error)[:200]}); save the model "
            "again"
        ) from error


def _require_installed(types: frozenset[str]) -> None:
    missing = sorted(name for name in types if not _is_installed(name))
    if missing:
        raise refused(
            f"this runtime does not have {', '.join(missing)[:400]}; retrain without, or serve the file with an image "
            "that has them (spec.runtime.image)"
        )


def _is_installed(type_name: str) -> bool:
    package = type_name.partition(".")[0]
    try:
        return package in sys.modules or importlib.util.find_spec(package) is not None
    except ValueError:
        return False


def _signature(found: Fitted) -> Signature:
    outputs: list[Tensor] = []
    if found.kind == "regressor":
        outputs.append(Tensor("prediction", "FP64", (-1,) if found.targets is None else (-1, found.targets)))
    elif found.has_text_classes:
        outputs.append(Tensor("label", BYTES, (-1,)))
    else:
        is_fractional = any(isinstance(name, float) for name in found.classes)
        outputs.append(Tensor("label", "FP64" if is_fractional else "INT64", (-1,)))
    if found.has_probabilities:
        outputs.append(Tensor("probabilities", "FP64", (-1, len(found.classes))))
    inputs = (Tensor(_INPUT, "FP64", (-1, found.features)),)
    classes = tuple(str(name) for name in found.classes)
    return Signature(inputs, tuple(outputs), batch=0, example=((1, found.features),), classes=classes)


def _parameters(found: Fitted) -> dict[str, object]:
    parameters: dict[str, object] = {"sklearn_version": found.version}
    if found.classes:
        parameters["classes"] = list(found.classes)
    if found.feature_names:
        parameters["features"] = list(found.feature_names)
    return parameters


def _built(tree: schema.Schema, trusted: frozenset[str]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # once per estimator within: `_note_version` says it once
        try:
            built = _skops().loads(tree.whole(), trusted=sorted(trusted))
        except _MALFORMED as error:
            raise refused(
                f"skops cannot rebuild the estimator ({type(error).__name__}: {str(error)[:200]}); save the model "
                "again with the runtime's scikit-learn"
            ) from error
    # A request names no columns, and the order of its numbers is the file's: no word about it with every answer.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    return built


def _note_version(found: Fitted) -> None:
    import sklearn

    if found.version != sklearn.__version__:
        log.warning(
            "fitted by another scikit-learn, may answer otherwise then=%s now=%s", found.version, sklearn.__version__
        )


def _spare_cpus() -> None:
    """Let BLAS use the CPUs this container may use; by itself it starts a thread for each that the machine has."""
    import joblib
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=joblib.cpu_count(), user_api="blas")


def _call(estimator: Any, found: Fitted) -> Callable[..., Sequence[torch.Tensor]]:
    import joblib
    import numpy as np

    answers: list[Answer] = [_first(estimator, found)]
    if found.has_probabilities:
        answers.append(lambda rows: np.asarray(estimator.predict_proba(rows), np.float64))

    def call(*inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        rows = inputs[0].numpy()
        # An ensemble asks its parts in as many processes as it was trained with, and they would unpickle its parts.
        with joblib.parallel_config(backend="sequential"):
            # Each gets rows of its own: a scaler made with copy=False writes over them.
            return [_value(np.ascontiguousarray(answer(rows.copy()))) for answer in answers]

    return call


def _value(answer: NDArray[Any]) -> Any:
    import torch

    return answer if answer.dtype == object else torch.from_numpy(answer)


def _first(estimator: Any, found: Fitted) -> Answer:
    import numpy as np

    if found.kind == "regressor":
        return lambda rows: np.asarray(estimator.predict(rows), np.float64)
    if not found.has_text_classes:
        dtype = np.float64 if any(isinstance(name, float) for name in found.classes) else np.int64
        return lambda rows: np.asarray(estimator.predict(rows)).astype(dtype)
    names = {name: str(name).encode() for name in found.classes}
    return lambda rows: np.array([names[name] for name in estimator.predict(rows).tolist()], object)


def _tried(call: Callable[..., Sequence[torch.Tensor]], seen: Signature) -> Signature:
    """Return the signature with what two made-up rows show of it.

    An encoder refuses numbers that are none of its categories: then there is nothing to try the estimator with. A
    regressor may answer several numbers per row without its file saying how many.
    """
    import torch
    from sklearn.exceptions import NotFittedError

    shape = (2, *seen.inputs[0].shape[1:])
    rows = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    try:
        answers = call(rows)
    except NotFittedError as error:
        raise refused("the estimator is not fitted; fit it before it is saved") from error
    except ValueError as error:
        log.info("not tried error=%s", str(error).splitlines()[0][:200])
        return replace(seen, example=None)
    outputs = []
    for tensor, answer in zip(seen.outputs, answers, strict=True):
        got = (-1, *answer.shape[1:])
        if answer.shape[:1] != (2,) or (got != tensor.shape and tensor.name != "prediction"):
            raise refused(
                f"the estimator answers {tensor.name} of shape {list(answer.shape)} to two rows; save another"
            )
        outputs.append(Tensor(tensor.name, tensor.datatype, got))
    return replace(seen, outputs=tuple(outputs))
