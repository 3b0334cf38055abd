"""Why can this container not go on? One narrow error with a word for people, raised wherever the cause is known."""

from __future__ import annotations

from evenkeel_runtime.contract import Reason


class ModelError(Exception):
    """The model cannot be used: `reason` is shown by `kubectl get mdep`, `message` says what to do about it."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def refused(message: str) -> ModelError:
    """Return the error for a file that is not loaded because of what it is."""
    return ModelError(Reason.FORMAT_REFUSED, message)


def last_line(error: BaseException) -> str:
    """Return the last line with text in an error's message, behind its type: what a person reads first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
