"""How does a `.keras` file become a callable?

It is an archive of three members: `metadata.json`, `config.json` and `model.weights.h5`. The description is judged by
`architecture.py` and the weights are found by `hdf5.py`, both as data, before Keras is imported. Keras then builds the
description it is given, on the torch backend, in safe mode, and its weights are copied from the verified bytes: it
opens no archive and no HDF5 file. A model is first built without memory, so that one that claims more weights than its
file holds costs nothing.

Keras' own line is held to a minor version, as torch's is: loading goes through what stands behind `load_model`.
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from evenkeel_runtime import contract
from evenkeel_runtime.failure import refused
from evenkeel_runtime.models import architecture, hdf5
from evenkeel_runtime.models.architecture import Architecture
from evenkeel_runtime.models.archive import Archive
from evenkeel_runtime.models.datatypes import BY_TORCH, coarsest
from evenkeel_runtime.models.format import Format, no_types
from evenkeel_runtime.models.hdf5 import Stored
from evenkeel_runtime.models.loaded import Loaded, Range, Signature
from evenkeel_runtime.report import is_out_of_memory

if TYPE_CHECKING:
    import torch

NAME = "Keras"
PLATFORM = "keras_keras"
_METADATA, _WEIGHTS = "metadata.json", "model.weights.h5"
_MEMBERS = frozenset({_METADATA, architecture.MEMBER, _WEIGHTS})
_CONFIG_BYTES = 64 << 20
_PREPARED_BYTES = 1 << 30
"""Weights above this size are looked through when they are loaded: `prepare` would read them over the network."""
_SLACK = 1 << 16
"""Numbers that a model may have beside those in its file: counters and seeds."""
_EXAMPLE_SIZE = 32
_UNUSED = ("sklearn", "tensorflow", "jax")
"""What Keras imports where it is there, to wrap it or to convert from it: seconds of CPU, for nothing."""
_MALFORMED = (
    *(LookupError, TypeError, ValueError, AttributeError, RecursionError, ImportError, ArithmeticError),
    *(AssertionError, RuntimeError),
)
"""What Keras raises at a description that does not look like its own."""


def recognises(archive: Archive) -> bool:
    names = archive.members
    return archive.root == "" and architecture.MEMBER in names and _METADATA in names


def signature(archive: Archive) -> Signature:
    found = _architecture(archive)
    member = archive.members[_WEIGHTS]
    if member.size <= _PREPARED_BYTES:
        _arrays(archive)
    return _signature(found)


def load(archive: Archive, buffer: memoryview, device: str, trusted: frozenset[str]) -> Loaded:
    """Return the model in inference mode on `device`, as a module of torch."""
    found, arrays = _architecture(archive), _arrays(archive)
    weights = archive.view(_WEIGHTS, buffer)
    keras = imported()
    model = _built(keras, found, arrays, device)
    _fill(model, arrays, weights)
    seen = _signature(found, model)
    call = _module(keras, model, found, device)
    fixed = all(size > 0 for tensor in seen.inputs for size in tensor.shape[1:])
    return Loaded(
        NAME, PLATFORM, replace(seen, ranges=_ranges(keras, model, found)), call, device,
        # A loop over time steps is traced for as many as it was shown, and a size that is free as the one it had.
        traceable=fixed and not found.is_recurrent,
        parameters={"keras_version": _version(archive)},
        precision=_precision(model),
    )  # fmt: skip


def _precision(model: Any) -> str | None:
    names = (str(layer.compute_dtype) for layer in model._flatten_layers())
    return coarsest(BY_TORCH[name].word for name in names if name in BY_TORCH)


FORMAT = Format(NAME, False, recognises, no_types, signature, load, frozenset({contract.BF16}))


def _architecture(archive: Archive) -> Architecture:
    if missing := sorted(_MEMBERS - archive.members.keys()):
        raise refused(f"the .keras file lacks {', '.join(missing)}; save it with model.save('model.keras') and Keras 3")
    if more := sorted(archive.members.keys() - _MEMBERS):
        raise refused(
            f"the .keras file holds {', '.join(more)[:200]} beside its model (vocabularies, or what is none of "
            "Keras'); take layers that look up text out of the model"
        )
    version = _version(archive)
    if not version.startswith("3."):
        raise refused(f"the .keras file is of Keras {version[:40]}; save it again with Keras 3")
    return architecture.parse(archive.read(architecture.MEMBER, _CONFIG_BYTES))


def _version(archive: Archive) -> str:
    try:
        return str(json.loads(archive.read(_METADATA, _CONFIG_BYTES))["keras_version"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise refused(
            f"{_METADATA} names no version of Keras ({type(error).__name__}); save the model again"
        ) from error


def _arrays(archive: Archive) -> Mapping[str, Stored]:
    member = archive.members[_WEIGHTS]
    if not member.is_plain:
        raise refused(f"the member {_WEIGHTS!r} is compressed; Keras stores it plainly: save the model again")

    def read(offset: int, count: int) -> bytes:
        archive.stream.seek(member.offset + offset)
        return archive.stream.read(count)

    return hdf5.arrays(read, member.size)


def _signature(found: Architecture, model: Any = None) -> Signature:
    """Return what callers see; what the description leaves open is known once the model is built."""
    inputs = tuple(_tensor(tensor) for tensor in found.inputs)
    if model is None:
        outputs = tuple(_tensor(tensor) for tensor in found.outputs)
    else:
        outputs = tuple(
            _tensor(architecture.Tensor(named.name, str(built.dtype), _sizes(built.shape)))
            for named, built in zip(found.outputs, model.outputs, strict=True)
        )
    if len({tensor.name for tensor in outputs}) < len(outputs):
        raise refused("two outputs of the model have one name; give it a dict of outputs, or name its last layers")
    # A prediction per row: free in front, and a shape that is not known yet is one of rows.
    is_batched = all(tensor.shape[:1] == (-1,) for tensor in (*inputs, *outputs))
    example = tuple(tuple(size if size >= 0 else _EXAMPLE_SIZE for size in tensor.shape) for tensor in inputs)
    if is_batched:
        example = tuple((1, *sizes[1:]) for sizes in example)
    return Signature(inputs, outputs, 0 if is_batched else None, example)


def _tensor(tensor: architecture.Tensor) -> contract.Tensor:
    datatype = BY_TORCH.get(tensor.dtype)
    if datatype is None:
        raise refused(f"the model's tensor {tensor.name!r} is of {tensor.dtype[:40]}, which no request can carry")
    return contract.Tensor(tensor.name, datatype.word, (-1,) if tensor.shape is None else tensor.shape)


def _sizes(shape: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(-1 if size is None else size for size in shape)


def imported() -> Any:
    """Return Keras on the torch backend, which has to be chosen before it is imported."""
    os.environ["KERAS_BACKEND"] = "torch"
    with _without(_UNUSED), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules that Keras imports because they are there
        import keras
    if keras.backend.backend() != "torch":
        raise RuntimeError("Keras was imported with another backend than torch")
    return keras


@contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """Let imports of these modules fail, unless they are there already."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _built(keras: Any, found: Architecture, arrays: Mapping[str, Stored], device: str) -> Any:
    """Return the model with weights that are yet to come, having made sure that its file has as many."""
    try:
        weightless = _from(keras, found, "meta")
        needed = sum(variable.value.numel() for variable in weightless.variables)
        there = sum(math.prod(stored.shape) for stored in arrays.values())
        if needed > there + _SLACK:
            raise refused(f"the model has {needed} weights, its file holds {there}; save the model again")
        return _from(keras, found, device)
    except _MALFORMED as error:
        if is_out_of_memory(error):
            raise
        raise refused(f"Keras cannot build the model ({_first_line(error)}); save it again with Keras 3") from error


