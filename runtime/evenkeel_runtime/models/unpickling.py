"""How is it made sure that nothing in this process unpickles an object, whichever library tries?

Python itself asks before an unpickler looks a name up (audit event `pickle.find_class`), in C and in Python, and an
audit hook cannot be removed again. A pickle that may look up nothing cannot call anything. torch's `weights_only=True`
reader is no unpickler in this sense: it has a fixed table and goes on working.
"""

from __future__ import annotations

import sys


class UnpicklingForbidden(RuntimeError):
    """Something tried to unpickle an object."""


def forbid() -> None:
    """Let every unpickling of this process raise from now on: after torch was imported, before a model is read."""
    import torch

    sys.addaudithook(_refuse_names)
    load = torch.load

    def load_weights_only(*args: object, **kwargs: object) -> object:
        if kwargs.get("weights_only") is not True:
            raise UnpicklingForbidden("torch.load without weights_only=True would run the file author's code")
        return load(*args, **kwargs)  # type: ignore[arg-type]

    torch.load = load_weights_only


def _refuse_names(event: str, arguments: tuple[object, ...]) -> None:
    if event == "pickle.find_class":
        raise UnpicklingForbidden(f"unpickling {arguments[0]}.{arguments[1]} would run the file author's code")
