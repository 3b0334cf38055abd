"""What do the labels and pairs of one transaction change in the counts?

Counts are only ever added to, by numbers without a fraction, so that what is taken off again leaves nothing behind, and
the order in which transactions commit does not matter. An error is therefore no float: added to a float, one of 9e15
makes those of 1 and 2 disappear, and they do not come back when it is corrected. It counts in the sums of the errors of
its own power of two: e = m 2^exponent with 0.5 <= m < 1, and m and m^2 in units of 2^-BITS. One of 0 has an exponent
that no other has, ZERO: among those from 0.5 to below 1 nobody could tell whether a prediction is right or off by 0.5.
"""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evenkeel_operator.decide.quality.deviations import ZERO
from evenkeel_operator.feedback.records import MOST, Answer, Errors, Label, Outcome

Key = tuple[int, bytes, int]
"""A prediction: series, nonce, row."""
PairKey = tuple[int, int, bytes, int]
"""Where its pair is: series, cohort, nonce, row."""
Both = tuple[str, int, int]
"""What a pair says: the canary's revision, the class by stable, the class by the canary."""

UNKNOWN = -1
"""The actual class in the cell of pairs without a label: a NULL would not be one key."""
BITS = 32
"""Of an error's m that count: a relative precision of 1e-10, and 2^31 labels in the 63 bits of a sum."""
_MOST_EXPONENT = MOST.bit_length()
"""Of the difference of two numbers below MOST, either way."""

_ADD_JUDGED = """
INSERT INTO predicted VALUES (?, ?, ?, 0, ?, ?)
ON CONFLICT (series, cohort, class) DO UPDATE SET labels = predicted.labels + excluded.labels,
    hits = predicted.hits + excluded.hits
"""
_ADD_CELL = """
INSERT INTO cell VALUES (?, ?, ?, ?, ?)
ON CONFLICT (series, cohort, predicted, actual) DO UPDATE SET count = cell.count + excluded.count
"""
_ADD_DEVIATION = """
INSERT INTO deviation VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (series, cohort, exponent) DO UPDATE SET count = deviation.count + excluded.count,
    absolute = deviation.absolute + excluded.absolute, squared = deviation.squared + excluded.squared
"""
_ADD_PAIR_CELL = """
INSERT INTO pair_cell VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (series, cohort, canary_revision, stable, canary, actual)
DO UPDATE SET count = pair_cell.count + excluded.count
"""
_PUT_VERSION = """
INSERT INTO cohort_version VALUES (?, ?, ?)
ON CONFLICT (series, cohort) DO UPDATE SET version = excluded.version
"""


@dataclass(frozen=True, slots=True)
class Truth:
    """A label as a transaction leaves it, and what the store said before: None where there was no label."""

    label: Label
    before: float | None


def settled(
    keys: Sequence[Key], labels: Sequence[Label], said: Mapping[Key, float]
) -> tuple[list[Answer], dict[Key, Truth]]:
    """Return the answer to each label, and the truths that are new; `said` is what the store says of their keys."""
    known = dict(said)
    answers: list[Answer] = []
    truths: dict[Key, Truth] = {}
    for key, label in zip(keys, labels, strict=True):
        answers.append(answer := _answered(known.get(key), label))
        if answer.outcome == Outcome.ACCEPTED:
            known[key] = label.actual
            truths[key] = Truth(label, said.get(key))
    return answers, truths


def _answered(before: float | None, label: Label) -> Answer:
    """Return what becomes of a label where `before` is known of its prediction.

    A label that says otherwise counts only when it says that it corrects: posts are sent again when their answer was
    lost, and an old one that arrives again must not undo the correction.
    """
    if before is None:
        return Answer(Outcome.ACCEPTED)
    if before == label.actual:
        return Answer(Outcome.DUPLICATE)
    if label.corrects:
        return Answer(Outcome.ACCEPTED, "Corrected")
    return Answer(
        Outcome.DUPLICATE,
        "AlreadyLabelled",
        'the prediction has another label; to replace it, send "corrects": true along with the label',
    )


