"""How long does a start take, and how much is torch's? `python -m tests.bench.runtime.start`; the last line is JSON.

From the start of the process to the first `ready`, on one core, with the files in the page cache. In every round, which
are interleaved, beside what no start can go below where torch is imported whole: the import, and the import with 500 MB
read and hashed meanwhile. Seconds of CPU beside those of the clock: neighbours on a shared machine stretch only these.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.bench.runtime.servers import Cores, replica, run

ROUNDS = 5
LARGE = "large.pt2"
STARTS: Mapping[str, str] = {
    "mlp": "mlp.pt2",
    "500 MB": LARGE,
    "530 MB of safetensors": "vgg11.safetensors",
}
Cell = tuple[float, float]
"""Seconds of the clock, and of CPU."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.runtime.start", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="starts of each model (default: %(default)s)")
    rounds: int = parser.parse_args().rounds
    available = sorted(os.sched_getaffinity(0))
    cores = Cores(available[0], available[-1])
    os.sched_setaffinity(0, {cores.client})
    cells: dict[str, list[Cell]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run("export", str(folder), "starts", core=cores.server)
        for _ in range(rounds):
            for cell, seconds in _round(folder, cores.server).items():
                cells.setdefault(cell, []).append(seconds)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {rounds} rounds, medians\n{'':28}   clock     CPU")
    found = {cell: _median(taken) for cell, taken in cells.items()}
    for cell, (clock, cpu) in found.items():
        print(f"{cell:28} {clock:>5.2f} s {cpu:>5.2f} s")
    torch, read = found["import torch"], found["import torch, read, sha256"]
    figures = {
        "ready_over_import_s": found["mlp"][0] - torch[0],
        "load_500mb_s": found["500 MB"][0],
        "load_500mb_over_floor_s": found["500 MB"][0] - read[0],
        "load_500mb_cpu_s": found["500 MB"][1],
        "load_500mb_safetensors_s": found["530 MB of safetensors"][0],
    }
    print(json.dumps({key: round(value, 3) for key, value in figures.items()}))


def _round(folder: Path, core: int) -> dict[str, Cell]:
    found: dict[str, Cell] = {}
    for cell, told in (("import torch", ["torch"]), ("import torch, read, sha256", ["read", str(folder / LARGE)])):
        alone = json.loads(run("floor", *told, core=core))
        found[cell] = alone["import_s"], alone["cpu_s"]
    for cell, file in STARTS.items():
        with replica(folder / file, core) as server:
            found[cell] = server.ready_s, server.cpu_s()
    return found


def _median(taken: list[Cell]) -> Cell:
    return statistics.median(clock for clock, _ in taken), statistics.median(cpu for _, cpu in taken)


if __name__ == "__main__":
    main()
