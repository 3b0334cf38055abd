"""What does an answer say of each cohort? A JSON text, made once for each version of the cohort.

A week of ten classes has 67,000 cells, few of which have changed since somebody last asked. A version is read in the
same snapshot as what the text is made of, so that it makes no difference which replica has written, or is asked.
"""

from __future__ import annotations

import dataclasses
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from evenkeel_operator.feedback.counts import UNKNOWN, deviations, errors
from evenkeel_operator.feedback.records import Ask

MOST = 64 << 20
"""Characters that are kept: a week of about a hundred revisions of ten classes."""
_AT_ONCE = 2000
"""How many cohorts one statement names: a database takes so many values, and no more."""

AsJson = Callable[[str], str]
"""Makes of columns, which are numbers, the aggregate that is the JSON text of their rows."""

_VERSIONS = "SELECT cohort, version FROM cohort_version WHERE series = ? AND cohort >= ? ORDER BY cohort"
_PLACE = "WHERE series = ? AND cohort IN ({cohorts})"
_PREDICTIONS = f"SELECT cohort, {{json}} FROM predicted {_PLACE} AND count > 0 GROUP BY cohort"
_CONFUSION = f"SELECT cohort, {{json}} FROM cell {_PLACE} AND count <> 0 GROUP BY cohort"
_PAIRS = f"""
SELECT cohort, canary_revision, {{json}} FROM pair_cell {_PLACE} AND count <> 0 AND actual {{condition}}
GROUP BY cohort, canary_revision ORDER BY cohort, canary_revision
"""
_ERRORS = f"SELECT cohort, exponent, count, absolute, squared FROM deviation {_PLACE} ORDER BY cohort, exponent"


class Texts:
    """The texts of cohorts at their versions. Those that nobody has asked for longest go where there is no room."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._size = 0
        self._kept: OrderedDict[tuple[int, int], tuple[int, str]] = OrderedDict()

    def find(self, series: int, cohort: int, version: int) -> str | None:
        """Return the text of this version; None where it is not kept."""
        known, text = self._kept.get((series, cohort), (None, ""))
        if known != version:
            return None
        self._kept.move_to_end((series, cohort))
        return text

    def keep(self, series: int, cohort: int, version: int, text: str) -> None:
        """Keep the text in the place of the version before."""
        _, before = self._kept.pop((series, cohort), (0, ""))
        self._kept[series, cohort] = version, text
        self._size += len(text) - len(before)
        while self._size > self._most:
            _, (_, gone) = self._kept.popitem(last=False)
            self._size -= len(gone)


def told(ask: Ask, as_json: AsJson, kept: Texts, series: int, since_s: int) -> dict[int, str]:
    """Return by its start the text of each cohort since that moment, in their order; what has no counts has none.

    Within a transaction that sees one moment. `kept` has everything of it that there is room for afterwards.
    """
    versions: dict[int, int] = dict(ask(_VERSIONS, (series, since_s)))
    found = {cohort: kept.find(series, cohort, version) for cohort, version in versions.items()}
    changed = [cohort for cohort, text in found.items() if text is None]
    for cohort, text in _made(ask, as_json, series, changed):
        found[cohort] = text
        kept.keep(series, cohort, versions[cohort], text)
    return {cohort: text for cohort, text in found.items() if text}


def _made(ask: Ask, as_json: AsJson, series: int, cohorts: Sequence[int]) -> Iterator[tuple[int, str]]:
    for start in range(0, len(cohorts), _AT_ONCE):
        some = cohorts[start : start + _AT_ONCE]
        members: dict[int, list[str]] = {cohort: [] for cohort in some}
        for name, cohort, text in _members(ask, as_json, series, some):
            members[cohort].append(f'"{name}": {text}')
        for cohort, texts in members.items():
            yield cohort, f'{{"start": {cohort}, {", ".join(texts)}}}' if texts else ""


def _members(ask: Ask, as_json: AsJson, series: int, cohorts: Sequence[int]) -> Iterator[tuple[str, int, str]]:
    """Yield the name of a member, its cohort and its text."""
    place, marks = (series, *cohorts), ", ".join("?" * len(cohorts))
    for cohort, text in ask(_PREDICTIONS.format(json=as_json("class, count"), cohorts=marks), place):
        yield "predictions", cohort, text
    for cohort, rows in groupby(ask(_ERRORS.format(cohorts=marks), place), lambda row: int(row[0])):
        held = [row[1:] for row in rows]
        if (sums := errors(held)) is not None:
            yield "errors", cohort, json.dumps(dataclasses.asdict(sums))
            yield "deviations", cohort, json.dumps(deviations(held))
    for cohort, text in ask(_CONFUSION.format(json=as_json("predicted, actual, count"), cohorts=marks), place):
        yield "confusion", cohort, text
    for name, columns, condition in (
        ("pairs", "stable, canary, actual, count", f"<> {UNKNOWN}"),
        ("unlabelledPairs", "stable, canary, count", f"= {UNKNOWN}"),
    ):
        asked = ask(_PAIRS.format(json=as_json(columns), cohorts=marks, condition=condition), place)
        for cohort, of_cohort in groupby(asked, lambda row: int(row[0])):
            # Rows of numbers begin with the only brackets in them, and with the canary's name once they are told.
            texts = [text[1:-1].replace("[", f"[{json.dumps(canary)}, ") for _, canary, text in of_cohort]
            yield name, cohort, f"[{', '.join(texts)}]"
