"""Do models answer the same where a start left parts of torch out, and which of them leave the parts out?"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.export import Dim

from tests.unit.runtime.models import BATCH, CASES, Case, exported, floats
from tests.unit.runtime.statedicts import CLASSES, single, timm_module, torchvision_module

METAS, COMPILER = "torch._decomp", "torch._dynamo.config"


class Prims(torch.nn.Module):
    """Calls an operator that torch has only where it was imported whole."""

    def forward(self, row: torch.Tensor) -> Any:
        return torch.ops.prims.convert_element_type.default(row, torch.float64) * 2


class Pairs(torch.nn.Module):
    """Takes a size that is computed from another one, so that it cannot be tried out."""

    def forward(self, row: torch.Tensor) -> Any:
        return row.sum(1)


EXPORTED: dict[str, Case] = {
    **{f"0 {name}": case for name, case in CASES.items()},
    "3 operator of prims": Case(Prims, floats(4), {"row": {0: BATCH}}),
}
ALONE: dict[str, Case] = {"0 even sizes": Case(Pairs, floats(6), {"row": {0: BATCH, 1: 2 * Dim("half", max=8)}})}
NAMES = (*EXPORTED, "1 torchvision", "2 timm", *ALONE, "1 computes while it is made")


@dataclass
class Started:
    """Which parts of torch there were after each model, and how far its answers were from torch's."""

    parts: dict[str, list[str]] = field(default_factory=dict)
    apart: dict[str, float] = field(default_factory=dict)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Started:
    """Start two processes: what was imported for one model is there for all that follow."""
    found = Started()
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    with torch.no_grad():
        wanted = _saved(EXPORTED, first)
        wanted |= _weights("1 torchvision", "torchvision", "squeezenet1_1", torchvision_module("squeezenet1_1"), first)
        wanted |= _weights("2 timm", "timm", "test_resnet", timm_module("test_resnet"), first)
        _start(first, wanted, found)
        wanted = _saved(ALONE, second)
        wanted |= _weights("1 computes while it is made", "timm", "levit_128s", timm_module("levit_128s"), second)
        _start(second, wanted, found)
    return found


def _saved(cases: Mapping[str, Case], folder: Path) -> dict[str, list[torch.Tensor]]:
    """Write each case and its inputs, and return what torch answers to them."""
    wanted = {}
    for name, case in cases.items():
        data, inputs = exported(case), case.inputs(3)
        (folder / f"{name}.pt2").write_bytes(data)
        np.savez(folder / f"{name}.npz", *(tensor.numpy() for tensor in inputs))
        answer = torch.export.load(io.BytesIO(data)).module()(*inputs)
        if isinstance(answer, torch.Tensor):
            answer = [answer]
        wanted[name] = list(answer.values() if isinstance(answer, dict) else answer)
    return wanted


def _weights(
    name: str, library: str, architecture: str, module: torch.nn.Module, folder: Path
) -> dict[str, list[torch.Tensor]]:
    """Write the weights of an architecture and images for it, and return what the library answers to them."""
    told = {"library": library, "architecture": architecture, "num_classes": str(CLASSES)}
    (data,) = single(module, input_size="[3, 224, 224]", **told).values()
    image = torch.rand(2, 3, 224, 224)
    (folder / f"{name}.safetensors").write_bytes(data)
    np.savez(folder / f"{name}.npz", image.numpy())
    return {name: [module(image)]}


def _start(folder: Path, wanted: Mapping[str, list[torch.Tensor]], found: Started) -> None:
    words = [sys.executable, "-m", "tests.system.runtime.deferring", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found.parts |= json.loads(done.stdout)
    for name, want in wanted.items():
        with np.load(folder / f"{name}.out.npz") as got:
            pairs = list(zip(got.files, want, strict=True))
            found.apart[name] = max(float(np.abs(got[key] - one.double().numpy()).max()) for key, one in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_same_answers_without_the_parts(started: Started, name: str) -> None:
    assert started.apart[name] < 1e-4


@pytest.mark.parametrize(
    ("name", "want"),
    [
        *((name, []) for name in (*(f"0 {name}" for name in CASES), "0 even sizes", "1 torchvision", "2 timm")),
        *((name, [METAS]) for name in ("3 operator of prims", "1 computes while it is made")),
        ("compiled", [METAS, COMPILER]),
    ],
)
def test_a_part_is_imported_when_it_is_asked_for(started: Started, name: str, want: list[str]) -> None:
    assert started.parts[name] == want
