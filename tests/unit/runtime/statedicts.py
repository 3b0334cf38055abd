"""What are folders and files of weights for the tests? Written as timm, torchvision and safetensors write them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save
from torch import nn
from torchvision import models

from evenkeel_runtime.models.bundle import Bundle, Held

CLASSES = 5
Files = dict[str, bytes]


def timm_module(name: str = "test_resnet", **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    module: nn.Module = timm.create_model(name, pretrained=False, num_classes=CLASSES, **arguments).eval()
    return module


def torchvision_module(name: str = "squeezenet1_1") -> nn.Module:
    torch.manual_seed(0)
    module: nn.Module = models.get_model(name, weights=None, num_classes=CLASSES).eval()
    return module


def timm_folder(module: nn.Module, folder: Path) -> Files:
    """Return what timm's own call writes."""
    timm.models.save_for_hf(module, folder, safe_serialization=True)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def single(module: nn.Module, **metadata: str) -> Files:
    """Return a file that stands alone."""
    return {"model.safetensors": save(dict(module.state_dict()), metadata)}


def bundle(files: Mapping[str, bytes]) -> Bundle:
    """Return the files in memory, as a server has them."""
    held = {path: bytearray(data) for path, data in files.items()}
    return Bundle({path: Held(len(data), io.BytesIO(data), memoryview(data)) for path, data in held.items()})


def header_of(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    found: dict[str, Any] = json.loads(data[8 : 8 + length])
    return found


def with_header(data: bytes, header: object) -> bytes:
    """Return a safetensors file with another header over the same tensors."""
    length = int.from_bytes(data[:8], "little")
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
