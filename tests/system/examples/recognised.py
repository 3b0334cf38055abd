"""What is a file or a folder by its content alone? As `evenkeel check` says."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from evenkeel_runtime import cli


def recognised(model: Path, *options: str) -> str:
    """Return the format that is recognised. The assertion's message has what was said where none is."""
    said, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        status = cli.check([str(model), *options])
    assert status == 0, complained.getvalue()
    return said.getvalue().splitlines()[0].removeprefix("format").strip()
