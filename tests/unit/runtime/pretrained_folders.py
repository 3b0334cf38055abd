"""What are folders of transformers for the tests? Small models with made-up weights, saved by the library's own calls.

Their tokenizer has learned its words from what scikit-learn says of its data sets.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import datasets
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from evenkeel_runtime.models.pretrained import IMAGES, TEXTS
from evenkeel_runtime.models.transformers import imported

Files = dict[str, bytes]
LABELS = ("calm", "fair", "rough")
WORDS, WIDTH, MOST, SIDE = 300, 32, 40, 32
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
OFFSET = {"camembert": 1, "mpnet": 2, "roberta": 1, "xlm-roberta": 1}
"""How many positions a model has beside those of its tokens, when its padding is token 0."""
SMALL: Mapping[str, Mapping[str, Any]] = {
    "albert": {"embedding_size": 16},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "distilbert": {"dim": WIDTH, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
    "electra": {"embedding_size": 16},
    "modernbert": {"local_attention": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "beit": {"use_relative_position_bias": True},
    "convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
    "convnextv2": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
    "resnet": {"hidden_sizes": [8, 16], "depths": [1, 1], "embedding_size": 8},
    "swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "patch_size": 4},
}
PROCESSORS: Mapping[str, str] = {
    "beit": "BeitImageProcessor",
    "convnext": "ConvNextImageProcessor",
    "convnextv2": "ConvNextImageProcessor",
    "deit": "DeiTImageProcessor",
    "dinov2": "BitImageProcessor",
    "resnet": "ConvNextImageProcessor",
    "swin": "ViTImageProcessor",
    "vit": "ViTImageProcessor",
}


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def descriptions() -> tuple[str, ...]:
    """Return real English: what scikit-learn says of the data that it carries, line by line."""
    loaders = (datasets.load_iris, datasets.load_wine, datasets.load_breast_cancer, datasets.load_digits)
    lines = [line.strip() for load in loaders for line in str(load().DESCR).splitlines()]
    return tuple(line for line in lines if len(line) > 20)


def tokenizer() -> Any:
    """Return a tokenizer of pieces of words, as BERT's."""
    return imported().PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained()), pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]", model_max_length=MOST,
    )  # fmt: skip


@cache
def _trained() -> str:
    """Return one tokenizer a run: which of two words of equal use it learns is chance."""
    built = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    built.normalizer = normalizers.BertNormalizer(lowercase=True)
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=WORDS, special_tokens=list(SPECIAL), show_progress=False)
    built.train_from_iterator(descriptions(), trainer)
    built.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    found: str = built.to_str()
    return found


def text_model(model_type: str = "bert", head: str = "ForSequenceClassification", **more: Any) -> Any:
    """Return a small encoder of texts whose weights are none that training would begin with: its answers differ."""
    told: dict[str, Any] = {
        "vocab_size": WORDS,
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": MOST + OFFSET.get(model_type, 0),
        "pad_token_id": 0,
        **SMALL.get(model_type, {}),
        **more,
    }
    if model_type == "distilbert":
        told = {key: value for key, value in told.items() if key not in ("hidden_size", "intermediate_size")}
    return _made(TEXTS[model_type], head, told)


def image_model(model_type: str = "vit", head: str = "ForImageClassification", **more: Any) -> Any:
    told: dict[str, Any] = {"image_size": SIDE, "num_labels": len(LABELS), **SMALL.get(model_type, {}), **more}
    if not SMALL.get(model_type) or model_type == "beit":
        told |= {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        told |= {"patch_size": 8}
    return _made(IMAGES[model_type], head, told)


def _made(prefix: str, head: str, told: dict[str, Any]) -> Any:
    library = imported()
    if head != "Model":
        told = {"id2label": dict(enumerate(LABELS)), "label2id": {n: i for i, n in enumerate(LABELS)}, **told}
        told.pop("num_labels", None)
    torch.manual_seed(3)
    with quiet():
        kind = getattr(library, prefix + head)
        model = kind(kind.config_class(**told)).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.data = torch.randn_like(weight) * 0.3
    return model.requires_grad_(False)


def processor(model_type: str) -> Any:
    kind = getattr(imported(), PROCESSORS[model_type])
    size: dict[str, Any] = {"size": {"height": SIDE, "width": SIDE}}
    if kind.__name__ == "ConvNextImageProcessor":
        size = {"size": {"shortest_edge": SIDE}}
    elif kind.__name__ == "BitImageProcessor":
        size = {"size": {"shortest_edge": SIDE + 4}, "crop_size": {"height": SIDE, "width": SIDE}}
    elif kind.__name__ == "DeiTImageProcessor":
        size = {"size": {"height": SIDE + 4, "width": SIDE + 4}, "crop_size": {"height": SIDE, "width": SIDE}}
    return kind(**size)


def saved(folder: Path, *parts: Any, **how: Any) -> Files:
    """Return what the library's own calls write of a model and what belongs to it."""
    with quiet():
        for part in parts:
            part.save_pretrained(folder, **(how if hasattr(part, "config") else {}))
    return files_of(folder)


def files_of(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def changed(files: Files, name: str, **changes: Any) -> Files:
    """Return the folder with other values in one of its files of JSON."""
    told = json.loads(files[name]) | changes
    return files | {name: json.dumps(told).encode()}


def texts(*lines: str | bytes) -> NDArray[Any]:
    found = np.empty(len(lines), object)
    found[:] = [line.encode() if isinstance(line, str) else line for line in lines]
    return found
