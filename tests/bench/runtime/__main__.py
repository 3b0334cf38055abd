"""How much CPU does a request cost, and how much of the bare model is left? A table, and one JSON object as last line.

The server has one core and the load another; the bare forward runs on the server's core, in the same run. Three rounds
are interleaved and the medians taken: on a shared machine only ratios of one run mean something.

Rates against the bare model are rows per second of CPU on both sides. With a saturated core of its own for the server
that is the same as rows per second; where neighbours take part of the core, they take it from both.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CONNECTIONS = 32
ROUNDS = 3
SECONDS = 4.0
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    cores = sorted(os.sched_getaffinity(0))
    server_core, client_core = cores[0], cores[-1]
    if server_core == client_core:
        print("note: one core only, server and load share it", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "mlp.pt2"
        _python("export", str(model), core=client_core)
        requests = _requests(Path(folder))
        rounds: list[dict[str, Any]] = []
        for _ in range(ROUNDS):
            found: dict[str, Any] = {"raw": json.loads(_python("raw", str(model), core=server_core))}
            with _server([str(HERE / "floor.py"), "empty"], server_core, {}) as (process, port):
                found["empty"] = _load(process, port, requests["binary"], client_core)
            with _server(["-m", "evenkeel_runtime"], server_core, _environment(model, folder)) as (process, port):
                for kind, path in requests.items():
                    found[kind] = _load(process, port, path, client_core)
            rounds.append(found)
    _print(rounds)


def _print(rounds: list[dict[str, Any]]) -> None:
    raw_b1 = statistics.median(found["raw"]["b1"] for found in rounds)
    raw_b32 = statistics.median(found["raw"]["b32"] for found in rounds)
    forward_us = 1e6 / raw_b32
    print(f"bare forward ({rounds[0]['raw']['path']}) batch 1 {raw_b1:,.0f} rows/s, batch 32 {raw_b32:,.0f} rows/s")
    print(
        f"{'':8} {'req/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'CPU us/req':>11} {'- forward':>10} "
        f"{'x raw b1':>9} {'x raw b32':>9}"
    )
    medians: dict[str, dict[str, float]] = {}
    for kind in ("empty", "binary", "json"):
        row = {
            key: statistics.median(found[kind][key] for found in rounds)
            for key in ("rate", "p50_ms", "p99_ms", "cpu_us")
        }
        row["own_us"] = row["cpu_us"] - (0 if kind == "empty" else forward_us)
        row["vs_b1"] = statistics.median(1e6 / found[kind]["cpu_us"] / found["raw"]["b1"] for found in rounds)
        row["vs_b32"] = statistics.median(1e6 / found[kind]["cpu_us"] / found["raw"]["b32"] for found in rounds)
        medians[kind] = row
        print(
            f"{kind:8} {row['rate']:>9,.0f} {row['p50_ms']:>8.2f} {row['p99_ms']:>8.2f} {row['cpu_us']:>11.1f} "
            f"{row['own_us']:>10.1f} {row['vs_b1']:>9.2f} {row['vs_b32']:>9.3f}"
        )
    print(
        json.dumps(
            {
                "cpu_us_binary": round(medians["binary"]["own_us"], 1),
                "cpu_us_json": round(medians["json"]["own_us"], 1),
                "mlp_binary_vs_raw_b1": round(medians["binary"]["vs_b1"], 3),
            }
        )
    )


def _load(process: subprocess.Popen[bytes], port: int, request: Path, core: int) -> dict[str, float]:
    """Load the server, after a short warm-up, and return rate, latencies and CPU per request."""
    client = [str(HERE / "client.py"), "127.0.0.1", str(port), str(request), str(CONNECTIONS)]
    _run([*client, "0.7"], core)
    before = _cpu_s(process.pid)
    found: dict[str, float] = json.loads(_run([*client, str(SECONDS)], core))
    found["cpu_us"] = (_cpu_s(process.pid) - before) / found["requests"] * 1e6
    found["rate"] = found["requests"] / found["seconds"]
    return found


def _cpu_s(pid: int) -> float:
    """Return user and system time of a process and all below it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    total = (int(fields[11]) + int(fields[12])) / _TICKS
    for task in Path(f"/proc/{pid}/task").iterdir():
        children = (task / "children").read_text().split()
        total += sum(_cpu_s(int(child)) for child in children)
    return total


def _requests(folder: Path) -> dict[str, Path]:
    import numpy as np

    row = np.random.default_rng(0).random((1, 784), dtype=np.float32)
    entry: dict[str, Any] = {"name": "image", "datatype": "FP32", "shape": [1, 784]}
    binary = json.dumps(
        {
            "inputs": [{**entry, "parameters": {"binary_data_size": row.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    text = json.dumps({"inputs": [{**entry, "data": [round(float(value), 7) for value in row[0]]}]}).encode()
    head = b"POST /v2/models/mlp/infer HTTP/1.1\r\nHost: bench\r\nContent-Type: %s\r\n%sContent-Length: %d\r\n\r\n"
    length = b"Inference-Header-Content-Length: %d\r\n" % len(binary)
    bodies = {
        "binary": head % (b"application/octet-stream", length, len(binary) + row.nbytes) + binary + row.tobytes(),
        "json": head % (b"application/json", b"", len(text)) + text,
    }
    paths = {}
    for kind, body in bodies.items():
        paths[kind] = folder / kind
        paths[kind].write_bytes(body)
    return paths


def _environment(model: Path, folder: str) -> dict[str, str]:
    return {
        "EVENKEEL_MODEL_NAME": "mlp",
        "EVENKEEL_MODEL_PATH": str(model),
        "EVENKEEL_HTTP_HOST": "127.0.0.1",
        "EVENKEEL_TERMINATION_LOG": str(Path(folder) / "termination"),
        "EVENKEEL_DRAIN_DELAY_S": "0",
    }


@contextmanager
def _server(
    arguments: list[str], core: int, environment: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if arguments[-1] == "empty":
        arguments = [*arguments, str(port)]
    environment = {**os.environ, **environment, "EVENKEEL_HTTP_PORT": str(port)}
    process = subprocess.Popen(
        _pinned([sys.executable, *arguments], core), env=environment, stderr=subprocess.DEVNULL if environment else None
    )
    try:
        _await_ready(process, port)
        yield process, port
    finally:
        process.terminate()
        process.wait(30)


def _await_ready(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise SystemExit("the server did not become ready")


def _python(what: str, path: str, core: int) -> str:
    return _run(
        [str(HERE / ("export.py" if what == "export" else "floor.py")), *([] if what == "export" else [what]), path],
        core,
    )


def _run(arguments: list[str], core: int) -> str:
    return subprocess.run(
        _pinned([sys.executable, *arguments], core), check=True, stdout=subprocess.PIPE, text=True, timeout=300
    ).stdout


def _pinned(arguments: list[str], core: int) -> list[str]:
    taskset = shutil.which("taskset")
    return [taskset, "-c", str(core), *arguments] if taskset else arguments


if __name__ == "__main__":
    main()
