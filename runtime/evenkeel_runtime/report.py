"""How does a container say how it ended? Its termination message and one log line, the same words in both."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from evenkeel_runtime import contract
from evenkeel_runtime.contract import Failed, Prepared, Reason
from evenkeel_runtime.failure import ModelError, last_line

TERMINATION_LOG_ENV = "EVENKEEL_TERMINATION_LOG"
"""Overrides where the kubelet reads the message, for runs outside a pod."""

_OUT_OF_MEMORY = ("DefaultCPUAllocator", "CUDA out of memory")

log = logging.getLogger("evenkeel")


def write(report: Prepared | Failed) -> None:
    """Write the report where the kubelet reads it; outside a pod there is nobody to read it."""
    text = contract.encode(report)
    path = Path(os.environ.get(TERMINATION_LOG_ENV, "/dev/termination-log"))
    try:
        path.write_text(text)
    except OSError as error:
        log.warning("no termination message path=%s error=%s report=%s", path, error.strerror, text)


def failed(error: Exception) -> Failed:
    """Return what an error means to the person whose model this is."""
    if isinstance(error, ModelError):
        return Failed(error.reason, error.message)
    if is_out_of_memory(error):
        return Failed(
            Reason.OUT_OF_MEMORY,
            f"the model needs more memory than this container may use ({last_line(error)}); "
            "raise spec.runtime.resources.limits.memory",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failed(Reason.DISK_FULL, f"no room left on the volume: {error}; give it more space")
    return Failed(Reason.LOAD_FAILED, last_line(error))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, in Python, in torch's CPU allocator (a RuntimeError) or on the device."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    # TorchScript's interpreter raises errors of its own, with the words of those that it met
    return type(error).__name__ == "OutOfMemoryError" or any(word in str(error) for word in _OUT_OF_MEMORY)
