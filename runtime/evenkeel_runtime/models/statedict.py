"""How do weights in safetensors and the name of an architecture become a callable?

The name is looked up in the registries of torchvision and timm, and nowhere else: nothing is imported by a path that a
file names, and neither library is asked for anything on a hub or a disk. Two things say which architecture it is: the
`config.json` that timm writes beside its weights (`timm.models.save_for_hf`), or the metadata of a safetensors file
that stands alone (`save_file(model.state_dict(), path, metadata={"architecture": "resnet18", "num_classes": "10"})`).

The module is built without memory of its own (torch's meta device) and given the weights where they lie: they are read
once, and copied never.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from evenkeel_runtime.contract import BF16, Tensor
from evenkeel_runtime.failure import ModelError, last_line, refused
from evenkeel_runtime.models import deferred, weights
from evenkeel_runtime.models.bundle import Bundle
from evenkeel_runtime.models.format import BundleFormat
from evenkeel_runtime.models.loaded import Loaded, Signature
from evenkeel_runtime.models.weights import Weights
from evenkeel_runtime.report import is_out_of_memory

if TYPE_CHECKING:
    import torch

NAME = "StateDict"
PLATFORM = "pytorch_state_dict"
CONFIG = "config.json"
_INPUT = "image"
_IMAGES = 2
"""So many show whether an answer has a row per image."""
_SIZE, _CLASSES = 8192, 1_000_000
_NAME = re.compile(r"(?P<architecture>[A-Za-z0-9_]{1,80})(?:\.[A-Za-z0-9_]{1,80})?")
"""timm puts the name of a training behind a dot; it changes nothing of the architecture."""
_SHAPING = frozenset({"img_size", "in_chans", "global_pool", "patch_size", "window_size"})
"""What timm's model_args may say: numbers that shape the module, and which of its poolings it has."""
_UNMADE = (RuntimeError, TypeError, ValueError, AssertionError, LookupError, AttributeError, ArithmeticError)
"""What architectures raise that are given sizes which do not fit them."""
_WAY_OUT = (
    "save it with timm.models.save_for_hf(model, folder, safe_serialization=True), or with "
    'safetensors.torch.save_file(model.state_dict(), path, metadata={"architecture": NAME, "num_classes": NUMBER})'
)


@dataclass(frozen=True, slots=True)
class Described:
    """What the file says of the module: `input_size` is channels, height, width; empty where it does not say."""

    architecture: str
    library: str
    num_classes: int | None
    input_size: tuple[int, ...]
    arguments: Mapping[str, Any]
    classes: tuple[str, ...]


def recognises(bundle: Bundle) -> bool:
    return CONFIG in bundle.files and isinstance(bundle.json(CONFIG).get("architecture"), str)


def signature(bundle: Bundle) -> Signature:
    found = weights.read(bundle)
    described = describe(bundle, found)
    return _seen(described, _built(described, found).to("meta"), "meta")


def load(bundle: Bundle, device: str) -> Loaded:
    found = weights.read(bundle)
    described = describe(bundle, found)
    module = _built(described, found)
    tensors = weights.loaded(bundle, found)
    module = _filled(module, described, tensors).to(device)
    seen = _seen(described, module, device)
    return Loaded(
        NAME,
        PLATFORM,
        seen,
        _answering(module),
        device,
        traceable=not _is_recurrent(module),
        parameters={"architecture": described.architecture, "library": described.library},
        precision="FP32",
        warm_rows=_IMAGES,
    )


FORMAT = BundleFormat(NAME, recognises, signature, load, frozenset({BF16}))


