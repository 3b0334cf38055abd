"""What can no server do better? The bare forward on the same core, and a handler that does nothing.

`python floor.py raw MODEL` prints rows/s; `python floor.py empty PORT` serves empty answers with our protocol class.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time


def raw(path: str) -> None:
    """Print the rows per second of CPU of the exported model, called as the server calls it, at batch 1 and 32."""
    from pathlib import Path

    import torch

    from evenkeel_runtime import config
    from evenkeel_runtime.serve.loading import load

    found = load(Path(path), config.Model("Auto", "", False)).calibrated
    speeds = {}
    with torch.inference_mode():
        for rows in (1, 32):
            data = torch.rand(rows, 784)
            for _ in range(200):
                found.call(data)
            calls = 0
            start = time.process_time()
            while (now := time.process_time()) < start + 1.0:
                for _ in range(50):
                    found.call(data)
                calls += 50
            speeds[rows] = rows * calls / (now - start)
    print(json.dumps({"b1": speeds[1], "b32": speeds[32], "path": found.path}))


def empty(port: int) -> None:
    """Serve an empty answer to whatever comes."""
    import uvloop

    from evenkeel_runtime.config import Limits
    from evenkeel_runtime.serve.protocol import Exchange, Server

    def handle(exchange: Exchange) -> None:
        exchange.respond(200, b"application/octet-stream", b"")

    async def run() -> None:
        server = Server(handle, Limits())
        await asyncio.get_running_loop().create_server(server.connection, "127.0.0.1", port)
        await asyncio.Event().wait()

    uvloop.run(run())


if __name__ == "__main__":
    raw(sys.argv[2]) if sys.argv[1] == "raw" else empty(int(sys.argv[2]))
