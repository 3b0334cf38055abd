"""What is too old to be kept? A part of it at a time, so that a post never waits for more than that."""

from __future__ import annotations

from dataclasses import dataclass

from evenkeel_operator.feedback.records import Ask, Row

AT_ONCE = 5000
"""How many rows one transaction of the retention deletes: a post waits for no longer."""


@dataclass(frozen=True, slots=True)
class Doomed:
    """Rows that are too old, and the statement that deletes one of them."""

    rows: list[Row]
    delete: str


@dataclass(frozen=True, slots=True)
class _Aged:
    """A table whose rows grow old by a column that has an index, in `per_s` of a second."""

    table: str
    key: tuple[str, ...]
    column: str = "cohort"
    per_s: int = 1

    def doomed(self, ask: Ask, before_s: int) -> Doomed:
        rows = ask(
            f"SELECT {', '.join(self.key)} FROM {self.table} WHERE {self.column} < ? LIMIT {AT_ONCE}",
            (before_s * self.per_s,),
        )
        return Doomed(
            sorted(rows), f"DELETE FROM {self.table} WHERE {' AND '.join(f'{name} = ?' for name in self.key)}"
        )


_OWN_ID = _Aged("own_name", ("subject", "id"), "at_s")
# A cohort is told for as long as it has a version, so that none is told that is there in part. What was counted goes
# before its counts.
_OTHERS = (
    _Aged("cohort_version", ("series", "cohort")),
    _Aged("label", ("series", "nonce", "row_number"), "time_ms", 1000),
    _Aged("mirrored", ("series", "cohort", "nonce", "row_number")),
    _Aged("tally", ("series", "cohort", "class", "process")),
    _Aged("cell", ("series", "cohort", "predicted", "actual")),
    _Aged("deviation", ("series", "cohort", "exponent")),
    _Aged("pair_cell", ("series", "cohort", "canary_revision", "stable", "canary", "actual")),
    _Aged("predicted", ("series", "cohort", "class")),
)


def too_old(ask: Ask, before_s: int, ids_before_s: int) -> Doomed | None:
    """Return some rows about predictions before that moment, or ids told before theirs; None where there are none."""
    for aged, limit_s in ((_OWN_ID, ids_before_s), *((aged, before_s) for aged in _OTHERS)):
        if (found := aged.doomed(ask, limit_s)).rows:
            return found
    return None
