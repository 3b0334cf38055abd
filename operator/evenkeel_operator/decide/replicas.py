"""How many replicas should there be now?

The law is an ordered list of named limits. Demand divided by what one replica carries gives the need; never a ratio
times the present size, so replicas that are still starting count by construction. Missing input holds the size: the
four states of a measurement (`NoTraffic`, `NoMetrics`, `Stale`, `Fresh`) are types of their own; none reads as zero.

Demand may be in requests per second or in tokens per second, as long as `Capacity` is in the same unit.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from evenkeel_operator.decide.capacity import Capacity
from evenkeel_operator.decide.experts import DEFAULT_HOLD_S, HEADROOMS, MARGIN, PERIODS_S, SIGNALS, sizes
from evenkeel_operator.decide.memory import Memory
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal
from evenkeel_operator.decide.window import Rates

TICK_S = 5.0
"""How often the law is meant to be asked; it copes with any interval."""

SILENT_PART = 4
"""While one of so many replicas is silent, or more of them, none is removed."""

MISSED_PART = 20
"""Likewise while the last answer of one of so many was lost: a poll later it is known, and waiting for it is cheap.
Not for any single one: of a large fleet some are always missed."""

LOOK_BACK_S = 60.0
"""How far back signals of the present look: two times 30 s, to tell a rise."""

STALE_S = 15.0
"""A measurement older than three ticks no longer speaks for the present."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """A measurement that speaks for the present."""

    value: float
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Stale:
    """The last measurement, too old to speak for the present."""

    value: float
    age_s: float


@dataclass(frozen=True, slots=True)
class NoTraffic:
    """It was measured, and there was nothing to measure: no request came in the time it covers."""

    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class NoMetrics:
    """Nobody has measured it: no replica answers, or none has ever."""


Measurement = Fresh | Stale | NoTraffic | NoMetrics


@dataclass(frozen=True, slots=True)
class Signals:
    """What the replicas in service say, all together.

    `demand` is what arrived per second (served, rejected and still waiting alike) at the `heard` replicas, of `ready`
    that take traffic, over the last `span_s` seconds by a clock that does not step. `queued` is what waits in them
    now; both in rows, where requests share calls. `latency_s` is the objective's quantile over the last minute.
    `capacity_age_s` is how long ago a replica's capacity was last learnt from them. `dispersion` is the variance of the
    demand of a second over its mean: 1 where every request is one, E[R²] / E[R] where it is R rows. `missed` were heard
    until the last time and did not answer then; they are no part of the heard, unless nobody answered.
    """

    demand: Measurement
    queued: Measurement
    latency_s: Measurement
    ready: int
    heard: int
    span_s: float = TICK_S
    dispersion: float = 1.0
    capacity_age_s: float | None = None
    missed: int = 0

    @property
    def counted(self) -> int:
        """How many replicas the latencies of the last minute are of: also those that told most of it, but not the end.

        Where nobody answered, the heard are the missed.
        """
        return min(self.ready, self.heard + self.missed)


@dataclass(frozen=True, slots=True)
class Fleet:
    """The replicas as the cluster has them: `asked` for now, `ready` of these, `free` more that would get their GPUs.

    `free` is None where a replica needs no GPU, and NO_SIGNAL where nodes cannot be read. `cold_start_s` is the time
    from a replica's creation until it is ready. For `waiting` of those asked for there is no node yet.
    """

    asked: int
    ready: int
    free: int | NoSignal | None = None
    cold_start_s: float = 60.0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Scaling:
    """What the user wants held: `quantile` of the latencies within `target_s`, with `least` to `most` replicas."""

    least: int
    most: int
    target_s: float
    quantile: float


class Limit(enum.StrEnum):
    """What bound a decision, one word each; the order is that in which they are applied."""

    DEMAND = "Demand"
    QUEUE = "Queue"
    HOLD = "Hold"
    NO_METRICS = "NoMetrics"
    STALE_METRICS = "StaleMetrics"
    SILENT_REPLICAS = "SilentReplicas"
    SURVIVORS = "Survivors"
    FREE_GPUS = "FreeGPUs"
    MIN_REPLICAS = "MinReplicas"
    MAX_REPLICAS = "MaxReplicas"


@dataclass(frozen=True, slots=True)
class Input:
    """One thing that a decision was made from: its value, None where there is none; its state; its age in seconds."""

    name: str
    value: float | None
    state: str
    age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The `size` wanted, the `limit` that bound it, in words for people, and what it was made from."""

    size: int
    limit: Limit
    message: str
    inputs: tuple[Input, ...]


