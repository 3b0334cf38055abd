"""Which classes did the stable replica and the canary predict for the same row?

Both have said so in the receipts of their answers, so neither answer has to be understood. The pair is told to the
feedback service under the nonce of the stable replica's receipt, which is the one that a user has: a label that comes
later finds both, and judges both on the same row.
"""

from __future__ import annotations

from collections import deque

from evenkeel_runtime.receipts import HEADER, BadReceipt, Receipt, opened
from evenkeel_runtime.serve.receipts import COHORT_S

KEPT = 20_000
"""Pairs that wait to be told; beyond that the oldest are dropped and counted."""

Pair = tuple[str, int, int, int, str, int]
"""Nonce in hex, row, cohort (its start, Unix seconds), class by stable, the canary's revision, class by the canary."""

_LINE = f"\r\n{HEADER}: ".encode()


class Pairs:
    """The pairs that are not told yet."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._kept: deque[Pair] = deque(maxlen=KEPT)
        self.dropped = 0

    def add(self, stable: bytes, canary: bytes) -> int:
        """Keep the pairs of two answers, by their heads, and return how many there are: none where they say no classes,
        or classes that cannot be compared."""
        one, other = self._receipt(stable), self._receipt(canary)
        if one is None or other is None or one.rows != other.rows:
            return 0
        if not one.origin.classes or one.origin.classes != other.origin.classes:
            return 0
        nonce, revision = one.nonce.hex(), other.origin.revision
        cohort = one.time_ms // 1000 // COHORT_S * COHORT_S
        for row in range(one.rows):
            self.dropped += len(self._kept) == KEPT
            self._kept.append((nonce, row, cohort, one.predicted(row)[0], revision, other.predicted(row)[0]))
        return one.rows

    def first(self, count: int) -> list[Pair]:
        """Return the oldest."""
        return [self._kept[index] for index in range(min(count, len(self._kept)))]

    def told(self, pairs: list[Pair]) -> None:
        """Forget pairs that `first` has returned, if they were not dropped meanwhile."""
        known = set(pairs)
        while self._kept and self._kept[0] in known:
            self._kept.popleft()

    def refused(self, pairs: list[Pair]) -> None:
        """Give up pairs that `first` has returned."""
        before = len(self._kept)
        self.told(pairs)
        self.dropped += before - len(self._kept)

    def _receipt(self, answer: bytes) -> Receipt | None:
        """Return the receipt in an answer's head; None where it has none, or it stands in the body for its length."""
        end = answer.find(b"\r\n\r\n")
        start = answer.find(_LINE, 0, len(answer) if end < 0 else end)
        if start < 0:
            return None
        start += len(_LINE)
        text = answer[start : answer.index(b"\r\n", start)].decode("latin-1")
        try:
            return opened(text, lambda key_id, subject: self._key)
        except BadReceipt:
            return None
