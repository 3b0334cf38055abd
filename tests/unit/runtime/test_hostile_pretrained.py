"""Is every hostile folder of transformers refused by name, with nothing of it run and nothing large built?"""

from __future__ import annotations

import json
import pickle
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evenkeel_runtime.config import Model
from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.models.recognised import recognised_folder
from tests.unit.runtime.hostile import Bomb
from tests.unit.runtime.pretrained_folders import Files, changed, image_model, processor, saved, text_model, tokenizer
from tests.unit.runtime.statedicts import bundle, header_of, with_header

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
SETTINGS, PROCESSOR, MODULES = "tokenizer_config.json", "preprocessor_config.json", "modules.json"

Build = Callable[[Files, Path], Files]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    return {
        "text": saved(tmp_path_factory.mktemp("bert"), text_model(), tokenizer()),
        "embedding": saved(tmp_path_factory.mktemp("encoder"), text_model("distilbert", "Model"), tokenizer()),
        "image": saved(tmp_path_factory.mktemp("vit"), image_model(), processor("vit")),
    }


def inspected(files: Files) -> None:
    """Inspect as `prepare` does, then load as the server does."""
    recognised_folder(bundle(files), Model("Auto", "", False)).signature()
    recognised_folder(bundle(files), Model("Auto", "", False)).load("cpu")


def _config(**changes: Any) -> Build:
    return lambda files, canary: changed(files, CONFIG, **changes)


def _in(name: str, **changes: Any) -> Build:
    return lambda files, canary: changed(files if name in files else files | {name: b"{}"}, name, **changes)


def _file(name: str, data: bytes) -> Build:
    return lambda files, canary: files | {name: data}


def _without(name: str) -> Build:
    return lambda files, canary: {path: data for path, data in files.items() if path != name}


def _pickled(name: str) -> Build:
    def build(files: Files, canary: Path) -> Files:
        return {path: data for path, data in files.items() if path != WEIGHTS} | {name: pickle.dumps(Bomb(canary))}

    return build


def _index(files: Files, canary: Path) -> Files:
    index = {"weight_map": {"classifier.weight": "pytorch_model-00001.bin"}}
    more = {"model.safetensors.index.json": json.dumps(index).encode()}
    return files | more | {"pytorch_model-00001.bin": pickle.dumps(Bomb(canary))}


def _code(key: str, value: Any) -> Build:
    """Return a folder that brings the module which its configuration asks for."""

    def build(files: Files, canary: Path) -> Files:
        code = f"import os\nos.system('touch {canary}')\nclass Net: ...\n".encode()
        return changed(files, CONFIG, **{key: value}) | {"modeling_net.py": code, "configuration_net.py": code}

    return build


def _weights_are_a_pickle(files: Files, canary: Path) -> Files:
    return files | {WEIGHTS: pickle.dumps(Bomb(canary))}


def _renamed(files: Files, canary: Path) -> Files:
    header = header_of(files[WEIGHTS])
    header["__reduce__"] = header.pop("classifier.weight")
    return files | {WEIGHTS: with_header(files[WEIGHTS], header)}


def _vocabulary(files: Files, canary: Path) -> Files:
    told = json.loads(files[TOKENIZER])
    told["model"]["vocab"]["evil"] = 1 << 20
    return files | {TOKENIZER: json.dumps(told).encode()}


def _expression(files: Files, canary: Path) -> Files:
    pattern = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    return changed(files, TOKENIZER, pre_tokenizer=pattern)


def _pooled(kinds: list[str], pooling: dict[str, Any], path: str = "1_Pooling") -> Build:
    steps = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind in kinds]
    more = {MODULES: json.dumps(steps).encode(), "1_Pooling/config.json": json.dumps(pooling).encode()}
    return lambda files, canary: files | more


def _nested(depth: int) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