def decide(
    signals: Signals, fleet: Fleet, scaling: Scaling, capacity: Capacity | NoSignal, memory: Memory, now: float
) -> tuple[Decision, Memory]:
    """Return the size wanted at `now` (seconds since the epoch) and what to remember until the next time.

    `memory` is handed over: it may be changed and returned, so its former owner must not use it again.
    """
    inputs = _inputs(signals, fleet, capacity)
    elapsed_s = _elapsed(signals, memory, now)
    memory.seen_at = now
    rate = at_most(signals)
    if rate is None or capacity is NO_SIGNAL or isinstance(capacity, NoSignal):
        memory.rates.pass_over(elapsed_s)
        limit = Limit.STALE_METRICS if isinstance(signals.demand, Stale) else Limit.NO_METRICS
        message = "the size is held: " + (
            "demand was not measured" if rate is None else "the capacity of a replica is not known"
        )
        return _bounded(fleet.asked, limit, message, fleet, scaling, inputs), memory
    unseen_since = memory.rates.unseen_since
    if memory.rates.first_at is None:
        memory.stood = fleet.asked
    memory.rates.observe(rate, signals.span_s, elapsed_s)
    if unseen_since is not None:
        memory.experts.excuse(unseen_since, memory.rates.clock)
    want, limit, message = _need(signals, fleet, scaling, capacity, memory, rate, elapsed_s)
    if want < fleet.asked:
        want, limit, message = _shrunk(want, limit, message, signals, fleet, capacity, memory)
    return _bounded(want, limit, message, fleet, scaling, inputs), memory


def _elapsed(signals: Signals, memory: Memory, now: float) -> float:
    """Return how many seconds have passed for the law.

    A wall clock may be set: backwards, no time passes; forwards, no more than the measurement covers, as long as it
    covers anything. Counter-example: with +60 s taken at its word, holding times would end a minute early.
    """
    if memory.seen_at is None:
        return 0.0
    elapsed = max(0.0, now - memory.seen_at)
    if isinstance(signals.demand, Fresh | NoTraffic):
        elapsed = min(elapsed, max(signals.span_s, TICK_S) + TICK_S)
    return elapsed


def arriving(signals: Signals) -> float | None:
    """Return what arrives per second at all replicas in service, as far as is known; None where the present is not."""
    match signals.demand:
        case Fresh(value=value) if math.isfinite(value) and value >= 0.0:
            return _of_all(value, signals)
        case NoTraffic():
            return 0.0
        case _:
            return None


def at_most(signals: Signals) -> float | None:
    """Return `arriving`, and what those may have beyond it that were not heard."""
    rate, silent = arriving(signals), max(0, signals.ready - signals.heard)
    if not rate or not silent:
        return rate
    # Which replica a request goes to is chance: what the others tell is off by this much in one of 40 cases.
    noise = signals.dispersion / max(signals.span_s, 1.0)
    return rate + 2.0 * math.sqrt(rate * noise * silent / max(1, signals.heard))


def _of_all(value: float, signals: Signals) -> float:
    """Return what the heard replicas' sum `value` is of all in service.

    Those that were not heard have as much as the others on average: that is how a Service spreads load.
    """
    if 0 < signals.heard < signals.ready:
        return value * signals.ready / signals.heard
    return value