def describe(bundle: Bundle, found: Weights) -> Described:
    """Return what the config, or the metadata of a file that stands alone, says. No library is asked yet."""
    told: Mapping[str, Any] = bundle.json(CONFIG) if CONFIG in bundle.files else _metadata(found.metadata)
    where = CONFIG if CONFIG in bundle.files else "the file's __metadata__"
    name = told.get("architecture")
    if not isinstance(name, str):
        raise refused(f"safetensors: weights without the name of an architecture in {where}; {_WAY_OUT}")
    matched = _NAME.fullmatch(name)
    if matched is None:
        raise refused(
            f"{where}: architecture is {name[:120]!r}, which is no name in a registry; it has to be one that "
            "torchvision.models.list_models() or timm.list_models() prints"
        )
    trained = _object(told, "pretrained_cfg", where)
    arguments = dict(_object(told, "model_args", where))
    repeated = arguments.pop("num_classes", None)
    if unknown := sorted(arguments.keys() - _SHAPING):
        raise refused(
            f"{where}: model_args says {', '.join(unknown)[:200]}; only {', '.join(sorted(_SHAPING))} are known here: "
            "export the model as TorchExport instead (torch.export.save)"
        )
    _require_plain(arguments, where)
    library = told.get("library", "timm" if trained or arguments else "")
    if library not in ("", "timm", "torchvision"):
        raise refused(f"{where}: library is {str(library)[:80]!r}; it has to be timm or torchvision")
    classes = told.get("classes") or _labels(told.get("label_names") or trained.get("label_names"))
    count = told.get("num_classes", trained.get("num_classes", repeated))
    if repeated not in (None, count):
        raise refused(f"{where}: num_classes is {str(count)[:80]}, and {str(repeated)[:80]} in model_args; correct one")
    if count is not None and (type(count) is not int or not 0 <= count <= _CLASSES):
        raise refused(f"{where}: num_classes is {str(count)[:80]}; it has to be a number up to {_CLASSES}")
    if not isinstance(classes, list | tuple) or (classes and len(classes) != count):
        raise refused(f"{where}: classes has to be a list of as many names as num_classes says, {count}")
    size = told.get("input_size") or trained.get("input_size") or ()
    if size and (not isinstance(size, list) or len(size) != 3 or not all(map(_is_size, size))):
        raise refused(f"{where}: input_size is {str(size)[:80]}; it has to be [channels, height, width]")
    return Described(matched["architecture"], library, count, tuple(size), arguments, tuple(map(str, classes)))


