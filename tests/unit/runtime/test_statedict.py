"""Are weights and the name of an architecture served as the library answers, and nothing else built or run?"""

from __future__ import annotations

import io
import json
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torchvision import models

from evenkeel_runtime.config import Model
from evenkeel_runtime.contract import Reason, Tensor
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.models.recognised import recognised, recognised_folder
from tests.unit.runtime.hostile import Bomb
from tests.unit.runtime.statedicts import (
    CLASSES,
    Files,
    bundle,
    header_of,
    single,
    timm_folder,
    timm_module,
    torchvision_module,
    with_header,
)

ANYTHING = Model("Auto", "", False)
NAMES = [f"kind {number}" for number in range(CLASSES)]


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return timm_folder(timm_module(), tmp_path_factory.mktemp("timm"))


def loaded(files: Files, model: Model = ANYTHING) -> Any:
    found = recognised_folder(bundle(files), model)
    seen = found.signature()
    result = found.load("cpu")
    assert result.signature == seen
    return result


def config(files: Files, **changes: Any) -> Files:
    told = json.loads(files["config.json"]) | changes
    return files | {"config.json": json.dumps(told).encode()}


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_folder_of_timm_answers_as_timm_does(name: str, tmp_path: Path) -> None:
    module: Any = timm_module(name)
    result = loaded(timm_folder(module, tmp_path))
    assert (result.format, result.parameters["architecture"]) == ("StateDict", name)
    size = module.pretrained_cfg["input_size"]
    assert result.signature.inputs == (Tensor("image", "FP32", (-1, *size)),)
    assert result.signature.outputs == (Tensor("logits", "FP32", (-1, CLASSES)),)
    rows = torch.randn(3, *size)
    torch.testing.assert_close(result.call(rows)[0], module(rows), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small"])
def test_file_that_stands_alone_answers_as_torchvision_does(name: str) -> None:
    module = torchvision_module(name)
    (data,) = single(
        module,
        architecture=name,
        num_classes=str(CLASSES),
        input_size="[3, 64, 64]",
        classes=json.dumps(NAMES),
    ).values()
    found = recognised(io.BytesIO(data), len(data), ANYTHING, memoryview(bytearray(data)))
    assert found.name == "StateDict"
    assert found.signature().classes == tuple(NAMES)
    rows = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(found.load("cpu").call(rows)[0], module(rows), atol=1e-5, rtol=0)


def test_weights_are_the_memory_that_was_read(folder: Files) -> None:
    files = bundle(folder)
    view = files.files["model.safetensors"].view
    assert view is not None
    first = torch.frombuffer(view, dtype=torch.uint8).data_ptr()
    result: Any = recognised_folder(files, ANYTHING).load("cpu")
    places = [weight.data_ptr() - first for weight in result.call.parameters()]
    assert all(0 <= place < len(view) for place in places)


@pytest.mark.parametrize("names", [NAMES, {str(index): name for index, name in enumerate(NAMES)}])
def test_classes_are_those_of_timms_label_names(folder: Files, names: object) -> None:
    trained = json.loads(folder["config.json"])["pretrained_cfg"]
    assert loaded(config(folder, label_names=names)).signature.classes == tuple(NAMES)
    assert loaded(config(folder, pretrained_cfg=trained | {"label_names": names})).signature.classes == tuple(NAMES)


def test_model_without_a_head_answers_an_embedding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = timm.create_model("test_resnet", num_classes=0).eval()
    result = loaded(timm_folder(module, tmp_path))
    assert result.signature.outputs == (Tensor("embedding", "FP32", (-1, module.num_features)),)


def test_half_precision_weights_answer_in_fp32(folder: Files) -> None:
    module = timm_module().half()
    files = folder | single(module)
    rows = torch.randn(2, *json.loads(folder["config.json"])["pretrained_cfg"]["input_size"])
    torch.testing.assert_close(loaded(files).call(rows)[0], module.float()(rows), atol=1e-5, rtol=0)


def test_several_files_and_their_index(folder: Files) -> None:
    from safetensors.torch import save

    state = timm_module().state_dict()
    names = sorted(state)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    files = {file: save({name: state[name] for name in held}) for file, held in parts.items()}
    files |= {"config.json": folder["config.json"], "model.safetensors.index.json": json.dumps(index).encode()}
    rows = torch.randn(2, *json.loads(folder["config.json"])["pretrained_cfg"]["input_size"])
    torch.testing.assert_close(loaded(files).call(rows)[0], timm_module()(rows), atol=1e-5, rtol=0)
    del files["b.safetensors"]
    assert "b.safetensors" in refusal(files).message


def test_every_name_of_torchvision_that_is_a_classifier_has_a_size() -> None:
    from evenkeel_runtime.models.statedict import Described, _maker

    for name in models.list_models(module=models):
        _, size = _maker(Described(name, "torchvision", 10, (), {}, ()))
        assert len(size) == 3
        assert min(size) > 0


def refusal(files: Files, model: Model = ANYTHING) -> ModelError:
    start = time.monotonic()
    with pytest.raises(ModelError) as failure:
        recognised_folder(bundle(files), model).signature()
    assert time.monotonic() - start < 30  # no hang; the machine may be slow
    assert failure.value.reason == Reason.FORMAT_REFUSED
    assert len(failure.value.message) < 2000
    return failure.value


def _without_weights(files: Files, canary: Path) -> Files:
    return {"config.json": files["config.json"]}


def _pickled(name: str) -> Callable[[Files, Path], Files]:
    return lambda files, canary: {"config.json": files["config.json"], name: pickle.dumps(Bomb(canary))}


def _config(**changes: Any) -> Callable[[Files, Path], Files]:
    return lambda files, canary: config(files, **changes)


def _text(text: bytes) -> Callable[[Files, Path], Files]:
    return lambda files, canary: files | {"config.json": text}


def _header(change: Callable[[dict[str, Any]], object]) -> Callable[[Files, Path], Files]:
    def build(files: Files, canary: Path) -> Files:
        data = files["model.safetensors"]
        header = header_of(data)
        changed = change(header)
        return files | {"model.safetensors": with_header(data, header if changed is None else changed)}

    return build


def _cut(files: Files, canary: Path) -> Files:
    return files | {"model.safetensors": files["model.safetensors"][:-8]}


def _weights_are_a_pickle(files: Files, canary: Path) -> Files:
    return files | {"model.safetensors": pickle.dumps(Bomb(canary))}


def _first(header: dict[str, Any]) -> dict[str, Any]:
    name = next(name for name in header if name != "__metadata__")
    tensor: dict[str, Any] = header[name]
    return tensor


def _larger(header: dict[str, Any]) -> None:
    _first(header)["shape"] = [1 << 40]


def _negative(header: dict[str, Any]) -> None:
    _first(header)["data_offsets"] = [-8, 0]


def _overlapping(header: dict[str, Any]) -> None:
    one, two, *_ = (told for name, told in header.items() if name != "__metadata__")
    header["more"] = dict(one if one["data_offsets"][0] else two)


def _kind(header: dict[str, Any]) -> None:
    _first(header)["dtype"] = "OBJECT"


def _another_weight(header: dict[str, Any]) -> None:
    name = next(name for name in header if name != "__metadata__")
    header["stem.weight"] = header.pop(name)


def _twice(header: dict[str, Any]) -> bytes:
    return (
        b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    )


HOSTILE: dict[str, tuple[Callable[[Files, Path], Files], str]] = {
    "a pickle of torch.save": (_pickled("pytorch_model.bin"), "pytorch_model.bin"),
    "a .pt": (_pickled("model.pt"), "model.pt"),
    "a .ckpt": (_pickled("last.ckpt"), "last.ckpt"),
    "no weights at all": (_without_weights, "no weights"),
    "a pickle called safetensors": (_weights_are_a_pickle, "no safetensors file"),
    "a module's path for a name": (_config(architecture="os.system"), "no architecture 'os'"),
    "a path for a name": (_config(architecture="../../etc/passwd"), "no name in a registry"),
    "a hub's address for a name": (_config(architecture="hf-hub:ann/model"), "no name in a registry"),
    "a directory for a name": (_config(architecture="local-dir:/tmp"), "no name in a registry"),
    "a name nobody has": (_config(architecture="resnet5000"), "no architecture 'resnet5000'"),
    "a name that is almost one": (_config(architecture="test_resnt"), "did you mean"),
    "a library of its own": (_config(library="os"), "timm or torchvision"),
    "an argument that is a path": (_config(model_args={"checkpoint_path": "/tmp/x"}), "checkpoint_path"),
    "an argument that is a hub's": (_config(model_args={"pretrained": True}), "pretrained"),
    "a size without end": (_config(model_args={"img_size": 1 << 40}), "img_size"),
    "a word for a size": (_config(model_args={"patch_size": "__import__('os')"}), "patch_size"),
    "an argument that the architecture has not": (
        _config(model_args={"patch_size": 4}),
        "model_args, which says patch_",
    ),
    "a pooling that the architecture has not": (
        _config(architecture="test_vit", model_args={"global_pool": "most", "img_size": 160}),
        "correct model_args, which says global_pool, img_size",
    ),
    "classes without end": (_config(num_classes=1 << 40), "num_classes"),
    "a word for the classes": (_config(num_classes="ten"), "num_classes"),
    "other classes than it has": (_config(num_classes=CLASSES + 1, model_args={}), "has the shape"),
    "two numbers of classes": (_config(num_classes=CLASSES + 1), "in model_args"),
    "an image without end": (_config(pretrained_cfg={"input_size": [3, 1 << 40, 1]}), "input_size"),
    "an image of no colours": (_config(pretrained_cfg={"input_size": [1, 64, 64]}), "does not take an input"),
    "a list for the training": (_config(pretrained_cfg=[1]), "pretrained_cfg"),
    "no JSON": (_text(b"{"), "config.json is no JSON"),
    "a list": (_text(b"[]"), "config.json is no JSON object"),
    "brackets without end": (_text(b"[" * 200_000), "config.json is no JSON"),
    "a number that is none": (_text(b'{"architecture": NaN}'), "config.json is no JSON"),
    "a cut file": (_cut, "its header speaks of"),
    "a tensor larger than its bytes": (_header(_larger), "model.safetensors"),
    "a tensor before the file": (_header(_negative), "model.safetensors"),
    "tensors that overlap": (_header(_overlapping), "overlaps"),
    "elements of another kind": (_header(_kind), "OBJECT"),
    "a header that is no JSON": (_header(lambda header: b"{{"), "model.safetensors"),
    "a header that is a list in a trench coat": (_header(lambda header: b'{"a":[]}'), "model.safetensors"),
    "one tensor twice": (_header(_twice), "twice"),
    "a tensor of another name": (_header(_another_weight), "the file lacks"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_folder_is_refused_by_name_and_nothing_runs(name: str, folder: Files, tmp_path: Path) -> None:
    build, want = HOSTILE[name]
    canary = tmp_path / "canary"
    assert want in refusal(build(folder, canary)).message
    assert not canary.exists()


def test_the_folder_that_the_corpus_is_made_of_is_accepted(folder: Files) -> None:
    assert recognised_folder(bundle(folder), ANYTHING).name == "StateDict"


def test_weights_without_a_name_are_refused_with_the_way_out() -> None:
    (data,) = single(timm_module()).values()
    with pytest.raises(ModelError, match=r"without the name of an architecture.*save_for_hf"):
        recognised(io.BytesIO(data), len(data), ANYTHING).signature()


def test_another_format_in_the_spec(folder: Files) -> None:
    assert (
        "is StateDict, spec.model.format says TorchExport" in refusal(folder, Model("TorchExport", "", False)).message
    )


@pytest.mark.parametrize(
    ("files", "want"),
    [
        pytest.param({"model.pt2": b"PK"}, "name that file in spec.model.uri", id="one file"),
        pytest.param({"a.txt": b"", "b.txt": b""}, "it has no config.json", id="anything"),
        pytest.param(
            {"config.json": b"{}", "model.safetensors": b""}, "names no architecture", id="a config of something else"
        ),
        pytest.param(
            {"config.json": b'{"model_type": "bert"}', "model.safetensors": b""}, "is empty", id="a folder of BERT"
        ),
    ],
)
def test_folders_that_are_no_model(files: Files, want: str) -> None:
    assert want in refusal(files).message


def test_a_library_that_nobody_names_need_not_be_installed(folder: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    assert loaded(folder).format == "StateDict"
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "timm", None)
    given = {"architecture": "squeezenet1_1", "num_classes": str(CLASSES), "input_size": "[3, 64, 64]"}
    (data,) = single(torchvision_module(), **given).values()
    assert recognised(io.BytesIO(data), len(data), ANYTHING).signature().outputs[0].shape == (-1, CLASSES)


@pytest.mark.parametrize(
    ("missing", "told", "want"),
    [
        pytest.param("timm", {"library": "timm"}, "test_resnet is of timm, and timm is not installed here", id="timm"),
        pytest.param(
            "torchvision.models", {"library": "torchvision"}, "of torchvision, and torchvision is not installed",
            id="torchvision",
        ),
        pytest.param("timm", {}, "not looked for in timm, which is not installed here; pip install timm", id="any"),
    ],
)  # fmt: skip
def test_a_library_that_is_not_installed_is_named(
    missing: str, told: dict[str, str], want: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    (data,) = single(timm_module(), architecture="test_resnet", num_classes=str(CLASSES), **told).values()
    with pytest.raises(ModelError, match=want):
        recognised(io.BytesIO(data), len(data), ANYTHING).signature()
