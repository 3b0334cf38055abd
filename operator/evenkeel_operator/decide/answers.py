"""How do the stable revision and its canary answer? Samples by the minute, from what the stable replicas count.

Every request comes in at a stable replica, which counts what it meant for the canary, and of what it answered itself
that which could have been the canary's (`serve/tally.py` of the runtime). Like is held against like only: gRPC, or what
names a version, may be ten times as easy. Of a replica that does not tell these apart, all that it answered is taken.
Two readings of one process give what happened between them. The requests of one batch share its fate, so they are no
evidence of their own: of each replica and second counts at most one. Which of the requests between two readings these
are is drawn by chance, from a generator that is seeded with the counters themselves: the same readings give the same
samples.

A request that the canary was late with is slow, one that it did not answer for another reason has failed; who gave up
before either was only answered. That a
replica of the canary was taken away (a drained node, a deleted pod) is nothing that the canary has done: what could
not reach it in that interval is not counted. A replica that crashes stays, and counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from evenkeel_operator.decide.quality.cohorts import ANSWERS, COHORT, Answers
from evenkeel_operator.decide.readings import Beside, Latencies, Reading, Sent

LATE, UNREACHABLE = "late", "unreachable"
FINE = timedelta(hours=1)
"""For so long minutes are kept as they are; before that, a quarter of an hour is one row, cut where a step begins."""
MOST_BYTES = 64 << 10
MOST_SPAN_S = 300
"""So many samples lie between two readings at most: who has not been asked for so long speaks of no canary any more."""

_VERSION = 1
_MOST_ENDED = 1 << 53
_MOST_START_S = 1 << 33


@dataclass(frozen=True, slots=True)
class Outcome:
    """Requests by what became of them: all that ended, of these the slow and the failed."""

    ended: int
    slow: int
    failed: int


@dataclass(slots=True)
class Samples:
    """The rows of one trial: of its stable revision and its canary, by minute."""

    stable: str
    canary: str
    _rows: dict[tuple[str, datetime], list[int]] = field(default_factory=dict)
    _last: dict[str, Reading] = field(default_factory=dict)

    def note(self, replica: str, answer: Reading, now: datetime, *, was_taken_away: bool = False) -> None:
        """Take in what a stable `replica` says at `now`; `was_taken_away`: a replica of the canary, since last time."""
        before = self._last.get(replica)
        self._last[replica] = answer
        if before is None or before.boot != answer.boot:
            return
        span_s = answer.uptime_s - before.uptime_s
        minute = now.replace(second=0, microsecond=0)
        chance = Random(f"{answer.boot}/{answer.arrivals}/{answer.uptime_s}")
        told, was = answer.canary, before.canary
        if told is None or told.revision != self.canary:
            return
        if was is not None and was.revision != told.revision:
            was = None
        own = _own(before, answer) if told.beside is None else _beside(None if was is None else was.beside, told.beside)
        if own is not None:
            self._add(self.stable, minute, own, span_s, chance)
        for now_sent, then_sent in (
            (told.split, None if was is None else was.split),
            (told.mirror, None if was is None else was.mirror),
        ):
            if now_sent is not None:
                found = _sent(then_sent, now_sent, was_taken_away)
                if found is not None:
                    self._add(self.canary, minute, found, span_s, chance)

    def keep(self, replicas: Iterable[str]) -> None:
        """Forget the readings of all replicas but these."""
        for name in self._last.keys() - set(replicas):
            del self._last[name]

    def rows(self) -> tuple[Answers, ...]:
        """Return the rows by time."""
        return tuple(
            Answers(revision, start, *counts) for (revision, start), counts in sorted(self._rows.items(), key=_by_time)
        )

    def to_json(self, now: datetime, steps_began: Iterable[datetime] = ()) -> str:
        """Return the rows as text, old ones together, in MOST_BYTES at most: what does not fit is the oldest.

        Minutes are added up only with those of the same step: in another one the canary had another share.
        """
        self._coarsen(now, steps_began)
        rows = [
            [self.stable == revision, int(start.timestamp()), *counts]
            for (revision, start), counts in sorted(self._rows.items(), key=_by_time)
        ]
        while True:
            text = json.dumps(
                {"version": _VERSION, "stable": self.stable, "canary": self.canary, "rows": rows},
                separators=(",", ":"),
            )
            if len(text) <= MOST_BYTES:
                return text
            rows = rows[len(rows) // 8 + 1 :]

    @classmethod
    def from_json(cls, text: str) -> Samples:
        """Return what `to_json` wrote. Raises ValueError for anything else."""
        try:
            data = json.loads(text)
            if data["version"] != _VERSION:
                raise ValueError(f"version {data['version']} of a canary's samples is not known here")
            found = cls(str(data["stable"]), str(data["canary"]))
            for is_stable, start, samples, slow, failed in data["rows"]:
                counts = [int(samples), int(slow), int(failed)]
                if min(counts) < 0 or max(counts[1:]) > counts[0] or not 0 <= start < _MOST_START_S:
                    raise ValueError("there are no such samples")
                revision = found.stable if is_stable else found.canary
                found._rows[revision, datetime.fromtimestamp(int(start), UTC)] = counts
        except (KeyError, TypeError, OverflowError, OSError, RecursionError) as e:
            raise ValueError(f"a canary's samples cannot be read: {e!r}") from e
        return found

    def _add(self, revision: str, minute: datetime, found: Outcome, span_s: float, chance: Random) -> None:
        # A replica says what it likes: the draw must not take memory by the ages that it has been up.
        if not 0 < found.ended < _MOST_ENDED:
            return
        count = min(found.ended, max(1, round(min(span_s, MOST_SPAN_S))))
        # Without replacement: of `ended` requests the first `failed` have failed, and those that end the row are slow.
        drawn = chance.sample(range(found.ended), count)
        failed = sum(index < found.failed for index in drawn)
        slow = sum(index >= found.ended - found.slow for index in drawn)
        row = self._rows.setdefault((revision, minute), [0, 0, 0])
        for index, value in enumerate((count, slow, failed)):
            row[index] += value

    def _coarsen(self, now: datetime, steps_began: Iterable[datetime]) -> None:
        """Add old minutes up to quarters of an hour; one in which a step began stays as it is."""
        quarter = int(COHORT / ANSWERS)
        minutes = [at.replace(second=0, microsecond=0) for at in steps_began]
        cuts = {*minutes, *(at + ANSWERS for at in minutes)}
        for (revision, start), counts in list(self._rows.items()):
            coarse = start.replace(minute=start.minute // quarter * quarter)
            coarse = max((coarse, *(cut for cut in cuts if cut <= start)))
            if coarse != start and coarse + COHORT <= now - FINE:
                row = self._rows.setdefault((revision, coarse), [0, 0, 0])
                for index, value in enumerate(counts):
                    row[index] += value
                del self._rows[revision, start]


def _by_time(item: tuple[tuple[str, datetime], list[int]]) -> tuple[datetime, str]:
    (revision, start), _ = item
    return start, revision


def _own(before: Reading, after: Reading) -> Outcome | None:
    """Return what became of the requests that a replica has answered itself; None where that is not known."""
    answered = _between(before.latencies, after.latencies)
    failed = after.failed - before.failed + after.rejected - before.rejected
    if answered is None or failed < 0:
        return None
    return Outcome(answered[0] + failed, answered[1], failed)


def _beside(before: Beside | None, after: Beside) -> Outcome | None:
    """Return what became of those that could have been the canary's; None where a count has run backwards."""
    had = Beside(0, 0, 0) if before is None else before
    ended, late, failed = after.ended - had.ended, after.late - had.late, after.failed - had.failed
    return None if min(late, failed, ended - late - failed) < 0 else Outcome(ended, late, failed)


def _sent(before: Sent | None, after: Sent, was_taken_away: bool) -> Outcome | None:
    answered = _between(None if before is None else before.latencies, after.latencies)
    had: Mapping[str, int] = {} if before is None else before.failed
    failed = {why: count - had.get(why, 0) for why, count in after.failed.items()}
    if answered is None or min(failed.values(), default=0) < 0:
        return None
    late = failed.pop(LATE, 0)
    if was_taken_away:
        failed.pop(UNREACHABLE, None)
    lost, left = sum(failed.values()), after.abandoned - (0 if before is None else before.abandoned)
    return None if left < 0 else Outcome(answered[0] + left + late + lost, answered[1] + late, lost)


def _between(before: Latencies | None, after: Latencies) -> tuple[int, int] | None:
    """Return how many were answered between two readings, and how many of these above the target."""
    counts = after.counts
    if before is not None and before.edges == after.edges:
        counts = tuple(new - old for new, old in zip(after.counts, before.counts, strict=True))
    if min(counts) < 0:
        return None
    within = sum(counts[: after.edges.index(after.target_s) + 1])
    return sum(counts), sum(counts) - within
