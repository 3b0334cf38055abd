"""What does the law remember from one time to the next, and what of it outlives the process?

In the process: a day of rates and the losses of all experts. Kept in a ConfigMap: the day in steps of five minutes,
and of each level the expert it follows, for how long it has been wanted, and the losses of all, in 4 KiB. A choice
rests on the losses of all levels, so that none of them may be left out: they are rounded instead, in logarithmic steps
as small as there is room for. Counter-example: with the best eight of each level alone, one that its neighbours did
not name looked good, and half the levels chose anew right after every restart.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from evenkeel_operator.decide.experts import COUNT, Experts, Kept
from evenkeel_operator.decide.window import Rates

LIMIT_BYTES = 4096
_VERSION = 2
_DAY_S = 86400.0

_STEPS = (0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 3.0, 10.0, 30.0)
"""Of the logarithms of losses; with the last there is nothing left of them."""
_UNIT_S = 10.0
"""Smaller losses are told apart by this, not by their logarithm."""
_MOST_S = 1e12


@dataclass(slots=True)
class Memory:
    """Created empty. `seen_at` is the `now` of the last decision, None before the first.

    `stood` is the size when demand was measured for the first time.
    """

    rates: Rates = field(default_factory=Rates)
    experts: Experts = field(default_factory=lambda: Experts(0))
    seen_at: float | None = None
    stood: int = 0

    def to_json(self, limit_bytes: int = LIMIT_BYTES) -> str:
        """Return what is worth keeping, in `limit_bytes` at most where these are a quarter of LIMIT_BYTES or more."""
        levels, rates = self.experts.kept(self.rates.clock), self.rates.to_text()
        known_s = round(min(self.rates.known_s, _DAY_S))
        for step in _STEPS:
            text = json.dumps(
                {
                    "version": _VERSION,
                    "seenAt": self.seen_at,
                    "rates": rates,
                    "knownFor": known_s,
                    "stood": self.stood,
                    "levels": [[level.ago, level.chosen] for level in levels],
                    "step": step,
                    "losses": _to_text([loss for level in levels for loss in level.losses], step),
                },
                separators=(",", ":"),
            )
            if len(text) <= limit_bytes:
                break
        return text

    @classmethod
    def from_json(cls, text: str) -> Memory:
        """Return what `to_json` wrote. Raises ValueError for anything else: the caller starts with an empty Memory."""
        try:
            data = json.loads(text)
            if data["version"] != _VERSION:
                raise ValueError(f"version {data['version']} of the scaling memory is not known here")
            rates = Rates.from_text(data["rates"], float(data.get("knownFor", _DAY_S)))
            seen_at = None if data["seenAt"] is None else float(data["seenAt"])
            experts = Experts.of(_levels(data["levels"], data["losses"], data["step"]), rates.clock)
            return cls(rates, experts, seen_at, int(data.get("stood", 0)))
        except (KeyError, TypeError, IndexError, OverflowError, RecursionError, binascii.Error, zlib.error) as e:
            raise ValueError(f"the scaling memory cannot be read: {e!r}") from e


def _levels(rows: Sequence[Sequence[Any]], text: str, step: float) -> list[Kept]:
    losses = _from_text(text, step, len(rows) * COUNT)
    begins = range(0, len(losses), COUNT)
    return [Kept(float(ago), chosen, losses[i : i + COUNT]) for i, (ago, chosen) in zip(begins, rows, strict=True)]


def _to_text(losses: Sequence[float], step: float) -> str:
    """Return the logarithms of `losses` (seconds) in multiples of `step`, compressed: all low bytes, then all high."""
    found = [round(math.log1p(min(max(loss, 0.0), _MOST_S) / _UNIT_S) / step) for loss in losses]
    data = bytes(value & 0xFF for value in found) + bytes(value >> 8 for value in found)
    return base64.b64encode(zlib.compress(data, 9)).decode()


def _from_text(text: str, step: float, count: int) -> list[float]:
    """Return `count` losses, of what `_to_text` wrote. Raises ValueError, zlib.error or OverflowError otherwise."""
    size = 2 * count
    data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size + 1)
    if len(data) != size:
        raise ValueError(f"losses of {count} experts have {size} bytes, not {len(data)}")
    losses = [
        _UNIT_S * math.expm1((low + 256 * high) * step) for low, high in zip(data[:count], data[count:], strict=True)
    ]
    if not all(0.0 <= loss <= 2.0 * _MOST_S for loss in losses):
        raise ValueError("a loss is not between nothing and what a day could cost")
    return losses
