"""Does a size ever leave its bounds, whatever is measured? Random worlds, step by step, the law's memory kept."""

from __future__ import annotations

import math
from random import Random

from evenkeel_operator.decide.capacity import Capacity
from evenkeel_operator.decide.memory import Memory
from evenkeel_operator.decide.replicas import (
    Fleet,
    Fresh,
    Measurement,
    NoMetrics,
    NoTraffic,
    Scaling,
    Signals,
    Stale,
    decide,
)
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal

STEPS = 100_000
STORY = 500
"""Steps of one world; the next begins with an empty memory."""


def broken(steps: int, seed: int) -> list[str]:
    """Return every decision of `steps` above the most, below the least, or above the GPUs that are known to be free."""
    found: list[str] = []
    for world in range(math.ceil(steps / STORY)):
        found += _story(Random(1000 * seed + world), min(STORY, steps - world * STORY))
    return found


def _story(source: Random, steps: int) -> list[str]:
    least = source.choice([0, 1, 1, 2, 5])
    most = max(1, least + source.choice([0, 1, 5, 20, 300]))
    scaling = Scaling(least, most, 1.0, 0.95)
    rate = source.choice([0.5, 10.0, 300.0])
    carries = Capacity(rate, rate * source.uniform(0.5, 1.0), rate * source.uniform(1.0, 2.0))
    memory, now, size = Memory(), 1e9, source.randint(0, most)
    level = 0.0
    found: list[str] = []
    for _ in range(steps):
        now += source.choice([5.0, 5.0, 5.0, 4.4, 0.0, 60.0, -60.0, 3600.0])
        level = source.choice([level, level, level, 0.0, source.expovariate(1.0) * rate * most / 2])
        ready = source.randint(0, max(size, 1))
        heard = source.choice([ready, ready, source.randint(0, ready)])
        free = _free(source)
        demand = _measured(source, level)
        queued = _measured(source, source.choice([0.0, 5.0, 1e4]))
        signals = Signals(demand, queued, NoMetrics(), ready, heard, source.choice([5.0, 5.0, 0.2, 30.0]))
        known: Capacity | NoSignal = NO_SIGNAL if source.random() < 0.05 else carries
        fleet = Fleet(size, ready, free, source.choice([1.0, 60.0, 420.0]))
        decision, memory = decide(signals, fleet, scaling, known, memory, now)
        got = decision.size
        room = math.inf if free is None or isinstance(free, NoSignal) else size + free
        if not least <= got <= most or got > max(room, least):
            found.append(f"{got} of {least} to {most}, {size} asked for and {free} free: {decision.message}")
        size = got
        if source.random() < 0.01:
            memory = Memory.from_json(memory.to_json())
    return found


def _free(source: Random) -> int | NoSignal | None:
    return source.choice([None, None, NO_SIGNAL, 0, 1, 5])


def _measured(source: Random, value: float) -> Measurement:
    kind = source.random()
    if kind < 0.8:
        return Fresh(value, source.uniform(0.0, 10.0)) if value > 0 else NoTraffic()
    if kind < 0.85:
        return Fresh(source.choice([math.nan, math.inf, -1.0]))
    unknown: list[Measurement] = [Stale(value, 60.0), NoMetrics(), NoTraffic()]
    return source.choice(unknown)
