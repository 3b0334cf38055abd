"""How much faster is the runtime than the best of the peers?

In the first round every form of every peer is measured; later rounds leave out a form that came nowhere near: less than
half of the best form's rate in every cell that it answers. Of a cell's medians the best counts, whichever peer's and
form's it is, and the ratio is between answers to the same bytes. A *route* is in the table only.

Rates at 32 connections are requests per second of CPU, of all processes of a server (see `__main__`): a peer that
sleeps on timers while the core is idle is so made to look better than it is. At one connection it is the median
latency that is compared.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from tests.bench.runtime import payloads
from tests.bench.runtime.peers import PEERS, ROUTE, Peer
from tests.bench.runtime.peers.environments import Missing, version
from tests.bench.runtime.servers import Cores, NotReady, Unusable, peer

CONNECTIONS = 32
SECONDS = 2.0
WARM_UP_S = 1.0
FAR = 0.5

Name = tuple[str, str]
"""A peer's distribution and its form."""
Cells = dict[str, dict[str, float]]


def measured(folder: Path, cores: Cores, before: list[dict[Name, Cells]]) -> dict[Name, Cells]:
    """Return one round of the forms that the rounds `before` leave; one that does not start is told and left out."""
    found: dict[Name, Cells] = {}
    for one in PEERS:
        for form in one.forms:
            name = one.distribution, form
            if before and not _is_near(name, before[0]):
                continue
            try:
                found[name] = _form(folder, cores, one, form)
            except (Missing, NotReady, Unusable) as error:
                print(f"{one.distribution} ({form}) is left out: {error}", file=sys.stderr)
    return found


def _form(folder: Path, cores: Cores, one: Peer, form: str) -> Cells:
    found: Cells = {}
    for model, shape in (("mlp", (1, 784)), ("cnn", (1, 1, 28, 28))):
        requests = {f"{model} json": payloads.text(folder, "image", *shape)}
        if form in one.binary:
            requests[f"{model} binary"] = payloads.binary(folder, "image", *shape)
        if form == ROUTE:
            requests = {cell: payloads.at(b"/route", request) for cell, request in requests.items()}
        first, *_ = requests.values()
        with peer(one, form, folder / f"{model}.pt", cores.server, first) as server:
            for cell, request in requests.items():
                server.load(request, cores.client, CONNECTIONS, WARM_UP_S)
                found[cell] = server.load(request, cores.client, CONNECTIONS, SECONDS)
                if model == "mlp":
                    found[f"{cell} c=1"] = server.load(request, cores.client, 1, SECONDS)
    return found


def _speed(cell: str, found: dict[str, float]) -> float:
    return 1e3 / found["p50_ms"] if cell.endswith("c=1") else 1e6 / found["cpu_us"]


def _is_near(name: Name, first: dict[Name, Cells]) -> bool:
    """Return whether a form came within reach of the best in any cell of the first round."""
    best: dict[str, float] = {}
    for cells in first.values():
        for cell, found in cells.items():
            best[cell] = max(best.get(cell, 0.0), _speed(cell, found))
    return any(_speed(cell, found) >= FAR * best[cell] for cell, found in first.get(name, {}).items())


def table(rounds: list[dict[Name, Cells]], ours: list[Cells]) -> dict[str, float]:
    """Print the medians and return the ratios; where both payloads are asked for, the smaller one."""
    best: dict[str, float] = {}
    print(f"{'peer':28} {'cell':16} {'req/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'CPU us/req':>11}")
    for name in rounds[0]:
        distribution, form = name
        release = next(version(one) for one in PEERS if one.distribution == distribution)
        for cell in rounds[0][name]:
            found = _medians([cells[name][cell] for cells in rounds if name in cells])
            print(
                f"{f'{distribution} {release} {form}':28} {cell:16} {found['rate']:>9,.0f} {found['p50_ms']:>8.2f} "
                f"{found['p99_ms']:>8.2f} {found['cpu_us']:>11.1f}"
            )
            if form != ROUTE:
                best[cell] = max(best.get(cell, 0.0), _speed(cell, found))
    ratios = {
        cell: _speed(cell, _medians([cells[cell] for cells in ours])) / value for cell, value in sorted(best.items())
    }
    print("against the best peer: " + "  ".join(f"{cell} {ratio:.2f}" for cell, ratio in ratios.items()))
    wanted = {
        "mlp_json_vs_peer": ("mlp json",),
        "mlp_binary_vs_peer": ("mlp binary",),
        "cnn_vs_peer": ("cnn json", "cnn binary"),
        "c1_vs_peer": ("mlp json c=1", "mlp binary c=1"),
    }
    return {
        key: min(ratios[cell] for cell in cells if cell in ratios)
        for key, cells in wanted.items()
        if ratios.keys() & set(cells)
    }


def _medians(cells: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(found[key] for found in cells) for key in cells[0]}