class Changes:
    """What is to be added to the counts."""

    def __init__(self) -> None:
        self._cells: Counter[tuple[int, int, int, int]] = Counter()
        self._deviations: dict[tuple[int, int, int], tuple[int, int, int]] = {}
        self._pair_cells: Counter[tuple[int, int, str, int, int, int]] = Counter()
        self._cohorts: set[tuple[int, int]] = set()

    def told(self, series: int, cohort: int) -> None:
        """Note that predictions of a cohort were told."""
        self._cohorts.add((series, cohort))

    def judged(self, series: int, truth: Truth) -> None:
        """Count a truth about a prediction, instead of the one before it."""
        if truth.before is not None:
            self._count(series, truth.label, truth.before, -1)
        self._count(series, truth.label, truth.label.actual, 1)

    def paired(self, key: PairKey, both: Both, actual: float | None) -> None:
        """Count a pair that is new; `actual` is None where it has no label."""
        self._pair_cells[(*key[:2], *both, _class(actual))] += 1

    def repaired(self, key: PairKey, both: Both, truth: Truth) -> None:
        """Count a truth about a pair that was counted before."""
        self._pair_cells[(*key[:2], *both, _class(truth.before))] -= 1
        self._pair_cells[(*key[:2], *both, _class(truth.label.actual))] += 1

    def write(self, run_many: Callable[[str, Sequence[Sequence[Any]]], None]) -> None:
        """Add everything, by its keys, and give the cohorts of it a new version. Raises what `run_many` raises.

        A version is a random number, for one that is counted on begins anew where its row was deleted.
        """
        cells = [(*cell, count) for cell, count in self._cells.items() if count]
        deviations = [(*place, *sums) for place, sums in self._deviations.items() if any(sums)]
        pair_cells = [(*cell, count) for cell, count in self._pair_cells.items() if count]
        judged: dict[tuple[int, int, int], tuple[int, int]] = {}
        for series, cohort, predicted, actual, count in cells:
            labels, hits = judged.get(place := (series, cohort, predicted), (0, 0))
            judged[place] = labels + count, hits + (count if predicted == actual else 0)
        cohorts = self._cohorts.union(row[:2] for rows in (cells, deviations, pair_cells) for row in rows)
        version = secrets.randbits(63)
        for statement, rows in (
            (_ADD_JUDGED, [(*place, *sums) for place, sums in judged.items() if any(sums)]),
            (_ADD_CELL, cells),
            (_ADD_DEVIATION, deviations),
            (_ADD_PAIR_CELL, pair_cells),
            (_PUT_VERSION, [(*cohort, version) for cohort in cohorts]),
        ):
            if rows:
                run_many(statement, sorted(rows))

    def _count(self, series: int, label: Label, actual: float, sign: int) -> None:
        if label.source.classes:
            self._cells[series, label.cohort, int(label.predicted), int(actual)] += sign
            return
        share, exponent = math.frexp(abs(label.predicted - actual))
        exponent = exponent if share else ZERO
        count, absolute, squared = self._deviations.get(place := (series, label.cohort, exponent), (0, 0, 0))
        self._deviations[place] = (
            count + sign,
            absolute + sign * round(math.ldexp(share, BITS)),
            squared + sign * round(math.ldexp(share * share, BITS)),
        )


def errors(rows: Iterable[tuple[int, int, int, int]]) -> Errors | None:
    """Return the sums of rows of exponent, count, absolute and squared; None where no label is among them.

    Without errors that no two numbers below MOST have: an earlier release took labels as large as 1e300, whose square
    is no number any more. They wait to be corrected.
    """
    held = deviations(rows)
    if not held:
        return None
    return Errors(
        sum(count for _, count, _, _ in held),
        math.fsum(absolute for _, _, absolute, _ in held),
        math.fsum(squared for _, _, _, squared in held),
    )


def deviations(rows: Iterable[tuple[int, int, int, int]]) -> list[tuple[int, int, float, float]]:
    """Return of each exponent k the errors from 2^(k-1) to below 2^k: count, sums of absolute and of squared errors.

    Those that are 0 have the exponent ZERO; of rows and errors as in `errors`.
    """
    held = {exponent: sums for exponent, *sums in rows if exponent <= _MOST_EXPONENT}
    # An earlier release kept those of 0 under the exponent 0. One that was corrected since is there still, and taken
    # off under ZERO.
    if (zeros := held.get(ZERO)) is not None and zeros[0] < 0:
        of_both = held.get(0, [0, 0, 0])
        held[0], held[ZERO] = [zeros[0] + of_both[0], *of_both[1:]], [0, 0, 0]
    return [
        (exponent, count, math.ldexp(absolute, exponent - BITS), math.ldexp(squared, 2 * exponent - BITS))
        for exponent, (count, absolute, squared) in held.items()
        if count
    ]


def _class(actual: float | None) -> int:
    return UNKNOWN if actual is None else int(actual)
