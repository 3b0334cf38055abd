"""Which parts of torch does a start leave out until something asks for them?

A start is for the most part the import of torch, and a quarter of that (torch 2.13) is `torch._meta_registrations`:
what operators answer to tensors without memory, and the decompositions that it is made of. torch imports it for what it
registers, not for a name in it, so that nothing but its absence tells: `complete` has to be called before a tensor
without memory is computed with; the first such computation imports SymPy besides. A graph that was exported is computed
on memory alone, and so is a module that was filled with its weights; to make one, tensors without memory are mostly
filled, which needs neither.

torchvision and timm import torch's compiler, which takes as long again as torch itself, for two functions: whether
compiling is supported on a device, and a decorator that leaves a function uncompiled. Nothing is compiled here, so that
the second returns its function as it is; the first imports the compiler when it is called.

In the place of a module that is left out stands one that imports it as soon as any other name is asked of it.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_METAS = "torch._meta_registrations"
_COMPILER, _ITS_TOOLS = "torch._dynamo", "torch._dynamo.utils"


def import_torch() -> None:
    """Import torch without these parts; where it was imported already, or in part, everything is left as it is."""
    if "torch" in sys.modules:
        return
    with _uncollected():
        sys.modules[_METAS] = _Absent(_METAS)
        import torch  # noqa: F401 - what it brings is used by others

        sys.modules[_COMPILER] = _Absent(_COMPILER, disable=_uncompiled)
        sys.modules[_ITS_TOOLS] = _Absent(_ITS_TOOLS, is_compile_supported=_is_compile_supported)


def complete() -> bool:
    """Let tensors without memory be computed with, as wherever torch was imported whole; return whether that was to be
    done still."""
    if not isinstance(sys.modules.get(_METAS), _Absent):
        return False
    with _uncollected():
        _real(_METAS)
    return True


class _Absent(ModuleType):
    """Stands in for a module, with those of its names that may be used without it."""

    def __init__(self, name: str, **names: object) -> None:
        super().__init__(name)
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        """Import the module for any name but those that Python asks of every module that it finds.

        A submodule of the compiler is looked for in its `__path__`.
        """
        if name.startswith("__") and (name, self.__name__) != ("__path__", _COMPILER):
            raise AttributeError(f"{self.__name__} has not been imported")
        return getattr(_real(self.__name__), name)


def _real(name: str) -> ModuleType:
    """Return the module itself, imported where it has not been; a part of it then is no stand-in either."""
    for absent in (_METAS,) if name == _METAS else (_COMPILER, _ITS_TOOLS):
        if isinstance(sys.modules.get(absent), _Absent):
            del sys.modules[absent]
    if name != _METAS:
        # torch 2.13's compiler imports torch.utils._content_store, which can be begun from torch._prims alone.
        importlib.import_module("torch._prims")
    return importlib.import_module(name)


def _uncompiled(fn: Callable[..., Any] | None = None, recursive: bool = True, **told: object) -> Callable[..., Any]:
    return (lambda function: function) if fn is None else fn


def _is_compile_supported(device: str) -> bool:
    found: bool = _real(_ITS_TOOLS).is_compile_supported(device)
    return found


@contextmanager
def _uncollected() -> Iterator[None]:
    """Import without looking for garbage, which takes a tenth of the time and finds none, and never look at what was
    made again."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
