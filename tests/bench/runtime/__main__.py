"""What does the runtime cost, how much of the bare model is left, and how fast are other Python servers?

Tables, and one JSON object as last line. `--without-peers` leaves the other servers and their ratios out.

The server has one core and the load another; the bare forward runs on the server's core, in the same run. Three rounds
are interleaved and the medians taken: on a shared machine only ratios of one run mean something.

Rates against the bare model are rows per second of CPU on both sides. With a saturated core of its own for the server
that is the same as rows per second; where neighbours take part of the core, they take it from both. The bare model is
called the way that the server chose (`_vs_raw`), and as torch calls the program itself (`_vs_torch`).
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.runtime import payloads
from tests.bench.runtime.export import WIDTH
from tests.bench.runtime.peers import compare
from tests.bench.runtime.servers import PACKAGE, Cores, Server, empty_handler, pinned, replica, run

CONNECTIONS = 32
ROUNDS = 3
SECONDS = 4.0
WARM_UP_S = 0.7
PAIRS = 12
PAIR_S = 1.0
_T90 = 1.363  # one-sided 90 % quantile of Student's t with PAIRS - 1 = 11 degrees of freedom

CELLS = ("empty", "binary", "json", "empty c=1", "binary c=1", "json c=1", "cnn", "cnn json", "cnn 32 rows")

Round = dict[str, dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.runtime", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--without-peers", action="store_true", help="measure the runtime alone")
    has_peers = not parser.parse_args().without_peers
    available = sorted(os.sched_getaffinity(0))
    cores = Cores(available[0], available[-1])
    if cores.server == cores.client:
        print("note: one core only, server and load share it", file=sys.stderr)
    os.sched_setaffinity(0, {cores.client})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run("export", str(folder), core=cores.server)
        rounds: list[Round] = []
        peers: list[dict[compare.Name, compare.Cells]] = []
        for number in range(ROUNDS):
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
            rounds.append(_round(folder, cores))
            if has_peers:
                peers.append(compare.measured(folder, cores, peers))
        summary = _table(rounds)
        if has_peers:
            summary |= _rounded(compare.table(peers, [_as_peer(found) for found in rounds]))
        summary["batching_c1_ratio"] = round(_batching_c1(folder, cores), 3)
        summary["health_p99_ms"] = round(_health_p99_ms(folder, cores), 1)
    print(
        f"batching on against off, CPU per request at c=1, 90 % upper bound of {PAIRS} pairs: "
        f"{summary['batching_c1_ratio']}"
    )
    print(f"health answers beside a forward of half a second: p99 {summary['health_p99_ms']} ms")
    print(json.dumps(summary))


def _round(folder: Path, cores: Cores) -> Round:
    mlp, cnn = folder / "mlp.pt2", folder / "cnn.pt2"
    requests = {
        "binary": payloads.binary(folder, "image", 1, 784),
        "json": payloads.text(folder, "image", 1, 784),
        "cnn": payloads.binary(folder, "image", 1, 1, 28, 28),
        "cnn json": payloads.text(folder, "image", 1, 1, 28, 28),
        "cnn 32 rows": payloads.binary(folder, "image", 32, 1, 28, 28),
    }
    found: Round = {
        "torch": json.loads(run("floor", "torch", core=cores.server)),
        "raw mlp": json.loads(run("floor", "raw", str(mlp), core=cores.server)),
        "raw cnn": json.loads(run("floor", "raw", str(cnn), core=cores.server)),
    }
    with empty_handler(cores.server) as server:
        found["empty"] = _loaded(server, requests["binary"], cores, CONNECTIONS)
        found["empty c=1"] = _loaded(server, requests["binary"], cores, 1)
    with replica(mlp, cores.server) as server:
        found["start"] = {"ready_s": server.ready_s, "resident_bytes": server.resident_bytes()}
        found["binary"] = _loaded(server, requests["binary"], cores, CONNECTIONS)
        found["json"] = _loaded(server, requests["json"], cores, CONNECTIONS)
        found["binary c=1"] = _loaded(server, requests["binary"], cores, 1)
        found["json c=1"] = _loaded(server, requests["json"], cores, 1)
    with replica(cnn, cores.server) as server:
        found["cnn"] = _loaded(server, requests["cnn"], cores, CONNECTIONS)
        found["cnn json"] = _loaded(server, requests["cnn json"], cores, CONNECTIONS)
        found["cnn 32 rows"] = _loaded(server, requests["cnn 32 rows"], cores, 2)
    with replica(folder / "large.pt2", cores.server) as server:
        found["large"] = {"ready_s": server.ready_s}
    return found


def _loaded(server: Server, request: Path, cores: Cores, connections: int) -> dict[str, float]:
    server.load(request, cores.client, connections, WARM_UP_S)
    return server.load(request, cores.client, connections, SECONDS)


def _table(rounds: list[Round]) -> dict[str, float]:
    def median(figure: Callable[[Round], float]) -> float:
        return statistics.median(figure(found) for found in rounds)

    def figure(cell: str, key: str) -> float:
        return median(lambda found: found[cell][key])

    forward_us = 1e6 / figure("raw mlp", "b32")
    for model in ("raw mlp", "raw cnn"):
        for path, prefix in ((rounds[0][model]["path"], ""), ("as torch calls it", "torch_")):
            speeds = "  ".join(f"batch {rows} {figure(model, f'{prefix}b{rows}'):,.0f}" for rows in (1, 8, 32))
            print(f"{model} ({path}), rows/s: {speeds}")
    print(f"{'':12} {'req/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'CPU us/req':>11}")
    for cell in CELLS:
        rate, p50, p99, cpu = (figure(cell, key) for key in ("rate", "p50_ms", "p99_ms", "cpu_us"))
        print(f"{cell:12} {rate:>9,.0f} {p50:>8.2f} {p99:>8.2f} {cpu:>11.1f}")
    summary = {
        "cpu_us_empty": figure("empty", "cpu_us"),
        "cpu_us_binary": figure("binary", "cpu_us") - forward_us,
        "cpu_us_json": figure("json", "cpu_us") - forward_us,
        "c1_added_p50_us": median(lambda found: found["binary c=1"]["p50_ms"] * 1e3 - 1e6 / found["raw mlp"]["b1"]),
        "c1_empty_p50_us": figure("empty c=1", "p50_ms") * 1e3,
        "mlp_binary_vs_raw_b1": median(lambda found: _per_cpu_s(found["binary"]) / found["raw mlp"]["b1"]),
        "mlp_binary_vs_raw_b32": median(lambda found: _per_cpu_s(found["binary"]) / found["raw mlp"]["b32"]),
        "mlp_json_vs_raw_b1": median(lambda found: _per_cpu_s(found["json"]) / found["raw mlp"]["b1"]),
        "cnn_vs_raw": median(lambda found: _per_cpu_s(found["cnn"]) / _best(found["raw cnn"])),
        "cnn_vs_torch": median(lambda found: _per_cpu_s(found["cnn"]) / _best(found["raw cnn"], "torch_")),
        "rows32_vs_raw": median(lambda found: _rows_per_cpu_s(found) / _best(found["raw cnn"])),
        "rows32_vs_torch": median(lambda found: _rows_per_cpu_s(found) / _best(found["raw cnn"], "torch_")),
        "ready_over_import_s": median(lambda found: found["start"]["ready_s"] - found["torch"]["import_s"]),
        "load_500mb_s": figure("large", "ready_s"),
        "rss_over_torch_mb": median(
            lambda found: (found["start"]["resident_bytes"] - found["torch"]["resident_bytes"]) / 1e6
        ),
    }
    return _rounded(summary)


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


def _as_peer(found: Round) -> compare.Cells:
    """Return the cells of a round by the names that peers' have."""
    return {
        "mlp json": found["json"],
        "mlp binary": found["binary"],
        "mlp json c=1": found["json c=1"],
        "mlp binary c=1": found["binary c=1"],
        "cnn json": found["cnn json"],
        "cnn binary": found["cnn"],
    }