def _metadata(texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the metadata of a safetensors file, which are all text: what is a number or a list there is in JSON."""
    found: dict[str, Any] = dict(texts)
    for key in ("num_classes", "input_size", "classes"):
        if key in found:
            try:
                found[key] = json.loads(found[key])
            except (ValueError, RecursionError) as error:
                raise refused(f"the file's __metadata__: {key} is no JSON: {texts[key][:80]!r}") from error
    return {key: value for key, value in found.items() if key not in ("pretrained_cfg", "model_args")}


def _labels(names: object) -> list[object]:
    """Return timm's label_names as a list: it may write them by their index."""
    if isinstance(names, list):
        return names
    if isinstance(names, dict) and names.keys() == {str(index) for index in range(len(names))}:
        return [names[str(index)] for index in range(len(names))]
    return []


def _object(told: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    found = told.get(key) or {}
    if not isinstance(found, dict):
        raise refused(f"{where}: {key} is {str(found)[:80]!r}; it has to be an object, as timm writes it")
    return found


def _require_plain(arguments: Mapping[str, Any], where: str) -> None:
    for key, value in arguments.items():
        parts = value if isinstance(value, list) else [value]
        is_word = key == "global_pool" and isinstance(value, str) and re.fullmatch("[a-z]{0,16}", value)
        if not is_word and (len(parts) > 4 or not all(map(_is_size, parts))):
            raise refused(f"{where}: model_args: {key} is {str(value)[:80]!r}; it has to be a size up to {_SIZE}")


def _is_size(value: object) -> bool:
    return type(value) is int and 0 < value <= _SIZE


def _built(described: Described, found: Weights) -> torch.nn.Module:
    """Return the module without memory, after its tensors were compared with the file's.

    Most are built without what a start leaves out of torch (`deferred`); one that is not, or not as the file has it, is
    built again with that before it is refused.
    """
    try:
        module = _made_without_memory(described)
        _require_same(module, described, found)
    except (NotImplementedError, ModelError):
        deferred.complete()
        try:
            module = _made_without_memory(described)
        except NotImplementedError:
            module = _made(described).eval()
        _require_same(module, described, found)
    return module


def _made_without_memory(described: Described) -> torch.nn.Module:
    import torch

    _maker(described)  # imports the library, which makes tensors of its own
    with torch.device("meta"):
        return _made(described).eval()


def _seen(described: Described, module: torch.nn.Module, device: str) -> Signature:
    """Return what callers see, as an answer to `_IMAGES` has it; on the meta device nothing is computed for that."""
    import torch

    _, size = _maker(described)
    try:
        with torch.no_grad():
            answer = module(torch.zeros(_IMAGES, *size, device=device))
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        if deferred.complete():  # what it lacked may have been that
            return _seen(described, module, device)
        raise refused(
            f"{described.architecture} does not take an input of {list(size)}: {last_line(error)[:200]}; correct "
            "input_size"
        ) from error
    if not isinstance(answer, torch.Tensor) or answer.shape[:1] != (_IMAGES,):
        raise refused(f"{described.architecture} does not answer one tensor of a row per image; export it instead")
    output = Tensor("embedding" if described.num_classes == 0 else "logits", "FP32", (-1, *answer.shape[1:]))
    inputs = (Tensor(_INPUT, "FP32", (-1, *size)),)
    return Signature(inputs, (output,), batch=0, example=((1, *size),), classes=described.classes)


def _maker(described: Described) -> tuple[Callable[[], torch.nn.Module], tuple[int, ...]]:
    """Return what builds the architecture, and the size of an image for it."""
    name, count = described.architecture, described.num_classes
    models = _library("torchvision.models", described)
    known = set() if models is None else set(models.list_models(module=models))
    if models is not None and (described.library == "torchvision" or name in known):
        if name not in known:
            raise _unknown(name, "torchvision", known)
        default: Any = models.get_model_weights(name)
        crop = next(iter(default)).transforms.keywords["crop_size"]
        given = {} if count is None else {"num_classes": count}
        if name in ("googlenet", "inception_v3"):
            given["init_weights"] = False
        return lambda: models.get_model(name, weights=None, **given), described.input_size or (3, crop, crop)
    timm = _library("timm", described)
    if timm is None or not (models or described.library or timm.is_model(name)):
        missing = "timm" if timm is None else "torchvision"
        raise refused(f"{name} is not looked for in {missing}, which is not installed here; {_install(missing)}")
    if not timm.is_model(name):
        raise _unknown(name, "timm" if described.library else "torchvision and timm", {*timm.list_models(), *known})
    usual = timm.get_pretrained_cfg(name, allow_unregistered=True)
    size = tuple(described.input_size or (usual.input_size if usual is not None else (3, 224, 224)))
    arguments = dict(described.arguments) if count is None else {"num_classes": count, **described.arguments}
    return lambda: timm.create_model(name, pretrained=False, **arguments), size


def _library(module: str, described: Described) -> Any:
    """Return a library, None where the file names the other one, or neither and this one is not installed."""
    name = module.partition(".")[0]
    if described.library not in ("", name):
        return None
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if not described.library:
            return None
        missing = (error.name or name).partition(".")[0]
        raise refused(
            f"{described.architecture} is of {name}, and {missing} is not installed here; {_install(missing)}"
        ) from error


def _install(package: str) -> str:
    return f"pip install {package}, or save the model with torch.export.save, which needs neither"


def _made(described: Described) -> torch.nn.Module:
    """Return the module, or refuse what it was to be made with; raises NotImplementedError without memory."""
    make, _ = _maker(described)
    try:
        return make()
    except _UNMADE as error:
        if isinstance(error, NotImplementedError) or is_out_of_memory(error):
            raise
        told = ", ".join(sorted(described.arguments))
        way_out = f"correct model_args, which says {told}" if told else "check architecture and num_classes"
        raise refused(f"{described.architecture} cannot be made so ({last_line(error)[:200]}); {way_out}") from error


def _unknown(name: str, where: str, known: set[str]) -> Exception:
    import difflib

    close = difflib.get_close_matches(name, known, 3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return refused(f"{where} have no architecture {name!r}{hint} For another one, save it with torch.export.save")


def _require_same(module: torch.nn.Module, described: Described, found: Weights) -> None:
    """Raise where the file has other tensors than the architecture."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    given = {name: weight.shape for name, weight in found.tensors.items()}
    for words, names in (("lacks", wanted.keys() - given.keys()), ("has besides", given.keys() - wanted.keys())):
        if names:
            few = ", ".join(sorted(names)[:4])[:400]
            raise refused(
                f"the file {words} {len(names)} tensors of {described.architecture} ({few}…); check num_classes and "
                "whether the architecture is torchvision's or timm's (library in the config)"
            )
    for name, shape in wanted.items():
        if given[name] != shape:
            raise refused(
                f"{name} has the shape {list(given[name])}, {described.architecture} with num_classes "
                f"{described.num_classes} has {list(shape)} there; correct the config"
            )


def _filled(module: torch.nn.Module, described: Described, tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """Return the module with the tensors as its own, computing in FP32 as the library does by itself.

    What a module keeps beside its state dict (a table of positions) is not in the file: such a module is built again
    with memory.
    """
    import torch

    kept = dict(module.named_buffers()).keys() - module.state_dict().keys()
    loose = (value for part in module.modules() for value in vars(part).values() if isinstance(value, torch.Tensor))
    if kept or any(value.is_meta for value in loose):
        module = _made(described).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.load_state_dict(dict(tensors), strict=True, assign=True)
    return module.to(torch.float32).requires_grad_(False)


def _is_recurrent(module: torch.nn.Module) -> bool:
    """Return whether a part makes a state of the batch's size, which a trace may freeze (timm's sequencer2d_s)."""
    from torch import nn

    return any(isinstance(part, nn.RNNBase) for part in module.modules())


def _answering(module: torch.nn.Module) -> Callable[..., Sequence[torch.Tensor]]:
    """Return the module with a tuple as its answer, still a module: it can be traced."""
    from torch import nn

    class Answering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
            return (self.module(image),)

    return Answering().eval()