def _from(keras: Any, found: Architecture, device: str) -> Any:
    from keras.src.saving.serialization_lib import ObjectSharingScope

    keras.utils.clear_session(free_memory=False)  # else names count on from what was built before
    with keras.device(device), ObjectSharingScope(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return keras.saving.deserialize_keras_object(json.loads(json.dumps(found.root)), safe_mode=True)


def _fill(model: Any, arrays: Mapping[str, Stored], weights: memoryview) -> None:
    """Copy the weights into the model, each variable by the path under which Keras stores it."""
    from keras.src.saving import saving_lib

    failures: dict[int, Any] = {}
    failed: set[int] = set()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            saving_lib._load_state(
                model, _store(arrays, weights), None, inner_path="",
                visited_saveables=set(), failed_saveables=failed, error_msgs=failures,
            )  # fmt: skip
    except _MALFORMED as error:
        raise refused(f"the weights do not fit the model ({_first_line(error)}); save the model again") from error
    if failed:
        layer, reason = next(iter(failures.values()))
        raise refused(f"the weights of {layer.name!r} do not fit it ({_first_line(reason)}); save the model again")


def _store(arrays: Mapping[str, Stored], weights: memoryview) -> Any:
    """Return what Keras asks for weights by path: its own store's methods, over arrays that were found already."""
    import ml_dtypes
    import numpy as np
    from keras.src.saving.saving_lib import H5IOStore

    groups: dict[str, dict[str, Stored]] = {}
    for path, stored in arrays.items():
        group, _, name = path.rpartition("/")
        groups.setdefault(group, {})[name] = stored
    present = {path for group in groups for path in accumulate(group.split("/"), "{}/{}".format)}

    class Store(H5IOStore):  # type: ignore[misc]
        def __init__(self) -> None:
            self._group: dict[str, Stored] = {}

        def __bool__(self) -> bool:
            return True

        def get(self, path: str) -> Store:
            self._group = groups.get(f"{path}/vars" if path else "vars", {})
            return self

        def has_path(self, path: str) -> bool:
            return path in present

        def keys(self) -> Any:
            return self._group.keys()

        def __len__(self) -> int:
            return len(self._group)

        def __contains__(self, name: object) -> bool:
            return name in self._group

        def __getitem__(self, name: str) -> Any:
            stored = self._group[name]
            dtype = np.dtype(ml_dtypes.bfloat16 if stored.dtype == "bfloat16" else stored.dtype)
            flat = np.frombuffer(weights, dtype, math.prod(stored.shape), stored.offset)
            shaped = flat.reshape(stored.shape)
            return shaped if shaped.flags.aligned else shaped.copy()

    return Store()


def _ranges(keras: Any, model: Any, found: Architecture) -> tuple[Range, ...]:
    """Return what inputs may hold that are looked up as they come."""
    places = {
        tensor.name: index for index, tensor in enumerate(found.inputs) if _tensor(tensor).datatype != contract.BF16
    }
    rows: dict[int, int] = {}
    for layer in model.layers:
        if not isinstance(layer, keras.layers.Embedding):
            continue
        for given in model.inputs:
            if (
                any(given is one for node in layer._inbound_nodes for one in node.input_tensors)
                and given.name in places
            ):
                index = places[given.name]
                rows[index] = min(layer.input_dim, rows.get(index, layer.input_dim))
    return tuple(Range(index, 0, count - 1) for index, count in sorted(rows.items()))


def _module(keras: Any, model: Any, found: Architecture, device: str) -> Callable[..., Sequence[torch.Tensor]]:
    import torch

    packed = _packing(found)
    scope = keras.device

    class Called(torch.nn.Module):
        """The model as it is served: tensors in their order, a tuple of tensors back."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            with scope(device):
                return tuple(keras.tree.flatten(model(packed(inputs), training=False)))

    called = Called().eval()
    called.requires_grad_(False)
    return called


def _packing(found: Architecture) -> Callable[[tuple[torch.Tensor, ...]], Any]:
    """Return how the model takes its inputs: a tensor, a list of them, or a dict."""
    ends = found.root["config"].get("input_layers")
    if isinstance(ends, dict):
        names = [tensor.name for tensor in found.inputs]
        return lambda inputs: dict(zip(names, inputs, strict=True))
    if len(found.inputs) > 1:
        return list
    return lambda inputs: inputs[0]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