def _per_cpu_s(found: dict[str, float]) -> float:
    return 1e6 / found["cpu_us"]


def _rows_per_cpu_s(found: Round) -> float:
    return 32 * _per_cpu_s(found["cnn 32 rows"])


def _best(raw: dict[str, Any], prefix: str = "") -> float:
    return float(max(raw[f"{prefix}b{rows}"] for rows in (1, 8, 32)))


def _batching_c1(folder: Path, cores: Cores) -> float:
    """Return the upper bound of what a lone client pays for batching: pairs are taken in turns on one core."""
    request = payloads.binary(folder, "image", 1, 784)
    with (
        replica(folder / "mlp.pt2", cores.server) as batching,
        replica(folder / "mlp.pt2", cores.server, EVENKEEL_MAX_BATCH_SIZE="1") as single,
    ):
        logs: list[float] = []
        for number in range(PAIRS + 1):
            costs = {}
            for server in (batching, single) if number % 2 else (single, batching):
                costs[server.port] = server.load(request, cores.client, 1, PAIR_S)["cpu_us"]
            if number:  # the first pair is the warm-up
                logs.append(math.log(costs[batching.port] / costs[single.port]))
    return math.exp(statistics.mean(logs) + _T90 * statistics.stdev(logs) / math.sqrt(PAIRS))


def _health_p99_ms(folder: Path, cores: Cores) -> float:
    request = payloads.binary(folder, "image", 1, WIDTH)
    with replica(folder / "long.pt2", cores.server) as server:
        words = ["-m", f"{PACKAGE}.client", "127.0.0.1", str(server.port), str(request), "2", "10"]
        load = subprocess.Popen(pinned([sys.executable, *words], cores.client), stdout=subprocess.DEVNULL)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        time.sleep(1.0)
        took: list[float] = []
        while load.poll() is None:
            began = time.perf_counter()
            connection.request("GET", "/v2/health/ready")
            connection.getresponse().read()
            took.append((time.perf_counter() - began) * 1e3)
            time.sleep(0.01)
        connection.close()
    return sorted(took)[len(took) * 99 // 100]


if __name__ == "__main__":
    main()
