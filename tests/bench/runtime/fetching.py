"""How much sooner is a large file here when it is read in parts, and of which length should they be?

A server of its own process waits before the first byte of each answer and then gives each connection a share, as a
store does. The ways are taken in turn, `ROUNDS` times, and their medians compared: what counts is their ratio.

    serial_s     one stream, as it is read where a server has no ranges
    parts_s      in parts as `parts.py` cuts them
    unsynced_s   the same, but nothing is synced, so nothing would be kept: what the journal costs
    hash_lag_s   from the last byte's arrival to the sha256, of `parts_s`
    by_mib       seconds by the length of a part, in MiB
    speedup      serial_s / parts_s

The last line is one JSON object. A bar that is missed makes the exit code 1.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

from evenkeel_runtime.fetch import parts
from evenkeel_runtime.fetch.https import WebFile
from evenkeel_runtime.fetch.journal import Journals
from evenkeel_runtime.fetch.transfer import File, transfer

FILE_BYTES = 128 << 20
LATENCY_S = 0.1
SHARE = 20 << 20
"""Bytes per second and connection."""
ROUNDS = 3
LENGTHS = (2, 4, 8, 16, 32, 64)
BARS = {"speedup": 3.0}


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    asked = await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(LATENCY_S)
    wanted = re.search(rb"Range: bytes=(\d+)-(\d+)", asked, re.IGNORECASE)
    start, stop = (int(wanted[1]), int(wanted[2]) + 1) if wanted else (0, FILE_BYTES)
    status = f"206 Partial Content\r\nContent-Range: bytes {start}-{stop - 1}/{FILE_BYTES}" if wanted else "200 OK"
    head = f'HTTP/1.1 {status}\r\nETag: "one"\r\nAccept-Ranges: bytes\r\nContent-Length: {stop - start}\r\n\r\n'
    writer.write(head.encode())
    began, sent, block = time.monotonic(), 0, bytes(1 << 18)
    try:
        while sent < stop - start:
            writer.write(block[: stop - start - sent])
            await writer.drain()
            sent += len(block)
            await asyncio.sleep(max(0.0, began + sent / SHARE - time.monotonic()))
    except ConnectionError:
        pass  # it has what it wanted
    writer.close()


async def _serve(told: Connection) -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    told.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _run(told: Connection) -> None:
    asyncio.run(_serve(told))


@contextmanager
def _store() -> Iterator[WebFile]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_run, args=(there,), daemon=True)
    process.start()
    try:
        yield WebFile(f"http://127.0.0.1:{here.recv()}/model.bin", "")
    finally:
        process.terminate()
        process.join()


def _serial(source: WebFile, path: Path) -> float:
    transfer(source, File(path))
    return time.monotonic()


def _in_parts(source: WebFile, path: Path) -> float:
    """Return when the sha256 was there; the journal may have a sync to wait for afterwards."""
    with Journals() as journals:
        parts.read(source, path, journals)
        return time.monotonic()


def _unsynced(source: WebFile, path: Path) -> float:
    with mock.patch.object(os, "fdatasync", return_value=None):
        return _in_parts(source, path)


def main() -> int:
    ways = {"serial_s": _serial, "parts_s": _in_parts, "unsynced_s": _unsynced}
    took: dict[str, list[float]] = {}
    lags: list[float] = []
    write = os.pwrite
    last = 0.0

    def timed(descriptor: int, data: memoryview, at: int) -> int:
        nonlocal last
        last = time.monotonic()
        return write(descriptor, data, at)

    def take(name: str, source: WebFile) -> float:
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(os, "pwrite", timed):
            began = time.monotonic()
            hashed = ways.get(name, _in_parts)(source, Path(folder) / "data")
            if name == "parts_s":
                lags.append(hashed - last)
            return time.monotonic() - began

    with _store() as source:
        for _ in range(ROUNDS):
            for name in ways:
                took.setdefault(name, []).append(take(name, source))
            for mib in LENGTHS:
                with mock.patch.object(parts, "part_bytes", lambda size, length=mib << 20: length):
                    took.setdefault(f"{mib} MiB", []).append(take(f"{mib} MiB", source))
    medians = {name: round(statistics.median(times), 2) for name, times in took.items()}
    for name, median in medians.items():
        print(f"{name:12} {median:6.2f} s   of {', '.join(f'{one:.2f}' for one in took[name])}")
    speedup = round(medians["serial_s"] / medians["parts_s"], 1)
    found = {name: medians[name] for name in ways} | {
        "hash_lag_s": round(statistics.median(lags), 3),
        "by_mib": {str(mib): medians[f"{mib} MiB"] for mib in LENGTHS},
        "speedup": speedup,
    }
    print(json.dumps(found))
    return 0 if speedup >= BARS["speedup"] else 1


if __name__ == "__main__":
    sys.exit(main())
