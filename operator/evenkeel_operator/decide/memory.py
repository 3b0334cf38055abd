"""What does the law remember from one time to the next, and what of it outlives the process?

In the process: a day of rates and the losses of all experts. Kept in a ConfigMap: the day in steps of five minutes,
and of each level the expert it follows, for how long it has been wanted, and the experts that come close, in 4 KiB.
What is lost is learnt again within hours; until then the kept choice stands.
"""

from __future__ import annotations

import binascii
import json
from dataclasses import dataclass, field

from evenkeel_operator.decide.experts import Experts
from evenkeel_operator.decide.window import Rates

LIMIT_BYTES = 4096
_VERSION = 1


@dataclass(slots=True)
class Memory:
    """Created empty. `seen_at` is the `now` of the last decision, None before the first."""

    rates: Rates = field(default_factory=Rates)
    experts: Experts = field(default_factory=lambda: Experts(0))
    seen_at: float | None = None

    def to_json(self) -> str:
        """Return what is worth keeping, in LIMIT_BYTES at most."""
        for kept in (8, 4, 2, 1):
            text = json.dumps(
                {
                    "version": _VERSION,
                    "seenAt": self.seen_at,
                    "rates": self.rates.to_text(),
                    "levels": self.experts.to_rows(self.rates.clock, kept),
                },
                separators=(",", ":"),
            )
            if len(text) <= LIMIT_BYTES:
                break
        return text

    @classmethod
    def from_json(cls, text: str) -> Memory:
        """Return what `to_json` wrote. Raises ValueError for anything else: the caller starts with an empty Memory."""
        try:
            data = json.loads(text)
            if data["version"] != _VERSION:
                raise ValueError(f"version {data['version']} of the scaling memory is not known here")
            rates = Rates.from_text(data["rates"])
            seen_at = None if data["seenAt"] is None else float(data["seenAt"])
            return cls(rates, Experts.from_rows(data["levels"], rates.clock), seen_at)
        except (KeyError, TypeError, IndexError, OverflowError, RecursionError, binascii.Error) as e:
            raise ValueError(f"the scaling memory cannot be read: {e!r}") from e
