"""What does a canary cost the stable replica? `python -m tests.bench.runtime.canary`; the last line is JSON.

One stable replica on a core of its own, one canary beside the load. The stable replica is told of the canary and of
none in turns, and its CPU per request compared within each pair: on a shared machine only that means something.

    idle       a canary with next to no share: what is added to a request that stable answers
    affinity   the same, with a header that has to be hashed
    passed     every request passed on: what stable pays for one, beside its own answer without a canary
    mirrored   every tenth request copied
    choice ns  the same as idle, in the process itself: the choice alone, by chance and by a header
"""

from __future__ import annotations

import http.client
import json
import math
import os
import statistics
import sys
import tempfile
import time
import timeit
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from evenkeel_runtime import contract, receipts
from evenkeel_runtime.contract import DIRECTIVES_PATH, MIRROR, SIGNALS_PATH, SPLIT, Canary, Env
from evenkeel_runtime.serve.canary import Choice
from tests.bench.runtime import payloads
from tests.bench.runtime.export import Perceptron
from tests.bench.runtime.servers import Cores, Server, replica

PAIRS = 11
PAIR_S = 0.5
CONNECTIONS = 8
LEAST = 1e-9
_T90 = 1.372  # one-sided 90 % quantile of Student's t with PAIRS - 1 = 10 degrees of freedom
_KEY = b"0123456789abcdef0123456789abcdef"
_UID = "00000000-0000-4000-8000-000000000000"


def main() -> None:
    available = sorted(os.sched_getaffinity(0))
    cores = Cores(available[0], available[-1])
    os.sched_setaffinity(0, {cores.client})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / contract.RECEIPT_KEY_FILE).write_text(_KEY.hex())
        environment = {
            Env.UID: _UID,
            "EVENKEEL_RECEIPT_KEY_DIR": str(folder),
            Env.FEEDBACK_URL: "http://127.0.0.1:9",
        }
        mlp = folder / "mlp.pt2"
        program = torch.export.export(
            Perceptron().eval(), (torch.zeros(2, 784),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        torch.export.save(program, mlp)
        plain = payloads.binary(folder, "image", 1, 784)
        named = folder / "named"
        named.write_bytes(plain.read_bytes().replace(b"\r\n", b"\r\nx-user: somebody\r\n", 1))
        with replica(mlp, cores.server, **environment) as stable, replica(mlp, cores.client, **environment) as canary:
            to = (f"127.0.0.1:{canary.port}",)
            cells: Mapping[str, tuple[Path, Canary]] = {
                "idle": (plain, Canary("canary", SPLIT, LEAST, to, 300.0)),
                "affinity": (named, Canary("canary", SPLIT, LEAST, to, 300.0, "x-user")),
                "passed": (plain, Canary("canary", SPLIT, 1.0, to, 300.0)),
                "mirrored": (plain, Canary("canary", MIRROR, 0.1, to, 300.0)),
            }
            figures: dict[str, float] = {}
            for cell, (request, told) in cells.items():
                figures |= _compared(cell, stable, request, told, cores)
    figures |= _choices()
    print(json.dumps(figures))


def _compared(cell: str, stable: Server, request: Path, told: Canary, cores: Cores) -> dict[str, float]:
    """Print and return what a canary adds to the CPU of a request, the median of pairs, with a bound on its mean."""
    differences: list[float] = []
    without: list[float] = []
    for number in range(PAIRS + 1):
        costs: dict[bool, float] = {}
        for has_canary in (True, False) if number % 2 else (False, True):
            _tell(stable, told if has_canary else None)
            costs[has_canary] = stable.load(request, cores.client, CONNECTIONS, PAIR_S)["cpu_us"]
        if number:  # the first pair is the warm-up
            differences.append(costs[True] - costs[False])
            without.append(costs[False])
    median, base = statistics.median(differences), statistics.median(without)
    bound = statistics.mean(differences) + _T90 * statistics.stdev(differences) / math.sqrt(PAIRS)
    print(f"{cell:10} without {base:6.1f} us CPU per request, added {median:+6.1f} (90 % upper bound {bound:+.1f})")
    return {f"{cell}_added_us": round(median, 2), f"{cell}_added_upper_us": round(bound, 2)}


def _choices() -> dict[str, float]:
    """Print and return how long the choice takes, in nanoseconds of CPU, the best of fifty."""
    found = {}
    headers = {b"host": b"bench", b"x-user": b"somebody"}
    for name, header in (("chance", None), ("header", "x-user")):
        choice = Choice(Canary("canary", SPLIT, LEAST, ("127.0.0.1:1",), 300.0, header))
        calls = timeit.Timer(partial(choice.chooses, headers), timer=time.process_time)
        found[f"choice_{name}_ns"] = round(min(calls.repeat(50, 10_000)) * 1e5, 1)
    print(f"the choice by chance {found['choice_chance_ns']} ns, by a header {found['choice_header_ns']} ns")
    return found


def _tell(stable: Server, canary: Canary | None) -> None:
    process = json.loads(_asked(stable, "GET", SIGNALS_PATH))["bootId"]
    body = contract.directive(0, 600.0, process, canary)
    moment = str(time.time_ns() // 1_000_000)
    text = receipts.signature(_KEY, receipts.DIRECTIVE, moment.encode(), body)
    _asked(stable, "POST", DIRECTIVES_PATH, body, {receipts.TIME_HEADER: moment, receipts.SIGNATURE_HEADER: text})


def _asked(server: Server, method: str, path: str, body: bytes = b"", headers: Any = None) -> bytes:
    port = server.port + contract.ADMIN_PORT - contract.HTTP_PORT
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        found = answer.read()
        if answer.status != 200:
            sys.exit(f"{path} answers {answer.status}: {found.decode()}")
        return found
    finally:
        connection.close()


if __name__ == "__main__":
    main()