HOSTILE: dict[str, tuple[str, Build, str]] = {
    "weights of torch.save": ("text", _pickled("pytorch_model.bin"), "pytorch_model.bin"),
    "weights of TensorFlow": ("text", _pickled("tf_model.h5"), "tf_model.h5"),
    "weights of Flax": ("text", _pickled("flax_model.msgpack"), "flax_model.msgpack"),
    "an index of pickles": ("text", _index, "pytorch_model-00001.bin"),
    "a pickle called safetensors": ("text", _weights_are_a_pickle, "no safetensors file"),
    "no weights at all": ("text", _without(WEIGHTS), "no weights"),
    "a weight of another name": ("text", _renamed, "classifier.weight"),
    "a model of its own": ("text", _code("auto_map", {"AutoModel": "modeling_net.Net"}), "auto_map"),
    "a model of a repository": ("text", _code("auto_map", {"AutoModel": "ann/evil--modeling.Net"}), "auto_map"),
    "code that is to be trusted": ("text", _code("trust_remote_code", True), "trust_remote_code"),
    "a pipeline of its own": ("text", _code("custom_pipelines", {"x": {"impl": "modeling_net.Net"}}), "custom_pipe"),
    "attention from a hub": ("text", _config(attn_implementation="ann/kernels"), "attn_implementation"),
    "attention from a hub, by its private name": ("text", _config(_attn_implementation="ann/k"), "_attn_impl"),
    "a quantiser": ("text", _config(quantization_config={"quant_method": "gptq"}), "quantization_config"),
    "fused layers": ("text", _config(fusion_config={"patch_embeddings": True}), "fusion_config"),
    "a tokenizer of its own": ("text", _in(SETTINGS, auto_map={"AutoTokenizer": ["t.T", None]}), "auto_map"),
    "an image processor of its own": ("image", _in(PROCESSOR, auto_map={"AutoImageProcessor": "p.P"}), "auto_map"),
    "an image processor of another name": ("image", _in(PROCESSOR, image_processor_type="os.system"), "'os.system'"),
    "an architecture that is a path": ("text", _config(architectures=["os.system"]), "'os.system'"),
    "an architecture of another model": ("text", _config(architectures=["GPT2LMHeadModel"]), "'GPT2LMHeadModel'"),
    "an architecture that tags tokens": ("text", _config(architectures=["BertForTokenClassification"]), "BertForTok"),
    "architectures that are no list": ("text", _config(architectures="BertModel"), "architectures"),
    "two architectures": ("text", _config(architectures=["BertModel"] * 2), "architectures"),
    "a model that is not served": ("text", _config(model_type="llama"), "'llama'"),
    "a model that is a path": ("text", _config(model_type="../../etc/passwd"), "'../../etc/passwd'"),
    "a model of timm's": ("image", _config(model_type="timm_wrapper"), "timm_wrapper"),
    "a decoder": ("text", _config(is_decoder=True), "is_decoder"),
    "layers without end": ("text", _config(num_hidden_layers=1 << 30), "num_hidden_layers"),
    "more layers than weights": ("text", _config(num_hidden_layers=100_000), "num_hidden_layers"),
    "layers of convolution without end": ("image", _config(depths=[1 << 20, 1 << 20]), "depths"),
    "a width without end": ("text", _config(hidden_size=1 << 30), "BertForSequenceClassification"),
    "a number beyond all": ("text", _config(vocab_size=1 << 62), "vocab_size"),
    "words without end": ("text", _config(vocab_size=1 << 30), "weights"),
    "a text without end": ("text", _config(max_position_embeddings=1 << 30), "weights"),
    "a picture without end": ("image", _config(image_size=1 << 20), "ViTForImageClassification"),
    "a picture of nothing": ("image", _config(image_size=0), "ViTForImageClassification"),
    "a word for a number": ("text", _config(hidden_size="__import__('os')"), "hidden_size"),
    "an activation nobody has": ("text", _config(hidden_act="os.system"), "os.system"),
    "heads that do not divide": ("text", _config(num_attention_heads=7), "heads"),
    "a value that is nested": ("text", _config(rope_parameters=_nested(50)), "nested"),
    "brackets without end": ("text", _file(CONFIG, b'{"model_type":' + b"[" * 200_000), "config.json is no JSON"),
    "a number that is none": ("text", _file(CONFIG, b'{"model_type": "bert", "a": NaN}'), "config.json is no JSON"),
    "classes of one name": ("text", _config(id2label={"0": "a", "1": "a", "2": "b"}), "'a' twice"),
    "classes that lack one": ("text", _config(id2label={"0": "a", "2": "b"}), "id2label"),
    "other classes than weights": ("text", _config(id2label={"0": "a", "1": "b"}), "another shape"),
    "classes that are no object": ("text", _config(id2label=["a"]), "id2label"),
    "no tokenizer": ("text", _without(TOKENIZER), "no tokenizer.json"),
    "a tokenizer that is a pickle": ("text", _file(TOKENIZER, pickle.dumps([1])), "tokenizer.json is no JSON"),
    "a tokenizer of nothing": ("text", _file(TOKENIZER, b"{}"), "tokenizers cannot read tokenizer.json"),
    "a tokenizer of brackets": ("text", _file(TOKENIZER, b"[" * 200_000), "tokenizer.json is no JSON"),
    "a model of words nobody has": ("text", _in(TOKENIZER, model={"type": "Evil"}), "tokenizers cannot read"),
    "words beyond the embedding": ("text", _vocabulary, "tokenizer.json has tokens up to 1048576"),
    "an expression that takes for ever": ("text", _expression, "(a+)+$"),
    "texts of no length": ("text", _in(SETTINGS, model_max_length=2), "the model takes 2 tokens"),
    "no image processor": ("image", _without(PROCESSOR), "no preprocessor_config.json"),
    "pictures made without end": ("image", _in(PROCESSOR, size={"height": 1 << 30, "width": 32}), "size"),
    "pictures of no size": ("image", _in(PROCESSOR, size={"longest_edge": 32}), "size"),
    "pictures divided by nothing": ("image", _in(PROCESSOR, image_std=[0.0, 1.0, 1.0]), "image_std"),
    "pictures less a word": ("image", _in(PROCESSOR, image_mean="0.5"), "image_mean"),
    "a switch that is a word": ("image", _in(PROCESSOR, do_resize="yes"), "do_resize"),
    "pictures as they come": ("image", _in(PROCESSOR, do_resize=False), "different sizes"),
    "pictures of ten colours": ("image", _config(num_channels=10), "num_channels"),
    "a step that is code": ("embedding", _pooled(["Transformer", "evil.Net"], {}), "modules.json"),
    "a dense step": ("embedding", _pooled(["Transformer", "Pooling", "Dense"], {}), "Dense"),
    "a pooling from elsewhere": ("embedding", _pooled(["Transformer", "Pooling"], {}, "../../etc"), "../../etc/config"),
    "two poolings at once": (
        "embedding",
        _pooled(["Transformer", "Pooling"], {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}),
        "cls, max",
    ),
    "a pooling nobody has": ("embedding", _pooled(["Transformer", "Pooling"], {"pooling_mode": "eval"}), "eval"),
    "steps that are no list": ("embedding", _file(MODULES, b"{}"), "modules.json"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_folder_is_refused_by_name_and_nothing_runs(
    name: str, folders: dict[str, Files], tmp_path: Path
) -> None:
    of, build, want = HOSTILE[name]
    canary = tmp_path / "canary"
    files = build(folders[of], canary)
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError) as failure:
        inspected(files)
    assert time.monotonic() - start < 30  # no hang; the machine may be slow
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    assert failure.value.reason == Reason.FORMAT_REFUSED
    assert want in failure.value.message
    assert len(failure.value.message) < 2000
    assert not canary.exists()


@pytest.mark.parametrize("of", ["text", "embedding", "image"])
def test_the_folders_that_the_corpus_is_made_of_are_accepted(of: str, folders: dict[str, Files]) -> None:
    inspected(folders[of])
