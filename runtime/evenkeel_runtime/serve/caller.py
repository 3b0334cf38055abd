"""Who asks for an inference, by whatever protocol, and in which form is it answered?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from evenkeel_runtime.serve.oip import Array, Plan
    from evenkeel_runtime.serve.tracing import Trace


class Caller(Protocol):
    """Who asked, by whatever protocol. `succeeded` is that protocol's code for an answer."""

    protocol: str
    succeeded: int
    abandoned: Callable[[], None] | None
    headers: dict[bytes, bytes]
    assignment: int | None
    """`receipts.Assignment`; None where nobody has drawn here."""
    within_s: float
    """How long the canary would have had for it, where what becomes of it is held beside what becomes of the canary's
    (`tally.Beside`); 0 where it is not."""

    @property
    def connection(self) -> object:
        """By which the request came, None where it does not matter."""

    @property
    def trace(self) -> Trace | None: ...

    def respond_head(self, head: bytes, body: bytes) -> None: ...

    def fail(self, status: int, message: str, more: bytes = b"") -> int:
        """Answer with an error, `status` and `more` in HTTP's terms, and return the protocol's own code for it."""


class Form(Protocol):
    """How answers are written."""

    def write(self, plan: Plan, arrays: list[Array], receipt: bytes | None = None) -> tuple[bytes, bytes]: ...
