"""Which format's is the model, a file or a folder, and what does the spec allow? One answer for both kinds.

A file is a zip archive of one of `formats.py`, or safetensors, which is a folder of one file. A folder is what one of
`BUNDLED` recognises. Their modules import their frameworks when they are asked for more than that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from evenkeel_runtime.config import AUTO, Model
from evenkeel_runtime.contract import BF16, INT8
from evenkeel_runtime.failure import refused
from evenkeel_runtime.models import inspect, statedict, transformers, weights
from evenkeel_runtime.models.bundle import Bundle, Held
from evenkeel_runtime.models.format import BundleFormat
from evenkeel_runtime.models.loaded import Loaded, Signature

BUNDLED: tuple[BundleFormat, ...] = (statedict.FORMAT, transformers.FORMAT)


@dataclass(frozen=True, slots=True)
class Recognised:
    """A model that the spec allows; `load` takes the device."""

    name: str
    signature: Callable[[], Signature]
    load: Callable[[str], Loaded]


def recognised(stream: IO[bytes], size: int, model: Model, view: memoryview | None = None) -> Recognised:
    """Return the format of a file, or refuse the file by name; to be loaded, it has to be in memory."""
    stream.seek(0)
    if weights.looks_like(stream.read(9), size):
        return _of(statedict.FORMAT, Bundle({weights.SINGLE: Held(size, stream, view)}), model)
    format_, archive = inspect.recognise(stream, size)
    inspect.require_wanted(format_, archive, model)

    def load(device: str) -> Loaded:
        assert view is not None
        return format_.load(archive, view, device, model.trusted_types)

    return Recognised(format_.name, lambda: format_.signature(archive), load)


def recognised_folder(bundle: Bundle, model: Model) -> Recognised:
    """Return the format of a folder, or refuse the folder by name."""
    for format_ in BUNDLED:
        if format_.recognises(bundle):
            return _of(format_, bundle, model)
    raise refused(_called(bundle))


def is_read(path: str) -> bool:
    """Return whether some format reads a file of this name: what a replica has to have in memory."""
    return path.endswith((".json", weights.ENDING))


def _of(format_: BundleFormat, bundle: Bundle, model: Model) -> Recognised:
    if model.format not in (AUTO, format_.name):
        raise refused(
            f"the model is {format_.name}, spec.model.format says {model.format}; correct it or leave it at {AUTO}"
        )
    if model.precision in (BF16, INT8) and model.precision not in format_.precisions:
        others = f"set it to {' or '.join(sorted(format_.precisions))}, " if format_.precisions else ""
        raise refused(
            f"{format_.name} models are not computed in {model.precision}, as spec.runtime.precision says; {others}"
            "leave it at Auto, or save the model with torch.export.save"
        )
    return Recognised(format_.name, lambda: format_.signature(bundle), lambda device: format_.load(bundle, device))


def _called(bundle: Bundle) -> str:
    if len(bundle.files) == 1:
        return f"the folder holds one file alone, {bundle.named()}; name that file in spec.model.uri"
    if "config.json" not in bundle.files:
        return (
            "the folder is of no format that this runtime knows: it has no config.json, as timm and transformers write "
            f"it, but {bundle.named()}; if one file is the model, name it in spec.model.uri"
        )
    return (
        "the folder is of no format that this runtime knows: its config.json names no architecture, as timm writes it, "
        "and no model_type, as transformers does; save the model with torch.export.save instead, as one file"
    )
