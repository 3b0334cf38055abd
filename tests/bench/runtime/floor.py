"""What can no server do better? Each prints one line of JSON.

floor raw MODEL   rows per second of CPU of the bare forward: the program as torch calls it (`torch_b…`), and by the
                  way to call it that the server chooses (`b…`)
floor torch       the seconds of `import torch`, and how much a process that does only that keeps resident
floor read MODEL  the same seconds where a thread maps and hashes the file meanwhile
floor empty       serve empty answers on EVENKEEL_HTTP_PORT with the runtime's protocol class
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import mmap
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.runtime.servers import resident_bytes

if TYPE_CHECKING:
    import torch

    from evenkeel_runtime.models.loaded import Call

ROWS = (1, 8, 32)


def raw(path: str) -> None:
    import torch

    from evenkeel_runtime import config
    from evenkeel_runtime.serve.loading import load

    running = load(Path(path), config.Model("Auto", "", False), 256)
    (tensor,) = running.loaded.signature.inputs
    speeds = {}
    with torch.inference_mode():
        for rows in ROWS:
            data = torch.rand(rows, *tensor.shape[1:])
            speeds[f"torch_b{rows}"] = _rows_per_s(running.loaded.call, data)
            speeds[f"b{rows}"] = _rows_per_s(running.calibrated.call, data)
    print(json.dumps({**speeds, "path": running.calibrated.path}))


def _rows_per_s(call: Call, data: torch.Tensor) -> float:
    for _ in range(3):
        call(data)
    calls = 0
    start = time.process_time()
    while (now := time.process_time()) < start + 1.0:
        for _ in range(10):
            call(data)
        calls += 10
    return len(data) * calls / (now - start)


def torch_alone(path: str | None = None) -> None:
    began = time.perf_counter()
    reading = threading.Thread(target=_read, args=(path,))
    if path is not None:
        reading.start()
    import torch  # noqa: F401 - being there is what is measured

    if path is not None:
        reading.join()
    took = time.perf_counter() - began
    found = {"import_s": took, "cpu_s": time.process_time(), "resident_bytes": resident_bytes(os.getpid())}
    print(json.dumps(found))


def _read(path: str) -> None:
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        hashlib.sha256(mapped).hexdigest()


def empty() -> None:
    import uvloop

    from evenkeel_runtime.config import Limits
    from evenkeel_runtime.serve.connections import Server
    from evenkeel_runtime.serve.protocol import Exchange

    def handle(exchange: Exchange) -> None:
        exchange.respond(200, b"application/octet-stream", b"")

    async def run() -> None:
        server = Server(handle, Limits())
        port = int(os.environ["EVENKEEL_HTTP_PORT"])
        await asyncio.get_running_loop().create_server(server.connection, "127.0.0.1", port)
        await asyncio.Event().wait()

    uvloop.run(run())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["raw", model]:
            raw(model)
        case ["torch"]:
            torch_alone()
        case ["read", model]:
            torch_alone(model)
        case ["empty"]:
            empty()
        case _:
            sys.exit(__doc__)
