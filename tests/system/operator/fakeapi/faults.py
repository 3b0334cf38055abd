"""What goes wrong, and how often?"""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass(slots=True)
class Fault:
    """An answer instead of the right one, for the next `times` requests that match."""

    method: str
    path: str
    status: int
    times: int = 1
    message: str = "injected"
    reason: str = ""
    retry_after_s: int | None = None
    delay_s: float = 0.0


@dataclass(slots=True)
class Faults:
    """The faults that are due."""

    due: list[Fault] = field(default_factory=list)

    def add(self, method: str, path: str, status: int, **more: object) -> Fault:
        """Let requests of `method` whose path (query included) the expression `path` is found in fail."""
        fault = Fault(method, path, status, **more)  # type: ignore[arg-type]
        self.due.append(fault)
        return fault

    def next(self, method: str, path: str) -> Fault | None:
        """Return the fault that this request meets, and count it."""
        for fault in self.due:
            if fault.method in ("*", method) and re.search(fault.path, path):
                fault.times -= 1
                if fault.times <= 0:
                    self.due.remove(fault)
                return fault
        return None