def _need(
    signals: Signals,
    fleet: Fleet,
    scaling: Scaling,
    capacity: Capacity,
    memory: Memory,
    rate: float,
    elapsed_s: float,
) -> tuple[int, Limit, str]:
    rates, experts = memory.rates, memory.experts
    totals, start = sizes(scaling.most), fleet.cold_start_s
    experts.resize(len(totals) - 1)
    rate_15 = rates.mean(15.0)
    noise = math.sqrt(rate_15 * signals.dispersion / 15.0)
    bands = [BAND * noise * factor for factor in FACTORS]
    thresholds = [size * capacity.rate for size in totals]
    found = predictions(rates, start, signals.dispersion)
    experts.observe(found, rate * elapsed_s, rate, thresholds, bands, start, rates.clock, rates.seen_s)
    experts.choose(rates.clock)
    held = totals[experts.wanted(rates.clock)]

    # The last five seconds, less one standard deviation of their noise: without, a Poisson process at constant rate
    # asks for one replica more every minute.
    now = math.ceil(max(0.0, rate - math.sqrt(rate * signals.dispersion / TICK_S)) / capacity.rate)
    queued = _of_all(_value(signals.queued) or 0.0, signals)
    # A queue is emptied over e × the time of a start: the delayed integrator that this is overshoots if asked for more.
    drain = math.ceil((rate_15 + queued / (math.e * max(start, 10.0))) / (0.97 * capacity.max_rate))
    need = max(now, drain, held)
    unit = "rows/s" if signals.dispersion > 1.0 else "requests/s"
    each = f"{capacity.rate:.1f} for a replica"
    if need == held:
        return held, Limit.DEMAND, f"{rate:.1f} {unit} now, and what is to be expected, at {each}"
    if need == now:
        return now, Limit.DEMAND, f"{rate:.1f} {unit} now, at {each}"
    return drain, Limit.QUEUE, f"{queued:.0f} {unit.removesuffix('/s')} wait"


BAND = 7.0
"""A level that was wanted stays so until the signal is this many standard deviations of Poisson noise below it.

Half of it on either side of a constant rate: of the 240 means of 15 s in an hour, one in 4,000 is 3.5 away. With 4, a
rate next to a threshold has a replica come and go every few minutes.
"""

FACTORS = (*HEADROOMS, *[MARGIN] * (len(SIGNALS) - len(HEADROOMS)))
"""By what each signal multiplies the rate, and so its noise."""


def predictions(rates: Rates, cold_start_s: float, dispersion: float = 1.0) -> list[float]:
    """Return every signal of demand, in the order of `experts.SIGNALS`."""
    base = rates.mean(15.0)
    found = [base * h for h in HEADROOMS]
    found.append(MARGIN * (base + 2.0 * (cold_start_s + 15.0) * rates.rise(30.0, dispersion) / 30.0))
    ahead = cold_start_s + 30.0
    for period in PERIODS_S:
        seen = rates.peak(period + 30.0, max(0.0, period - ahead))
        found.append(MARGIN * max(base, seen))
    return found


def _shrunk(
    want: int, limit: Limit, message: str, signals: Signals, fleet: Fleet, capacity: Capacity, memory: Memory
) -> tuple[int, Limit, str]:
    """Return the size after a removal: never on part of the picture, never fewer than carry the load by themselves.

    Part of the picture is also a past that nobody has seen: counter-example: right after a restart in the middle of a
    burst no rate rises yet, and what is asked for because of the rise would be cancelled. Where there is no past at
    all, what stands was asked for by somebody who may know one: it is held as if it had been needed until now.
    Where not even the present size has that margin, nothing is removed; it is no reason to add either.
    """
    silent = signals.ready - signals.heard - signals.missed
    if SILENT_PART * silent >= max(1, signals.ready):
        return fleet.asked, Limit.SILENT_REPLICAS, f"{silent} of {signals.ready} replicas are silent"
    if signals.missed and MISSED_PART * signals.missed >= signals.ready:
        text = f"{signals.missed} of {signals.ready} replicas did not answer the last time"
        return fleet.asked, Limit.HOLD, f"the size is held: {text}"
    if memory.rates.seen_s < LOOK_BACK_S:
        return (
            fleet.asked,
            Limit.NO_METRICS,
            f"the size is held: demand was not measured for some of the last {LOOK_BACK_S:.0f} s",
        )
    if not isinstance(signals.queued, Fresh | NoTraffic):
        return fleet.asked, Limit.NO_METRICS, "the size is held: what waits was not measured"
    survivors = math.ceil(memory.rates.mean(15.0) / capacity.shrink_rate)
    stood = min(memory.stood if memory.rates.known_s < DEFAULT_HOLD_S else 0, fleet.asked)
    if want < stood and survivors <= stood:
        text = f"demand has been measured for {memory.rates.known_s:.0f} s, of {DEFAULT_HOLD_S:.0f} s before"
        return stood, Limit.HOLD, f"the size is held: {text} fewer than at first sight are enough"
    if want < survivors:
        return min(survivors, fleet.asked), Limit.SURVIVORS, f"{want} would not keep the target"
    return want, limit, message


