"""Which waiting requests share the next call of the model?

Without timers: a batch is what waits when the model is free, so a lone request never waits for company and a crowd
forms its own batches; modes.py says when the model is free. Rows are counted, not requests. A request is never split
between batches and its rows stay together, so every row of an answer belongs to exactly one request (MLServer#1306
mixed them up). Only requests of the same element types and row shapes share a batch, oldest first within their group;
the group of the oldest waiting request goes first, so that no shape starves.

Pure, standard library only: time is an argument.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Policy:
    """`max_rows` per batch as measured at load (0: requests never share a call); `max_queued_rows` and
    `max_queued_bytes` are the bounds at which newcomers are sent away. Rows alone bound no memory: 16,384 images of
    600 kB are 10 GB."""

    max_rows: int
    max_queued_rows: float
    max_queued_bytes: float = math.inf


@dataclass(slots=True)
class Work:
    """One request as the queue sees it. `kind` is what its rows must have in common with others in a batch; `size` are
    the bytes of its body. The queue's are `waits`, from admission until it is taken out, or cancelled, and `number`, by
    which all that were admitted are in their order."""

    rows: int
    kind: Hashable
    payload: Any = None
    deadline: float | None = None
    size: int = 0
    admitted: float = 0.0
    cancelled: bool = False
    waits: bool = False
    number: int = 0


@dataclass(slots=True)
class Batch:
    """`works` run together, in order; `expired` were dropped on the way because their deadline has passed."""

    works: tuple[Work, ...]
    rows: int
    expired: tuple[Work, ...] = ()

    def slices(self) -> list[tuple[Work, int, int]]:
        """Return for each request which rows of the batch are its own."""
        start = 0
        found = []
        for work in self.works:
            found.append((work, start, start + work.rows))
            start += work.rows
        return found


class Queue:
    """The requests that wait, in groups of a kind. `rows`, `bytes` and `requests` are theirs: what was cancelled stays
    in its group until its turn, and counts no more."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.rows = 0
        self.bytes = 0
        self.requests = 0
        self._groups: dict[Hashable, deque[Work]] = {}
        self._arrivals = 0

    def admit(self, work: Work, now: float) -> bool:
        """Take the request in, or return False where the queue is full. An empty queue takes any request."""
        policy = self.policy
        if self.rows and (
            self.rows + work.rows > policy.max_queued_rows or self.bytes + work.size > policy.max_queued_bytes
        ):
            return False
        work.admitted = now
        work.waits = True
        work.number = self._arrivals = self._arrivals + 1
        group = self._groups.get(work.kind)
        if group is None:
            group = self._groups[work.kind] = deque()
        group.append(work)
        self.rows += work.rows
        self.bytes += work.size
        self.requests += 1
        return True

    def cancel(self, work: Work) -> None:
        """Drop the request, and with its payload the body, before it reaches the model; one that was taken out keeps
        both, for the model may be reading them in another thread, and finishes unheard."""
        work.cancelled = True
        if work.waits:
            work.waits, work.payload = False, None
            self.rows -= work.rows
            self.bytes -= work.size
            self.requests -= 1

    def next_batch(self, now: float) -> Batch | None:
        """Return what to run now, or None where nothing waits. A batch without works has expired ones to report."""
        expired: list[Work] = []
        while self._groups:
            kind = next(iter(self._groups))
            if len(self._groups) > 1:
                kind = min(self._groups, key=lambda name: self._groups[name][0].number)
            works, rows = self._take(kind, now, expired)
            if works:
                return Batch(tuple(works), rows, tuple(expired))
        return Batch((), 0, tuple(expired)) if expired else None

    def _take(self, kind: Hashable, now: float, expired: list[Work]) -> tuple[list[Work], int]:
        group = self._groups[kind]
        works: list[Work] = []
        rows = 0
        requests, late_rows, size = 0, 0, 0  # what stops to wait, counted once a batch: it is every request's cost
        while group:
            work = group[0]
            if work.waits:
                if work.deadline is None or work.deadline > now:
                    if works and rows + work.rows > self.policy.max_rows:
                        break
                    works.append(work)
                    rows += work.rows
                else:
                    expired.append(work)
                    late_rows += work.rows
                work.waits = False
                requests += 1
                size += work.size
            group.popleft()
        self.requests -= requests
        self.rows -= rows + late_rows
        self.bytes -= size
        if not group:
            del self._groups[kind]
        return works, rows


def batch_size_to_use(rows_per_second: dict[int, float], worth: float = 1.1) -> int:
    """Return the batch size at which rows/s stops growing: the last that gained `worth` over the size chosen before it.

    Counter-example to taking the maximum: a convolution on one core measures 1499 rows/s at batch 1, 1510 at 8 and
    1607 at 32: noise, for which every request in a batch of 32 would wait 20 ms. It stays at 1.
    """
    sizes = sorted(rows_per_second)
    chosen = sizes[0]
    for size in sizes[1:]:
        if rows_per_second[size] >= rows_per_second[chosen] * worth:
            chosen = size
    return chosen


def retry_after_s(queued_rows: int, rows_per_second: float) -> int:
    """Return how many whole seconds the queue needs to empty: what a client sent away is told to wait."""
    if rows_per_second <= 0:
        return 1
    return max(1, min(60, -(-queued_rows // max(1, int(rows_per_second)))))
