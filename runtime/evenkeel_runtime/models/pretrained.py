"""What does the `config.json` of a folder as Hugging Face's transformers saves it describe, and may it be built?

Judged as data, before the library is imported. A configuration of transformers can name code to download (`auto_map`),
kernels on a hub (`attn_implementation`), libraries that quantise, and layers without end. So what is built is chosen
here: encoders of text and of images whose code asks nobody for anything, for the tasks that have a row of answers per
row of inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evenkeel_runtime.failure import refused
from evenkeel_runtime.models.bundle import Bundle

CONFIG = "config.json"
TEXTS: Mapping[str, str] = {
    "albert": "Albert",
    "bert": "Bert",
    "camembert": "Camembert",
    "deberta": "Deberta",
    "deberta-v2": "DebertaV2",
    "distilbert": "DistilBert",
    "electra": "Electra",
    "modernbert": "ModernBert",
    "mpnet": "MPNet",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
}
IMAGES: Mapping[str, str] = {
    "beit": "Beit",
    "convnext": "ConvNext",
    "convnextv2": "ConvNextV2",
    "deit": "DeiT",
    "dinov2": "Dinov2",
    "resnet": "ResNet",
    "swin": "Swin",
    "vit": "ViT",
}
"""What is served: transformers' word for the model, and how the names of its classes begin."""

Task = Literal["classification", "multi-label classification", "regression", "embedding"]

_CONFIG_BYTES = 16 << 20
_DEPTH = 8
_LARGEST = 1 << 31
_FEW_LAYERS = 64
_CLASSES = 1_000_000
_CODE = ("auto_map", "custom_pipelines", "trust_remote_code", "custom_generate")
_ELSEWHERE = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
_FOREIGN = ("quantization_config", "compression_config", "fusion_config", "kernel_config", "peft_config")
_SERVED_HERE = frozenset(
    {
        "architectures",
        "model_type",
        "transformers_version",
        "dtype",
        "torch_dtype",
        "id2label",
        "label2id",
        "num_labels",
    }
    | {"return_dict", "output_attentions", "output_hidden_states", "torchscript", "use_cache", "reference_compile"}
)
"""What this runtime decides, whatever the file says."""
_LAYERS = ("layer", "depth", "block", "group", "stage")
_WAY_OUT = "export the model with torch.export.save instead (TorchExport)"


@dataclass(frozen=True, slots=True)
class Described:
    """What the folder says of its model: `config` is what transformers' configuration is built from, `classes` have the
    classes' names in the order of the scores, and none where the answer is a number or an embedding."""

    model_type: str
    architecture: str
    task: Task
    is_of_images: bool
    config: Mapping[str, Any]
    classes: tuple[str, ...]
    version: str


def recognises(bundle: Bundle) -> bool:
    return CONFIG in bundle.files and isinstance(bundle.json(CONFIG).get("model_type"), str)


