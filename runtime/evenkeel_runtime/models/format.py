"""What does a format have to answer?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from evenkeel_runtime.models.archive import Archive
from evenkeel_runtime.models.loaded import Loaded, Signature


@dataclass(frozen=True, slots=True)
class Format:
    """`signature` reads what callers see and executes nothing; `load` is given the archive and the file in memory.

    A format that `is_native_code` runs what the file's author wrote, by its nature.
    """

    name: str
    is_native_code: bool
    recognises: Callable[[Archive], bool]
    signature: Callable[[Archive], Signature]
    load: Callable[[Archive, memoryview, str], Loaded]
