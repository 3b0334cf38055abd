"""What goes into the store and what comes out of it?"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

COHORT_S = 900
"""A cohort is the predictions of 15 minutes, counted from the Unix epoch."""
MOST = 1 << 53
"""Numbers that are predicted or true are smaller, either way: larger ones are no measurements, and typing errors."""

Row = tuple[Any, ...]
Ask = Callable[[str, Sequence[Any]], list[Row]]
"""Runs one statement; returns its rows. Raises Unavailable."""


def cohort_of(time_ms: int) -> int:
    """Return the start of the cohort that a moment is in, Unix seconds."""
    return time_ms // 1000 // COHORT_S * COHORT_S


class Outcome(enum.StrEnum):
    """What became of one item of a post."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    EXPIRED = "expired"
    FORGED = "forged"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one item. `reason` is a word for machines, `message` says what to do; both may be empty."""

    outcome: Outcome
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """Whose predictions: one revision of one ModelDeployment, of requests of one assignment (`receipts.Assignment`).

    `classes` is 0 for numbers.
    """

    subject: bytes
    revision: str
    assignment: int
    classes: int


@dataclass(frozen=True, slots=True)
class Label:
    """The truth about one row: classes by their index, numbers as they are. `confidence` counts 1/65535."""

    source: Source
    nonce: bytes
    row: int
    time_ms: int
    predicted: float
    confidence: int
    actual: float
    corrects: bool = False

    @property
    def cohort(self) -> int:
        """The start of its cohort, Unix seconds."""
        return cohort_of(self.time_ms)


@dataclass(frozen=True, slots=True)
class Pair:
    """What stable and canary predicted for the same row of the same request, which carries stable's receipt."""

    nonce: bytes
    row: int
    cohort: int
    stable: int
    canary_revision: str
    canary: int


@dataclass(frozen=True, slots=True)
class Told:
    """What a replica tells: totals of predictions by (assignment, cohort, class), users' own ids, mirrored pairs.

    `process` names the replica's process. A total replaces a smaller one of the same process and place. The pairs are
    `source`'s.
    """

    source: Source
    process: bytes
    names: tuple[str, ...]
    totals: Mapping[tuple[int, int, int], int]
    ids: tuple[tuple[str, str], ...] = ()
    pairs: tuple[Pair, ...] = ()

    @property
    def sources(self) -> set[Source]:
        """All that it tells something of."""
        return {self.source, *(replace(self.source, assignment=assignment) for assignment, _, _ in self.totals)}


@dataclass(frozen=True, slots=True)
class Errors:
    """Labelled numbers of a cohort: how many, and the sums of their absolute and squared errors."""

    count: int
    absolute: float
    squared: float


@dataclass(frozen=True, slots=True)
class Totals:
    """The counts of one revision since a moment, of all cohorts and assignments together.

    `confusion` is by (predicted, actual); `predicted` by class: how many predictions, how many of them have a label.
    """

    revision: str
    classes: int
    names: tuple[str, ...]
    predictions: int
    confusion: Mapping[tuple[int, int], int]
    errors: Errors | None
    predicted: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def labels(self) -> int:
        """How many predictions have a label."""
        return sum(self.confusion.values()) + (0 if self.errors is None else self.errors.count)


@dataclass(frozen=True, slots=True)
class Series:
    """The counts of one source since a moment.

    `classes` is by predicted class: how many predictions, how many of them have a label, how many of these are right.
    `errors` is of all cohorts together. `cohorts` is by start the JSON text of one, as it is told.
    """

    source: Source
    names: tuple[str, ...]
    classes: Mapping[int, tuple[int, int, int]]
    errors: Errors | None
    cohorts: Mapping[int, str]
