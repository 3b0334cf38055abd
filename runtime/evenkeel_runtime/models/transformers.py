"""How does a folder as Hugging Face's transformers saves it become a callable?

`config.json` is judged by `pretrained.py` as data. The library then builds the class that was chosen there, given its
weights as views of the memory that was hashed; no folder, no name of a repository and no pickle reaches it, and it is
told that it is offline. Texts go in as text (`tokens.py`), pictures as they are decoded (`pictures.py`): what a
tokenizer or an image processor does is part of the model, and a client that did it in another way would get other
answers without a word.

A classifier answers `label`, `probabilities` and `logits`; a model of the base class answers `embedding`: of a text the
mean over its tokens unless the folder's sentence-transformers files say otherwise, of a picture the model's own pooled
output. The library is imported when a folder is one of its own, never before.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.failure import last_line, refused
from evenkeel_runtime.models import pictures, pooling, pretrained, tokens, weights
from evenkeel_runtime.models.bundle import Bundle
from evenkeel_runtime.models.datatypes import BYTES
from evenkeel_runtime.models.format import BundleFormat
from evenkeel_runtime.models.loaded import Loaded, Signature
from evenkeel_runtime.models.pretrained import Described
from evenkeel_runtime.models.weights import Weights
from evenkeel_runtime.report import is_out_of_memory

if TYPE_CHECKING:
    import torch

    from evenkeel_runtime.models.pictures import Pictures
    from evenkeel_runtime.models.tokens import Tokens

NAME = "Transformers"
PLATFORM = "pytorch_transformers"
_SLACK = 1 << 16
_TABLES = 1 << 24
"""Numbers that a model may compute for itself and keep, beside its weights: tables of positions."""
_UNUSED = "pooler."
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
_MALFORMED = (
    *(LookupError, TypeError, ValueError, AttributeError, RecursionError, ImportError, ArithmeticError),
    *(AssertionError, RuntimeError, NotImplementedError),
)
"""What transformers raises at a configuration that does not look like its own."""

log = logging.getLogger("evenkeel")


@dataclasses.dataclass(frozen=True, slots=True)
class _Prepared:
    """The model's class with its configuration, what callers see, and what makes its inputs of a request's."""

    kind: Any
    config: Any
    signature: Signature
    taken: Tokens | Pictures
    pooled: pooling.Pooling


def signature(bundle: Bundle) -> Signature:
    found = weights.read(bundle)
    described = pretrained.describe(bundle, len(found.tensors))
    prepared = _prepared(bundle, described)
    _built(prepared, described, found, weightless(found))
    return prepared.signature


def load(bundle: Bundle, device: str) -> Loaded:
    """Return the model in inference mode on `device`, computing in FP32 whatever its file's precision."""
    found = weights.read(bundle)
    described = pretrained.describe(bundle, len(found.tensors))
    prepared = _prepared(bundle, described)
    model = _built(prepared, described, found, weights.loaded(bundle, found)).to(device).requires_grad_(False)
    call = _of_pictures if described.is_of_images else _of_texts
    return Loaded(
        NAME, PLATFORM, prepared.signature, call(prepared, described, model, device), device,
        traceable=False, parameters=_parameters(prepared, described), precision="FP32",
    )  # fmt: skip


FORMAT = BundleFormat(NAME, pretrained.recognises, signature, load)


def _parameters(prepared: _Prepared, described: Described) -> dict[str, object]:
    found: dict[str, object] = {
        "task": described.task,
        "model_type": described.model_type,
        "architecture": described.architecture,
        "transformers_version": described.version,
    }
    if isinstance(prepared.taken, tokens.Tokens):
        found["max_tokens"] = prepared.taken.most
    if described.task == "embedding":
        found["pooling"] = "pooler" if described.is_of_images else prepared.pooled.word
    if described.classes:
        found["classes"] = list(described.classes)
    return found


def imported() -> Any:
    """Return transformers, told beforehand that there is no hub, and quiet."""
    os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def weightless(found: Weights) -> dict[str, torch.Tensor]:
    """Return tensors of the same names and shapes that take no memory: one number each, seen everywhere."""
    import torch

    return {name: torch.zeros(()).expand(weight.shape) for name, weight in found.tensors.items()}


def _prepared(bundle: Bundle, described: Described) -> _Prepared:
    pooled = pooling.read(bundle) if described.task == "embedding" and not described.is_of_images else pooling.MEAN
    prepares = pictures.described(bundle) if described.is_of_images else None
    library = imported()
    with _library():
        kind = getattr(library, described.architecture)
        config = _configuration(kind.config_class, described.config)
        taken = tokens.read(bundle, config) if prepares is None else pictures.built(prepares, config)
    return _Prepared(kind, config, _signature(described, config, taken), taken, pooled)


def _configuration(kind: Any, told: Mapping[str, Any]) -> Any:
    """Return the configuration of these values; none takes the place of what the class has beside its fields."""
    fields = {field.name for field in dataclasses.fields(kind)}
    own = {key for key in told if key in fields or (not key.startswith("_") and not hasattr(kind, key))}
    return kind(**{key: told[key] for key in sorted(own)})