def describe(bundle: Bundle, tensors: int) -> Described:
    """Return what config.json says, or refuse it; the file of weights has so many `tensors`."""
    if bundle.files[CONFIG].size > _CONFIG_BYTES:
        raise refused(f"{CONFIG} has {bundle.files[CONFIG].size} bytes, more than the {_CONFIG_BYTES} it may have")
    told = bundle.json(CONFIG)
    _require_no_code(told)
    model_type = str(told["model_type"])
    architecture = _architecture(told, model_type)
    _require_bounded(told, tensors)
    is_classifier = "Classification" in architecture
    names = _names(told) if is_classifier else ()
    task: Task = "embedding"
    if is_classifier:
        task = "classification" if len(names) > 1 else "regression"
        problem = told.get("problem_type")
        if problem == "multi_label_classification":
            task = "multi-label classification"
        elif problem == "regression" and len(names) > 1:
            raise refused(f"{CONFIG}: problem_type is regression of {len(names)} numbers per row; {_WAY_OUT}")
    config = {key: value for key, value in told.items() if key not in _SERVED_HERE}
    if is_classifier:
        config |= {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    return Described(
        model_type,
        architecture,
        task,
        model_type in IMAGES,
        config,
        () if task == "regression" else names,
        str(told.get("transformers_version", ""))[:40],
    )


def require_no_code_beside(name: str, told: Mapping[str, Any]) -> None:
    """Raise where a file beside config.json asks for code of its own."""
    for key in _CODE:
        if told.get(key):
            raise refused(
                f"{name}: {key} asks for code that comes with the model ({str(told[key])[:120]}), which is never run; "
                f"save the model as one of transformers' own, or {_WAY_OUT}"
            )


def _require_no_code(told: Mapping[str, Any]) -> None:
    require_no_code_beside(CONFIG, told)
    for key in _ELSEWHERE:
        if "/" in str(told.get(key, "")):
            raise refused(
                f"{CONFIG}: {key} is {str(told[key])[:120]!r}, code on a hub, which is never run; take it out"
            )
    for key in _FOREIGN:
        if told.get(key):
            raise refused(
                f"{CONFIG}: {key} asks for a library that this runtime does not use; save the model without "
                f"(model.dequantize() where it is quantised), or {_WAY_OUT}"
            )
    for key in ("is_decoder", "add_cross_attention", "is_encoder_decoder"):
        if told.get(key):
            raise refused(f"{CONFIG}: {key} is set; decoders are not served here: {_WAY_OUT}")


def _architecture(told: Mapping[str, Any], model_type: str) -> str:
    named = told.get("architectures")
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str):
        raise refused(
            f"{CONFIG}: architectures has to be a list of one name, as save_pretrained writes it; it is "
            f"{str(named)[:120]}"
        )
    prefix = TEXTS.get(model_type) or IMAGES.get(model_type)
    if prefix is None:
        raise refused(
            f"{CONFIG}: model_type is {model_type[:80]!r}; served are {', '.join(sorted({*TEXTS, *IMAGES}))}. Any "
            f"other: {_WAY_OUT}"
        )
    head = "ForSequenceClassification" if model_type in TEXTS else "ForImageClassification"
    served = [f"{prefix}{head}", f"{prefix}Model"]
    if named[0] not in served:
        raise refused(
            f"{CONFIG}: the architecture is {named[0][:120]!r}; of {model_type}, this runtime serves "
            f"{' (classification) and '.join(served)} (embeddings). Any other: {_WAY_OUT}"
        )
    return str(named[0])


def _names(told: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes; transformers leaves them out where there are two without a name."""
    named = told.get("id2label")
    if named is None:
        return ("LABEL_0", "LABEL_1")
    if not isinstance(named, dict) or not 0 < len(named) <= _CLASSES:
        raise refused(f"{CONFIG}: id2label has to be an object of up to {_CLASSES} names by their index")
    if named.keys() != {str(index) for index in range(len(named))}:
        raise refused(f"{CONFIG}: id2label has to name the indices 0 to {len(named) - 1}, each once")
    names = tuple(str(named[str(index)]) for index in range(len(named)))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise refused(f"{CONFIG}: id2label names {twice[:120]!r} twice; give every class a name of its own")
    return names


def _require_bounded(told: Mapping[str, Any], tensors: int) -> None:
    """Raise where the model would take long to build: layers have weights, and those are counted."""
    for key, value in told.items():
        _require_plain(key, value, _DEPTH)
        counts = value if isinstance(value, list) else [value]
        layers = sum(count for count in counts if type(count) is int and count > 0)
        if any(word in key for word in _LAYERS) and layers > max(_FEW_LAYERS, tensors):
            raise refused(f"{CONFIG}: {key} is {str(value)[:80]}, and the weights are {tensors} tensors; correct one")


def _require_plain(key: str, value: Any, depth: int) -> None:
    if depth == 0:
        raise refused(f"{CONFIG}: {key} is nested more than {_DEPTH} levels deep; save the model again")
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _require_plain(key, part, depth - 1)
    elif isinstance(value, int | float) and not -_LARGEST < value < _LARGEST:
        raise refused(f"{CONFIG}: {key} is {str(value)[:40]}, beyond what any model has; save the model again")
