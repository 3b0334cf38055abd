"""How much does one replica carry, without computing it twice? In a thread, one at a time, remembered.

A capacity takes tenths of a second: it is a simulation. Batch times that differ by less than a few per cent have the
same, and only the proportion of batch times and target matters: a device twice as fast, held to half the target,
carries twice as much.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import NamedTuple

from evenkeel_operator.decide.capacity import Capacity, Roofline, capacity
from evenkeel_operator.decide.carried import Carried
from evenkeel_operator.decide.requests import SINGLE, RequestRows

KEPT = 2048
WAIT_S = 0.5
"""For so long whoever knows no capacity yet waits for one; decisions go on without it meanwhile."""
STEP = 1.03
"""Proportions are rounded to powers of this: to 1.5 % either way."""

_Proportions = tuple[tuple[int, ...], int, int, float, int, int]


class _Question(NamedTuple):
    roofline: Roofline
    target_s: float
    quantile: float
    requests: RequestRows


class Capacities:
    """Computes capacities, and remembers them."""

    def __init__(self) -> None:
        self._known: OrderedDict[_Proportions, asyncio.Future[Capacity]] = OrderedDict()
        self._turn = asyncio.Lock()

    async def of(
        self, roofline: Roofline, target_s: float, quantile: float, requests: RequestRows = SINGLE
    ) -> Capacity:
        """Return what one replica carries with `quantile` of its latencies within `target_s`."""
        unit_s = roofline.seconds(1)
        # By its batches, not by the roofline's own numbers: where one of these is next to nothing, noise is all of it.
        times = tuple(_rounded(roofline.seconds(rows) / unit_s) for rows in _sizes(roofline.max_rows))
        asked = _rounded(requests.mean), _rounded(requests.dispersion)
        key = (times, roofline.max_rows, _rounded(target_s / unit_s), quantile, *asked)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = asyncio.ensure_future(
                self._compute(key, roofline.scaled(1 / unit_s), target_s / unit_s, quantile, requests)
            )
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        per_unit = await asyncio.shield(found)
        return per_unit.scaled(unit_s)

    async def _compute(
        self, key: _Proportions, roofline: Roofline, target: float, quantile: float, requests: RequestRows
    ) -> Capacity:
        try:
            async with self._turn:
                return await asyncio.to_thread(capacity, roofline, target, quantile, requests=requests)
        except BaseException:
            self._known.pop(key, None)  # what went wrong once need not go wrong for as long as the process lives
            raise


class Latest:
    """What one ModelDeployment's replicas carry, as of the last computation; `found` is None before the first.

    One is under way at a time, however often the speed changes meanwhile: of a thousand ModelDeployments that begin
    together, each has its turn, and none has two before another has had one.
    """

    def __init__(self, capacities: Capacities) -> None:
        self.found: Carried | None = None
        self._capacities = capacities
        self._known: _Question | None = None
        self._running: tuple[_Question, asyncio.Task[Capacity]] | None = None

    async def follow(
        self, roofline: Roofline, target_s: float, quantile: float, requests: RequestRows = SINGLE
    ) -> None:
        """Bring `found` up to date, as far as that is known, or takes no longer than WAIT_S; the next call goes on."""
        if self._running is None:
            wanted = _Question(roofline, target_s, quantile, requests)
            if wanted == self._known:
                return
            self._running = wanted, asyncio.create_task(self._capacities.of(*wanted))
        asked, task = self._running
        await asyncio.wait((task,), timeout=WAIT_S if self.found is None else 0.0)
        if task.done():
            self._running = None
            self.found, self._known = Carried(task.result(), asked.target_s, asked.quantile), asked

    def end(self) -> None:
        """Follow no more."""
        if self._running is not None:
            self._running[1].cancel()


def _sizes(max_rows: int) -> list[int]:
    """Return the sizes of batches by whose times devices are told apart: 2, 3, 4, 6, 8, 12, … and the largest."""
    found = [size for power in range(1, max_rows.bit_length()) for size in (2**power, 3 * 2 ** (power - 1))]
    return [*(size for size in found if size < max_rows), max_rows]


def _rounded(proportion: float) -> int:
    return round(math.log(max(proportion, 1e-6), STEP))
