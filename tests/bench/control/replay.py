"""What came of every trace, under the law and under the grid of the others? Hours of work, kept as it is done.

A piece is one seed of all stretches of one length, under the law or under the grid: these do not touch each other, so
several are done at a time, in processes of their own. A finished piece is a file whose name has a digest of the demand
and of all code that it came from, so that whoever starts again goes on where the last run ended, and a change of the
law leaves the grid as it is.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

import evenkeel_operator
import evenkeel_runtime.engine.batching
from evenkeel_operator.decide.replicas import Scaling
from evenkeel_operator.simulate.baselines.grid import families
from evenkeel_operator.simulate.clients import ClosedClients, OpenClients
from evenkeel_operator.simulate.fluid import Fleet, World, run
from evenkeel_operator.simulate.law import Law, Setting
from evenkeel_operator.simulate.load import EXPANSIONS, Expansion, Floats, arrivals
from evenkeel_operator.simulate.profile import REFERENCE
from tests.bench.control import figures
from tests.bench.control.demand import PEAK_REPLICAS, Demand
from tests.bench.control.figures import Numbers, Result

MOST = 2 * PEAK_REPLICAS

Client = Literal["open", "closed"]
_Who = Literal["law", "grid"]
_WHO: tuple[_Who, ...] = ("law", "grid")

_OPERATOR = Path(evenkeel_operator.__path__[0])
_SHARED = (
    *(_OPERATOR / "simulate" / name for name in ("fluid.py", "load.py", "profile.py", "clients.py")),
    _OPERATOR / "decide" / "capacity.py",
    Path(evenkeel_runtime.engine.batching.__file__),
    Path(__file__),
)
_SOURCES: dict[_Who, tuple[Path, ...]] = {
    "law": (*_SHARED, _OPERATOR / "simulate" / "law.py", *sorted((_OPERATOR / "decide").glob("*.py"))),
    "grid": (*_SHARED, *sorted((_OPERATOR / "simulate" / "baselines").glob("*.py"))),
}


@dataclass(frozen=True)
class Replay:
    """How the demands are replayed: with starts of `cold_s`, by `client`s, and where finished pieces are kept."""

    cold_s: int
    client: Client
    kept: Path

    def results(self, demands: Sequence[Demand], seed: int) -> dict[Expansion, list[Result]]:
        """Return what came of every trace, by the way minutes are filled; columns are ours and the grid's."""
        sums: dict[tuple[Expansion, str], list[tuple[Numbers, float]]] = {}
        for alike in _by_length(demands):
            counts = _counts(alike, seed)
            parts = np.concatenate([self.piece(who, counts, seed) for who in _WHO], axis=2)
            for row, each in enumerate(alike):
                ahead = figures.clairvoyant_s(counts[:, row], REFERENCE.capacity.rate, self.cold_s)
                for way in each.ways:
                    sums.setdefault((way, each.trace), []).append((parts[:, row], ahead))
        by_way: dict[Expansion, list[Result]] = {way: [] for way in EXPANSIONS}
        for (way, trace), found in sums.items():
            late, requests, gpu_s, changes = np.sum([part for part, _ in found], axis=0)
            ahead = sum(each for _, each in found)
            by_way[way].append(Result(trace, late / np.maximum(requests, 1.0), gpu_s, changes, ahead))
        return by_way

    def piece(self, who: _Who, counts: Floats, seed: int) -> Numbers:
        """Return late and all requests, GPU seconds and changes, [4, run, configuration]."""
        name = f"{who}-{self.client}-{self.cold_s}s-{len(counts)}-seed{seed}-{_digest(who, counts)}.npy"
        path = self.kept / name
        if path.exists():
            found: Numbers = np.load(path)
            return found
        began = time.monotonic()
        found = self._run(who, counts)
        self.kept.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, found)
        part.replace(path)
        took = time.monotonic() - began
        print(f"{counts.shape[1]} x {name}: {took:.0f} s", file=sys.stderr, flush=True)
        return found

    def _run(self, who: _Who, counts: Floats) -> Numbers:
        seconds, runs = counts.shape
        capacity = REFERENCE.capacity
        if who == "law":
            scaling = Scaling(1, MOST, REFERENCE.target_s, REFERENCE.quantile)
            fleets = [Fleet(Law(Setting(scaling, capacity, float(self.cold_s)), runs), self.cold_s)]
        else:
            grid = families(REFERENCE, PEAK_REPLICAS, MOST)
            fleets = [Fleet(family.autoscaler, self.cold_s) for family in grid]
        first = np.clip(np.ceil(counts[:60].mean(axis=0) / capacity.rate), 1, MOST).astype(np.float32)
        clients = ClosedClients(counts) if self.client == "closed" else OpenClients(counts)
        got = run(World(REFERENCE, first, most=MOST), fleets, clients, seconds)
        return np.stack([got.late, got.requests, got.gpu_s, got.changes]).astype(np.float64)


def finish(replays: Sequence[Replay], demands: Sequence[Demand], seeds: int, jobs: int) -> None:
    """Have every piece of `replays` kept, `jobs` of them done at a time; the longest begin first."""
    by_length = list(_by_length(demands))
    work = [
        (replay, who, alike, seed)
        for who in _WHO
        for alike in reversed(by_length)
        for replay in replays
        for seed in range(seeds)
    ]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for each in [pool.submit(_finish, *each) for each in work]:
            each.result()


def _finish(replay: Replay, who: _Who, alike: Sequence[Demand], seed: int) -> None:
    replay.piece(who, _counts(alike, seed), seed)


def _by_length(demands: Sequence[Demand]) -> Iterator[list[Demand]]:
    """Yield those of equal length together, the shortest first."""
    for length in sorted({len(d.expected) for d in demands}):
        yield [d for d in demands if len(d.expected) == length]


def _counts(alike: Sequence[Demand], seed: int) -> Floats:
    """Return the arrivals of every second, a column for each stretch."""
    return np.stack([arrivals(d.expected, 1000 * seed + i) for i, d in enumerate(alike)], axis=1)


def _digest(who: _Who, counts: Floats) -> str:
    found = hashlib.sha256(np.ascontiguousarray(counts).tobytes())
    for path in _SOURCES[who]:
        found.update(path.read_bytes())
    return found.hexdigest()[:16]
