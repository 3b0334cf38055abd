"""Which receipt goes out with an answer, and how many predictions of each class have gone out?

Both on the hot path of a replica that has a key, and absent from it otherwise. Counts are kept per cohort, 15 minutes
of prediction time, as running totals: told again, they count once.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

from evenkeel_runtime.contract import MIRROR
from evenkeel_runtime.receipts import ID_HEADER, MAX_ROWS, ONWARD_HEADER, Issuer
from evenkeel_runtime.serve.ids import Ids
from evenkeel_runtime.serve.prediction import Prediction

if TYPE_CHECKING:
    from evenkeel_runtime.serve.oip import Array

COHORT_S = 900
_ID_HEADER = ID_HEADER.encode()
_ID_BYTES = 128
_TOTAL_BYTES = 24
"""What `[class,count]` takes: a class has five digits at most, and no process counts to more than fifteen."""
_ONWARD, _COPY = ONWARD_HEADER.encode(), MIRROR.lower().encode()

Totals = dict[int, dict[int, int]]
"""By cohort (its start, Unix seconds), how many rows of each class were predicted; numbers are class 0."""


class Receipts:
    """Writes the receipts of one replica, on the event loop."""

    def __init__(self, issuer: Issuer, prediction: Prediction) -> None:
        self.issuer = issuer
        self.prediction = prediction
        self.ids = Ids()
        self._is_quick = prediction.is_quick
        self._totals: dict[int, list[int]] = {}
        self._told: dict[int, int] = {}
        self._cohort = self._cohort_end = 0
        self._counts: list[int] = []
        self._uncounted = [0] * max(1, prediction.classes)

    def issue(self, arrays: list[Array], headers: dict[bytes, bytes]) -> bytes | None:
        """Return the receipt of an answer, None for one of more rows than a receipt can hold."""
        now = time()
        if not self._cohort <= now < self._cohort_end:
            self._turn(int(now) // COHORT_S * COHORT_S)
        counts = self._counts if headers.get(_ONWARD) != _COPY else self._uncounted
        prediction = self.prediction
        if self._is_quick and (found := prediction.one(arrays)) is not None:
            class_, confidence = found
            counts[class_] += 1
            text = self.issuer.one(int(now * 1000), class_, confidence)
        elif len(arrays[prediction.output]) > MAX_ROWS:
            return None
        elif prediction.classes:
            classes, confidences = prediction.many(arrays)
            for class_ in classes:
                counts[class_] += 1
            text = self.issuer.many(int(now * 1000), classes, confidences)
        else:
            numbers = prediction.numbers(arrays)
            counts[0] += len(numbers)
            text = self.issuer.numbers(int(now * 1000), numbers)
        if _ID_HEADER in headers:
            self._keep(headers[_ID_HEADER], text)
        return text

    def changed(self, size: int) -> tuple[Totals, bool]:
        """Return the totals of the cohorts that have changed since they were last told, and whether these are all.

        The oldest come first, as many as `size` bytes of JSON hold, but one at least where there is one.
        """
        found: Totals = {}
        for cohort, counts in sorted(self._totals.items()):
            if sum(counts) == self._told.get(cohort, 0):
                continue
            totals = {class_: count for class_, count in enumerate(counts) if count}
            size -= len(totals) * _TOTAL_BYTES
            if found and size < 0:
                return found, False
            found[cohort] = totals
        return found, True

    def told(self, totals: Totals) -> None:
        """Take these totals for told; a cohort that is over and told is forgotten."""
        for cohort, counts in totals.items():
            self._told[cohort] = sum(counts.values())
        for cohort in [cohort for cohort in self._totals if cohort != self._cohort]:
            if sum(self._totals[cohort]) == self._told.get(cohort, 0):
                del self._totals[cohort]
                self._told.pop(cohort, None)

    def _turn(self, cohort: int) -> None:
        self._cohort, self._cohort_end = cohort, cohort + COHORT_S
        self._counts = self._totals.setdefault(cohort, [0] * max(1, self.prediction.classes))

    def _keep(self, value: bytes, text: bytes) -> None:
        name = value.decode("latin-1")
        if 0 < len(name) <= _ID_BYTES and name.isascii() and name.isprintable():
            self.ids.add(name, text.decode())
