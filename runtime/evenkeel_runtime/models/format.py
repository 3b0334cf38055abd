"""What does a format have to answer?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from evenkeel_runtime.models.archive import Archive
from evenkeel_runtime.models.bundle import Bundle
from evenkeel_runtime.models.loaded import Loaded, Signature


@dataclass(frozen=True, slots=True)
class Format:
    """`signature` reads what callers see and executes nothing; `load` is given the archive and the file in memory.

    A format that `is_native_code` runs what the file's author wrote, by its nature. `untrusted` names the types in the
    file that are built only where the spec trusts them; `load` is told which it trusts and builds no other.
    `precisions` are those beside the file's own that its models can be computed in; `require_computed` raises where
    this one cannot, which is seen before it is loaded.
    """

    name: str
    is_native_code: bool
    recognises: Callable[[Archive], bool]
    untrusted: Callable[[Archive], frozenset[str]]
    signature: Callable[[Archive], Signature]
    load: Callable[[Archive, memoryview, str, frozenset[str]], Loaded]
    precisions: frozenset[str] = frozenset()
    require_computed: Callable[[Archive, str], None] = lambda archive, precision: None


@dataclass(frozen=True, slots=True)
class BundleFormat:
    """A format of folders, none of which runs code: `load` is given the files in memory, and the device. `precisions`
    are those beside the folder's own that its models can be computed in."""

    name: str
    recognises: Callable[[Bundle], bool]
    signature: Callable[[Bundle], Signature]
    load: Callable[[Bundle, str], Loaded]
    precisions: frozenset[str] = frozenset()


def no_types(archive: Archive) -> frozenset[str]:
    """Return the types that a format needs trust for which builds none by name."""
    return frozenset()
