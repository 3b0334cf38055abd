"""Which formats are there? One module each; the first that recognises a file's content has it."""

from __future__ import annotations

from evenkeel_runtime.models import aotinductor, export, keras, sklearn, torchscript
from evenkeel_runtime.models.format import Format

FORMATS: dict[str, Format] = {
    found.name: found
    # a .pt2 with compiled code holds a program as well
    for found in (aotinductor.FORMAT, export.FORMAT, torchscript.FORMAT, sklearn.FORMAT, keras.FORMAT)
}

__all__ = ["FORMATS", "Format"]
