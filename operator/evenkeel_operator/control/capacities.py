"""How much does one replica carry, without computing it twice? In a thread, one at a time, remembered.

A capacity takes tenths of a second: it is a simulation. Batch times that differ by less than a few per cent have the
same, and only the proportion of batch times and target matters: a device twice as fast, held to half the target,
carries twice as much.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict

from evenkeel_operator.decide.capacity import Capacity, Roofline, capacity
from evenkeel_operator.decide.requests import SINGLE, RequestRows

KEPT = 2048
STEP = 1.03
"""Proportions are rounded to powers of this: to 1.5 % either way."""

_Proportions = tuple[int, int, int, int, float, int, int]


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
        key = (
            _rounded(roofline.floor_s / unit_s),
            _rounded(roofline.row_s / unit_s),
            roofline.max_rows,
            _rounded(target_s / unit_s),
            quantile,
            _rounded(requests.mean),
            _rounded(requests.dispersion),
        )
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = asyncio.ensure_future(
                self._compute(key, roofline.scaled(1 / unit_s), target_s / unit_s, quantile, requests)
            )
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        per_unit = await asyncio.shield(found)
        return Capacity(
            per_unit.rate / unit_s, per_unit.shrink_rate / unit_s, per_unit.max_rate / unit_s, per_unit.is_attainable
        )

    async def _compute(
        self, key: _Proportions, roofline: Roofline, target: float, quantile: float, requests: RequestRows
    ) -> Capacity:
        try:
            async with self._turn:
                return await asyncio.to_thread(capacity, roofline, target, quantile, requests=requests)
        except BaseException:
            self._known.pop(key, None)  # what went wrong once need not go wrong for as long as the process lives
            raise


def _rounded(proportion: float) -> int:
    return round(math.log(max(proportion, 1e-6), STEP))