_UNKNOWN = "which GPUs are free is not known, as nodes may not be read"


def _bounded(
    size: int, limit: Limit, message: str, fleet: Fleet, scaling: Scaling, inputs: tuple[Input, ...]
) -> Decision:
    """Return the decision for `size`, as far as there are GPUs and the spec allows.

    Where nodes cannot be read, the scheduler alone knows of GPUs: replicas are asked for until one of them waits. A
    pending pod takes nothing from anybody; more of them would tell nothing either.
    """
    if size > fleet.asked and isinstance(fleet.free, NoSignal):
        if fleet.waiting:
            text = f"{size} wanted, but for {fleet.waiting} of {fleet.asked} there is no node yet, and {_UNKNOWN}"
            size, limit, message = fleet.asked, Limit.FREE_GPUS, f"{message}; {text}"
        else:
            message = f"{message}; {_UNKNOWN}, the scheduler decides"
    elif isinstance(fleet.free, int) and size > (room := fleet.asked + max(0, fleet.free)):
        size, limit, message = room, Limit.FREE_GPUS, f"{message}; {size} wanted, GPUs for {room}"
    if size < scaling.least:
        size, limit, message = scaling.least, Limit.MIN_REPLICAS, f"{message}; {size} wanted"
    if size > scaling.most:
        size, limit, message = scaling.most, Limit.MAX_REPLICAS, f"{message}; {size} wanted"
    return Decision(size, limit, message, inputs)


def _value(measurement: Measurement) -> float | None:
    return measurement.value if isinstance(measurement, Fresh) and math.isfinite(measurement.value) else None


def _inputs(signals: Signals, fleet: Fleet, capacity: Capacity | NoSignal) -> tuple[Input, ...]:
    rows = [
        _input("demand", signals.demand),
        _input("queued", signals.queued),
        _input("latency", signals.latency_s),
        Input("ready replicas", float(fleet.ready), "Fresh", 0.0),
        Input("heard replicas", float(signals.heard), "Fresh", 0.0),
        Input("cold start", fleet.cold_start_s, "Fresh", 0.0),
    ]
    if isinstance(capacity, Capacity):
        rows.append(Input("capacity of a replica", capacity.rate, "Fresh", signals.capacity_age_s))
    else:
        rows.append(Input("capacity of a replica", None, "NoMetrics"))
    if isinstance(fleet.free, int):
        rows.append(Input("replicas with a free GPU", float(fleet.free), "Fresh", 0.0))
    elif fleet.free is not None:
        rows.append(Input("replicas with a free GPU", None, "NoMetrics"))
    return tuple(rows)


def _input(name: str, measurement: Measurement) -> Input:
    match measurement:
        case Fresh(value=value, age_s=age) | Stale(value=value, age_s=age):
            return Input(name, value, type(measurement).__name__, age)
        case NoTraffic(age_s=age):
            return Input(name, None, "NoTraffic", age)
        case NoMetrics():
            return Input(name, None, "NoMetrics")
