"""Which model does every example leave, what is it asked, and what does its framework answer?

Each is made by the example's own program, trained for a shorter time: whether a served model answers as its framework
does depends on no accuracy.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from examples.digits import data
from examples.optimise import optimise
from tests.cluster.state import CHECKOUT


@dataclass(frozen=True)
class Asked:
    """A request, and what the framework answers to it, by the names of the outputs."""

    body: bytes
    want: Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """A folder of `examples/`; `make` leaves what the folder's resource deploys in the folder that it is given."""

    folder: str
    make: Callable[[Path], Asked]

    def resource(self) -> dict[str, Any]:
        """Return the ModelDeployment as the example has it."""
        found: dict[str, Any] = yaml.safe_load(
            (CHECKOUT / "examples" / self.folder / "modeldeployment.yaml").read_text()
        )
        return found


def _run(module: str, out: Path, *arguments: str, **settings: object) -> None:
    """Run the example's program with these values of its constants."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # of the frameworks about themselves
        program = importlib.import_module(f"examples.{module}")
        for name, value in settings.items():
            patch.setattr(program, name, value)
        program.main([*arguments, "--out", str(out)])


def _trained(folder: str, *arguments: str, **settings: object) -> Example:
    """An example whose program leaves the request and its framework's answer beside the model."""

    def make(out: Path) -> Asked:
        _run(f"{folder}.train", out, *arguments, **settings)
        told = json.loads((out / "expected.json").read_text())
        return Asked((out / "request.json").read_bytes(), {name: told[name] for name in told if name != "truth"})

    return Example(folder, make)


def _exported(program: Path, images: torch.Tensor, output: str) -> Asked:
    """Return these images as the request, and what torch itself answers with the program."""
    with torch.inference_mode():
        answer = torch.export.load(program).module()(images)
    tensor = {"name": "image", "datatype": "FP32", "shape": list(images.shape), "data": images.flatten().tolist()}
    logits = answer[output] if isinstance(answer, dict) else answer
    return Asked(json.dumps({"inputs": [tensor]}).encode(), {output: logits.tolist()})


def _digits(out: Path) -> Asked:
    _run("digits.train", out, "--epochs", "1", ACCURACY_FLOOR=0.0)
    return _exported(out / "digits.pt2", data.load().heldout_images[:10], "log_softmax")


def _compiled(out: Path) -> Asked:
    asked = _digits(out / "exported")
    _run("compiled_digits.compile", out, str(out / "exported" / "digits.pt2"))
    return asked


def _pruned(out: Path) -> Asked:
    _run("optimise.optimise", out, UNITS=64, EPOCHS=4, TUNING_EPOCHS=2)
    return _exported(out / "pruned.pt2", optimise.load().heldout_images[:10], "logits")


EXAMPLES = (
    Example("digits", _digits),
    Example("compiled_digits", _compiled),
    Example("optimise", _pruned),
    _trained("autoencoder_digits", EPOCHS=5, AREA_FLOOR=0.0),
    _trained("keras_digits", "--epochs", "1", ACCURACY_FLOOR=0.0),
    _trained("recurrent_digits", EPOCHS=5, ACCURACY_FLOOR=0.0),
    _trained("sklearn_diabetes"),
    _trained("sklearn_digits"),
    _trained("statedict_digits", EPOCHS=1, ACCURACY_FLOOR=0.0),
    _trained("torchscript_tumours"),
    _trained("transformers_digits", EPOCHS=2, ACCURACY_FLOOR=0.0),
    _trained("transformers_docstrings", EPOCHS=1, SCORE_FLOOR=0.0),
    _trained("transformers_languages", EPOCHS=1, ACCURACY_FLOOR=0.0),
)