def _signature(described: Described, config: Any, taken: Tokens | Pictures) -> Signature:
    example: tuple[int, ...] = (1,)
    given = Tensor("text", BYTES, (-1,))
    if not isinstance(taken, tokens.Tokens):
        given, example = Tensor("image", "UINT8", (-1, -1, -1, 3)), (1, *taken.size, 3)
    count = len(described.classes)
    match described.task:
        case "embedding":
            outputs = [Tensor("embedding", "FP32", (-1, _width(config)))]
        case "regression":
            outputs = [Tensor("prediction", "FP32", (-1,))]
        case "classification":
            outputs = [Tensor("label", BYTES, (-1,)), *_scores(count)]
        case _:
            outputs = _scores(count)
    return Signature((given,), tuple(outputs), batch=0, example=(example,), classes=described.classes)


def _scores(count: int) -> list[Tensor]:
    return [Tensor("probabilities", "FP32", (-1, count)), Tensor("logits", "FP32", (-1, count))]


def _width(config: Any) -> int:
    """Return how many numbers an embedding has."""
    sizes = getattr(config, "hidden_sizes", None)
    return int(sizes[-1] if isinstance(sizes, list) else config.hidden_size)


@contextmanager
def _library() -> Iterator[None]:
    """Refuse what the library makes nothing of, in its words."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (*_MALFORMED, StrictDataclassError) as error:
        if is_out_of_memory(error):
            raise
        raise refused(
            f"transformers cannot build the model ({last_line(error)[:240]}); save it again with save_pretrained"
        ) from error


def _built(prepared: _Prepared, described: Described, found: Weights, tensors: dict[str, torch.Tensor]) -> Any:
    """Return the model with the tensors as its own, having made sure that its file has as many."""
    import torch

    name = described.architecture
    with _library():
        with torch.device("meta"):
            outline = prepared.kind(prepared.config)
        needed = sum(weight.numel() for weight in outline.parameters())
        tables = sum(table.numel() for table in outline.buffers())
        there = sum(weight.stop - weight.start for weight in found.tensors.values())
        if needed > there + _SLACK or tables > there + _TABLES:
            raise refused(f"{name} as config.json says has {needed} weights, the file {there} bytes; save it again")
        model, told = prepared.kind.from_pretrained(
            None, config=prepared.config, state_dict=tensors, dtype=torch.float32, output_loading_info=True,
            ignore_mismatched_sizes=True, local_files_only=True,
        )  # fmt: skip
    if other := sorted(str(key[0]) for key in told["mismatched_keys"]):
        raise refused(f"the weights {_few(other)} have another shape than {name} with this config.json; correct it")
    spare = _UNUSED if described.task == "embedding" and not described.is_of_images else None
    missing = sorted(key for key in told["missing_keys"] if spare is None or not key.startswith(spare))
    if missing or told["error_msgs"]:
        raise refused(f"the file lacks {_few(missing)} of {name}; save the model again, after training it")
    if told["unexpected_keys"]:
        log.warning("weights not used architecture=%s weights=%s", name, _few(sorted(told["unexpected_keys"])))
    return model.eval()


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4])[:300] + more


def _of_texts(
    prepared: _Prepared, described: Described, model: Any, device: str
) -> Callable[..., Sequence[torch.Tensor]]:
    import inspect

    import torch

    taken = prepared.taken
    assert isinstance(taken, tokens.Tokens)
    takes_types = "token_type_ids" in inspect.signature(model.forward).parameters
    is_embedding = described.task == "embedding"
    finished = _finishing(described)

    def call(*inputs: Any) -> Sequence[torch.Tensor]:
        texts = inputs[0]
        rows: Any = None
        for piece in taken.pieces(texts):
            ids, mask = torch.from_numpy(piece.ids).to(device), torch.from_numpy(piece.mask).to(device)
            more = {"token_type_ids": torch.from_numpy(piece.types).to(device)} if takes_types else {}
            answer = model(input_ids=ids, attention_mask=mask, **more)
            got = prepared.pooled.of(answer.last_hidden_state, mask) if is_embedding else answer.logits
            if rows is None:
                rows = got.new_empty(len(texts), *got.shape[1:])
            rows[piece.rows] = got
        return finished(rows)

    return call


def _of_pictures(
    prepared: _Prepared, described: Described, model: Any, device: str
) -> Callable[..., Sequence[torch.Tensor]]:
    taken = prepared.taken
    assert isinstance(taken, pictures.Pictures)
    is_embedding = described.task == "embedding"
    finished = _finishing(described)

    def call(*inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        answer = model(pixel_values=taken.values(inputs[0]).to(device))
        return finished(answer.pooler_output.flatten(1) if is_embedding else answer.logits)

    return call


def _finishing(described: Described) -> Callable[[torch.Tensor], Sequence[Any]]:
    """Return how the model's numbers become the outputs of the signature."""
    import numpy as np

    names = np.array([name.encode() for name in described.classes], dtype=object)

    def labelled(logits: torch.Tensor) -> Sequence[Any]:
        return names[logits.argmax(1).cpu().numpy()], logits.softmax(1), logits

    match described.task:
        case "embedding":
            return lambda rows: (rows,)
        case "regression":
            return lambda logits: (logits[:, 0],)
        case "classification":
            return labelled
        case _:
            return lambda logits: (logits.sigmoid(), logits)
