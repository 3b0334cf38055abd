"""What is found out about a file before it is loaded? Nothing in it is executed."""

from __future__ import annotations

from typing import IO

from evenkeel_runtime.config import Model
from evenkeel_runtime.models.format import Format
from evenkeel_runtime.models.inspect import recognise, require_wanted
from evenkeel_runtime.models.loaded import Signature


def inspect(stream: IO[bytes], size: int, model: Model) -> tuple[Format, Signature]:
    """Return the file's format and what callers see of it, or refuse it as the spec does."""
    format_, archive = recognise(stream, size)
    require_wanted(format_, archive, model)
    return format_, format_.signature(archive)
