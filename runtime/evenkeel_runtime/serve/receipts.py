"""Which receipt goes out with an answer, and how many predictions of each class have gone out?

Both on the hot path of a replica that has a key, and absent from it otherwise. Counts are kept per cohort, 15 minutes
of prediction time, and assignment, as running totals: told again, they count once.

What a request has drawn, this replica knows where it has drawn itself; else the request says so that is passed on. A
replica that draws believes no request: anybody may send it that header, and choose what is compared with what.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

from evenkeel_runtime.contract import MIRROR, SPLIT
from evenkeel_runtime.receipts import ID_HEADER, MAX_ROWS, ONWARD_HEADER, Assignment, Issuer
from evenkeel_runtime.serve.ids import Ids
from evenkeel_runtime.serve.prediction import Prediction

if TYPE_CHECKING:
    from evenkeel_runtime.serve.oip import Array

COHORT_S = 900
_ID_HEADER = ID_HEADER.encode()
_ID_BYTES = 128
_TOTAL_BYTES = 24
"""What `[class,count]` takes: a class has five digits at most, and no process counts to more than fifteen."""
_ONWARD, _COPY, _DRAWN = ONWARD_HEADER.encode(), MIRROR.lower().encode(), SPLIT.lower().encode()
_CANARY, _UNASSIGNED = int(Assignment.CANARY), int(Assignment.UNASSIGNED)

Totals = dict[tuple[int, int], dict[int, int]]
"""By cohort (its start, Unix seconds) and assignment, how many rows of each class; numbers are class 0."""


class Receipts:
    """Writes the receipts of one replica, on the event loop."""

    def __init__(self, issuer: Issuer, prediction: Prediction) -> None:
        self.issuer = issuer
        self.prediction = prediction
        self._issuers = [issuer.assigned(assignment) for assignment in Assignment]
        self.ids = Ids()
        self._is_quick = prediction.is_quick
        self._totals: dict[tuple[int, int], list[int]] = {}
        self._told: dict[tuple[int, int], int] = {}
        self._cohort = self._cohort_end = 0
        self._counts: list[list[int]] = []
        self._uncounted = [0] * max(1, prediction.classes)

    def issue(self, arrays: list[Array], headers: dict[bytes, bytes], assignment: int | None = None) -> bytes | None:
        """Return the receipt of an answer, None for one of more rows than a receipt can hold.

        `assignment` is what the request has drawn here, None where this replica does not draw.
        """
        now = time()
        if not self._cohort <= now < self._cohort_end:
            self._turn(int(now) // COHORT_S * COHORT_S)
        onward = headers.get(_ONWARD)
        if assignment is None:
            assignment = _CANARY if onward == _DRAWN else _UNASSIGNED
        counts, issuer = self._counts[assignment] if onward != _COPY else self._uncounted, self._issuers[assignment]
        prediction = self.prediction
        if self._is_quick and (found := prediction.one(arrays)) is not None:
            class_, confidence = found
            counts[class_] += 1
            text = issuer.one(int(now * 1000), class_, confidence)
        elif len(arrays[prediction.output]) > MAX_ROWS:
            return None
        elif prediction.classes:
            classes, confidences = prediction.many(arrays)
            for class_ in classes:
                counts[class_] += 1
            text = issuer.many(int(now * 1000), classes, confidences)
        else:
            numbers = prediction.numbers(arrays)
            counts[0] += len(numbers)
            text = issuer.numbers(int(now * 1000), numbers)
        if _ID_HEADER in headers:
            self._keep(headers[_ID_HEADER], text)
        return text

    def changed(self, size: int) -> tuple[Totals, bool]:
        """Return the totals that have changed since they were last told, and whether these are all.

        The oldest come first, as many as `size` bytes of JSON hold, but one at least where there is one.
        """
        found: Totals = {}
        for place, counts in sorted(self._totals.items()):
            if sum(counts) == self._told.get(place, 0):
                continue
            totals = {class_: count for class_, count in enumerate(counts) if count}
            size -= len(totals) * _TOTAL_BYTES
            if found and size < 0:
                return found, False
            found[place] = totals
        return found, True

    def told(self, totals: Totals) -> None:
        """Take these totals for told; a cohort that is over and told is forgotten."""
        for place, counts in totals.items():
            self._told[place] = sum(counts.values())
        for place in [place for place in self._totals if place[0] != self._cohort]:
            if sum(self._totals[place]) == self._told.get(place, 0):
                del self._totals[place]
                self._told.pop(place, None)

    def _turn(self, cohort: int) -> None:
        self._cohort, self._cohort_end = cohort, cohort + COHORT_S
        classes = max(1, self.prediction.classes)
        self._counts = [self._totals.setdefault((cohort, assignment), [0] * classes) for assignment in Assignment]

    def _keep(self, value: bytes, text: bytes) -> None:
        name = value.decode("latin-1")
        if 0 < len(name) <= _ID_BYTES and name.isascii() and name.isprintable():
            self.ids.add(name, text.decode())
