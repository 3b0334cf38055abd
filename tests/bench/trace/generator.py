"""Who sends the requests? People who come when they come: each at its time, whatever became of those before.

A program of its own, so that what watches the cluster does not delay it:
`generator PORT REQUEST_FILE SCHEDULE_FILE BEGIN OUT_FILE`. The schedule is a JSON list of seconds since BEGIN (of the
monotonic clock); the request file holds a whole HTTP request that closes its connection, for a Service chooses a
replica for each connection. What comes out is a line of JSON for each: when it was due, when it was sent, when it was
answered, and "" or the kind of its failure. There is no retry, and a request that was sent late was late.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

TIMEOUT_S = 60.0
_PRIORITY = -10
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


def failure(answer: bytes) -> str:
    """Return what is wrong with an answer, "" where it is whole and 200."""
    head, mark, body = answer.partition(b"\r\n\r\n")
    if not mark:
        return "cut" if answer else "nothing"
    status = head.split(b" ", 2)[1:2]
    if status != [b"200"]:
        return f"status {status[0].decode(errors='replace')}" if status else "no HTTP"
    length = _LENGTH.search(head + b"\r\n")
    return "cut" if length is not None and int(length[1]) != len(body) else ""


async def send(port: int, request: bytes, begin: float, due: float, out: TextIO) -> None:
    """Send one request and write down what became of it."""
    sent = time.monotonic() - begin
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            told = failure(await reader.read(-1))
    except TimeoutError:
        told = "timeout"
    except OSError as e:
        told = type(e).__name__
    answered = time.monotonic() - begin
    if writer is not None:
        writer.close()
    out.write(json.dumps([round(due, 6), round(sent, 6), round(answered, 6), told]) + "\n")


async def follow(port: int, request: bytes, schedule: list[float], begin: float, out: TextIO) -> None:
    """Send every request at its time; return when all have ended."""
    open_ones: set[asyncio.Task[None]] = set()
    for due in schedule:
        await asyncio.sleep(max(0.0, begin + due - time.monotonic()))
        task = asyncio.create_task(send(port, request, begin, due, out))
        open_ones.add(task)
        task.add_done_callback(open_ones.discard)
    await asyncio.gather(*open_ones)


def main() -> None:
    port, request, schedule, begin, out = sys.argv[1:6]
    gc.disable()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # whoever is not answered keeps a connection each
    with suppress(PermissionError):
        # What measures must not wait for what is measured.
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
    told = json.loads(Path(schedule).read_text())
    with Path(out).open("w") as file:
        asyncio.run(follow(int(port), Path(request).read_bytes(), told, float(begin), file))


if __name__ == "__main__":
    main()
