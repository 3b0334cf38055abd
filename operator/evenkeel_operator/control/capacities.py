"""How much does one replica carry, without computing it twice? One at a time, a step between other work, remembered.

A capacity takes hundredths of a second: it is a simulation. Not in a thread: whoever else reads from a socket would
have to wait for the interpreter's lock after each call, 5 ms, and a thousand polls would be late.

Batch times that differ by less than a few per cent have the same, and only the proportion of batch times and target
matters: a device twice as fast, held to half the target, carries twice as much.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import NamedTuple

from evenkeel_operator.decide.capacity import Capacity, Roofline, computing
from evenkeel_operator.decide.carried import Carried
from evenkeel_operator.decide.requests import SINGLE, RequestRows

KEPT = 2048
WAIT_S = 0.5
"""For so long whoever knows no capacity yet waits for one; decisions go on without it meanwhile."""
STEP = 1.03
"""Proportions are rounded to powers of this: to 1.5 % either way."""

_Proportions = tuple[int, int, int, int, int, float, int, int]


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
        device = *_shape(roofline, requests.mean), roofline.max_rows, roofline.engines
        asked = _rounded(requests.mean), _rounded(requests.dispersion)
        key = (*device, _rounded(target_s / unit_s), quantile, *asked)
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
                work = computing(roofline, target, quantile, requests=requests)
                while True:
                    await asyncio.sleep(0)
                    next(work)
        except StopIteration as done:
            found: Capacity = done.value
            return found
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


def _shape(roofline: Roofline, rows: float) -> tuple[int, int]:
    """Return what tells two devices apart whose batches of one row take as long: the full batch, and the knee.

    Where a request has more `rows` than a batch may have, it is a batch by itself, and that is the full one.

    Two numbers, not one for each size of a batch: these would be rounded at a place of their own each, so that hardly
    two of a thousand ModelDeployments had a capacity in common. And not the roofline's own: where one of these is next
    to nothing, noise is all of it.
    """
    most = max(roofline.max_rows, rows)
    full = _rounded(roofline.seconds(most) / roofline.seconds(1))
    beyond = roofline.floor_s - roofline.fixed_s
    if full == 0 or beyond <= roofline.row_s:
        return full, 0
    return full, _rounded(min(beyond / roofline.row_s, most))


def _rounded(proportion: float) -> int:
    return round(math.log(max(proportion, 1e-6), STEP))
