"""An engine behind a pipe and shared memory as `Remote` knows it, run by a thread of the test."""

from __future__ import annotations

import subprocess
import threading
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import cast

from evenkeel_runtime.engine.forward import Forward
from evenkeel_runtime.engine.process import Remote, answer
from evenkeel_runtime.engine.shared import Room


def remote(forward: Forward, status: int = 0, number: int = 0) -> tuple[Remote, Connection]:
    """Return the engine and its own end of the pipe: closing that is its end, with this exit status."""
    ours, its = Pipe()
    there, here = Room(), Room()
    process = cast("subprocess.Popen[bytes]", SimpleNamespace(wait=lambda timeout=None: status))
    threading.Thread(
        target=answer, args=(its, forward, Room(there.fd), Room(here.fd)), name="engine", daemon=True
    ).start()
    return Remote(number, process, ours, there, here), its
