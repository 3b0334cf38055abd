"""On which port does a replica listen, and who is told what to do where it cannot?"""

from __future__ import annotations

import socket

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError

_BACKLOG = 1024


def bound(host: str, port: int, setting: str) -> socket.socket:
    """Return a socket that listens there; raises ModelError, which names what chooses another port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise cannot_listen(host, port, setting, error.strerror or str(error)) from error
    return sock


def cannot_listen(host: str, port: int, setting: str, why: str) -> ModelError:
    return ModelError(
        Reason.INVALID, f"cannot listen on port {port} of {host}: {why}; free it, or choose another with {setting}"
    )
