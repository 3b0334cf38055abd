"""Which models are compared with their frameworks? One of each format, saved by the framework's own call."""

from __future__ import annotations

import fcntl
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
import timm
import torch
from numpy.typing import NDArray
from torch import nn

from evenkeel_runtime.fetch.manifest import Manifest, Row
from evenkeel_runtime.models import transformers
from evenkeel_runtime.models.keras import imported
from examples.compiled_digits import compile as compiling
from tests.system.runtime.ways import Named
from tests.unit.runtime import models, pretrained_folders, skops_files
from tests.unit.runtime.statedicts import timm_module

ROWS = 5


@dataclass(frozen=True)
class Saved:
    """A model on disk: the framework answers `want` to `given`. `told` is what its replica has to be told beside."""

    path: Path
    given: Named
    want: Named
    told: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """One of `spec.model.format`. `described` says what the model is; `save` is given an empty folder, and a folder
    of the whole run for what takes long to make. `platform` stands in the served model's metadata, and `parameter`."""

    described: str
    platform: str
    parameter: str
    save: Callable[[Path, Path], Saved]


def made_up(*sizes: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).random((ROWS, *sizes), np.float32)


def answers(module: nn.Module, rows: NDArray[Any]) -> NDArray[Any]:
    with torch.inference_mode():
        found: NDArray[Any] = module(torch.from_numpy(rows)).numpy()
    return found


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the frameworks about themselves
        yield


def network(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(3)
    return make().eval()


def pinned(path: Path) -> dict[str, str]:
    """Return what a replica is told that may run the file's code."""
    return {
        "EVENKEEL_ALLOW_NATIVE_CODE": "true",
        "EVENKEEL_MODEL_SHA256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def export(module: nn.Module, rows: NDArray[Any], name: str, path: Path) -> None:
    with quiet():
        program = torch.export.export(module, (torch.from_numpy(rows),), dynamic_shapes={name: {0: models.BATCH}})
        torch.export.save(program, path)


def compiled(shared: Path) -> Path:
    """Return a perceptron's file with compiled code. Whichever process of a run comes first compiles, for a minute."""
    path = shared / "compiled" / "m.pt2"
    with (shared / "compiled.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            export(network(models.Perceptron), made_up(12), "image", shared / "m.pt2")
            with quiet():
                compiling.main([str(shared / "m.pt2"), "--out", str(path.parent)])
    return path


def _exported(folder: Path, shared: Path) -> Saved:
    module, rows = network(models.Recurrent), made_up(4, 5)
    export(module, rows, "steps", folder / "m.pt2")
    return Saved(folder / "m.pt2", {"steps": rows}, {"select": answers(module, rows)})


def _scripted(folder: Path, shared: Path) -> Saved:
    module, rows, jit = network(models.Convolution), made_up(1, 28, 28), vars(torch)["jit"]
    with quiet():
        jit.save(jit.trace(module, torch.from_numpy(rows)), folder / "m.pt")
    return Saved(folder / "m.pt", {"input_0": rows}, {"output_0": answers(module, rows)}, pinned(folder / "m.pt"))


def _compiled(folder: Path, shared: Path) -> Saved:
    path, rows = compiled(shared), made_up(12)
    return Saved(path, {"image": rows}, {"linear_1": answers(network(models.Perceptron), rows)}, pinned(path))


def _weights(folder: Path, shared: Path) -> Saved:
    module, rows = timm_module(), made_up(3, 160, 160)
    timm.models.save_for_hf(module, folder / "m", safe_serialization=True)
    files = {path.name: path.read_bytes() for path in (folder / "m").iterdir()}
    manifest = Manifest.of(Row(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items())
    told = {"EVENKEEL_MODEL_SHA256": manifest.sha256, "EVENKEEL_MODEL_MARKS": manifest.marks}
    return Saved(folder / "m", {"image": rows}, {"logits": answers(module, rows)}, told)


def _keras(folder: Path, shared: Path) -> Saved:
    keras = imported()
    from examples.keras_digits import train

    keras.utils.set_random_seed(3)
    model, rows = train.network(), made_up(28, 28, 1)
    with quiet():
        model.save(folder / "m.keras")
        return Saved(folder / "m.keras", {"image": rows}, {"probabilities": model.predict(rows, verbose=0)})


def _sklearn(folder: Path, shared: Path) -> Saved:
    estimator, rows = skops_files.pipeline(), skops_files.ROWS
    skops.io.dump(estimator, folder / "m.skops")
    want = {"label": estimator.predict(rows), "probabilities": estimator.predict_proba(rows)}
    return Saved(folder / "m.skops", {"input": rows}, want)


def _pretrained(folder: Path, shared: Path) -> Saved:
    library, lines = transformers.imported(), [*pretrained_folders.descriptions()[:3], "wine", "sea " * 99]
    pretrained_folders.saved(folder / "m", pretrained_folders.text_model(), pretrained_folders.tokenizer())
    with quiet(), torch.inference_mode():
        model = library.AutoModelForSequenceClassification.from_pretrained(folder / "m").eval()
        words = library.AutoTokenizer.from_pretrained(folder / "m")
        logits = model(**words(lines, padding=True, truncation=True, return_tensors="pt")).logits
    labels = [model.config.id2label[index] for index in logits.argmax(1).tolist()]
    want = {
        "label": pretrained_folders.texts(*labels),
        "probabilities": logits.softmax(1).numpy(),
        "logits": logits.numpy(),
    }
    return Saved(folder / "m", {"text": pretrained_folders.texts(*lines)}, want)


FORMATS: Mapping[str, Format] = {
    "TorchExport": Format("a recurrent network (LSTM)", "pytorch_torchexport", "call_path", _exported),
    "StateDict": Format("one of timm's residual networks", "pytorch_state_dict", "architecture", _weights),
    "Transformers": Format("a BERT that classifies texts", "pytorch_transformers", "max_tokens", _pretrained),
    "Keras": Format("the CNN of `examples/keras_digits`", "keras_keras", "keras_version", _keras),
    "Sklearn": Format("scaling and a logistic regression", "sklearn_skops", "classes", _sklearn),
    "TorchScript": Format("a CNN with batch norm", "pytorch_torchscript", "sha256", _scripted),
    "AOTInductor": Format("a perceptron", "pytorch_aotinductor", "compiled_for", _compiled),
}
