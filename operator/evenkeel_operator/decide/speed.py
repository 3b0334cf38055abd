"""How fast is one replica? What its batches took, learnt while it serves, from what it measured at load onwards.

The profile of the load stands in for every size of batch that has not been seen in service, as much faster or slower
as it was wrong about the others. Measurements fade with a half-life of half an hour. A model of enough of them moves no
faster than a device changes its speed; one from before is replaced by it at once. Counter-example: a profile that is
30 % off, moved like a device, is believed for 20 minutes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from evenkeel_operator.api.modeldeployment import MOST_ROWS
from evenkeel_operator.decide.capacity import Roofline, approached, faded, fit
from evenkeel_operator.decide.derating import LEAST, Derating
from evenkeel_operator.decide.observed import Batches
from evenkeel_operator.decide.readings import MOST_SIZES
from evenkeel_operator.decide.snapshot import NO_SIGNAL, NoSignal
from evenkeel_runtime import contract

ENOUGH = 200
"""Batches after which the model is moved slowly: before, what is measured replaces what was assumed."""

LEARN_S = 60.0
"""How often the model is learnt anew."""

PROFILE_WEIGHT = 20.0
"""For how many batches the profile of a size stands that has not been seen in service."""


@dataclass(slots=True)
class Speed:
    """What is known of the batch times of one ModelDeployment.

    `derating` says how much to believe of the capacity that follows from them.
    """

    roofline: Roofline | None = None
    derating: Derating = field(default_factory=Derating)
    _times: dict[int, tuple[float, float]] = field(default_factory=dict)
    _rows: dict[int, tuple[float, float]] = field(default_factory=dict)
    _seen: int = 0
    _is_measured: bool = False

    def is_due(self, since_s: float) -> bool:
        """Return whether to learn the model anew, `since_s` seconds after the last time.

        At once where it is a profile's word still and enough has been measured to replace it.
        """
        is_outdated = self.roofline is not None and not self._is_measured and self._seen >= ENOUGH
        return since_s >= LEARN_S or is_outdated

    def note(self, batches: Iterable[Batches], elapsed_s: float) -> None:
        """Take in what batches took; `elapsed_s` have passed since the last call.

        Of more than MOST_SIZES sizes, those with the most batches are kept: a fit takes the square of their number.
        """
        self._times = faded(self._times, elapsed_s)
        self._rows = faded(self._rows, elapsed_s)
        for row in batches:
            self._seen += row.count
            self._times[row.most] = _sum(self._times.get(row.most), row.count, row.seconds)
            self._rows[row.most] = _sum(self._rows.get(row.most), row.count, row.rows)
        if len(self._times) > MOST_SIZES:
            kept = sorted(self._times, key=lambda most: self._times[most][0], reverse=True)[:MOST_SIZES]
            self._times = {most: self._times[most] for most in kept}
            self._rows = {most: self._rows[most] for most in kept}

    def learn(
        self, profile: Sequence[tuple[int, float]], max_rows: int, elapsed_s: float, engines: int = 1
    ) -> Roofline | NoSignal:
        """Return the model as of now; `elapsed_s` have passed since it was last asked for."""
        measured = fit(self._points(profile), max_rows)
        if isinstance(measured, NoSignal):
            return self.roofline if self.roofline is not None else NO_SIGNAL
        measured = replace(measured, engines=engines)
        present = self.roofline
        if (
            present is None
            or not self._is_measured
            or (present.max_rows, present.engines) != (measured.max_rows, measured.engines)
        ):
            self.roofline = measured
        else:
            self.roofline = approached(present, measured, elapsed_s)
        self._is_measured = self._seen >= ENOUGH
        return self.roofline

    def to_json(self) -> str | None:
        """Return what is worth keeping of it, None where nothing is but what replicas say of themselves."""
        found = self.roofline
        if found is None or not self._is_measured:
            return None
        kept = [found.floor_s, found.fixed_s, found.row_s, found.max_rows, self.derating.factor]
        kept += [found.engines] if found.engines > 1 else []
        return json.dumps(kept, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Speed:
        """Return what `to_json` wrote. Raises ValueError for anything else."""
        try:
            floor_s, fixed_s, row_s, max_rows, *rest = json.loads(text)
            derating, engines = [float(value) for value in (*rest, *(1.0, 1)[len(rest) :])]
            found = Roofline(float(floor_s), float(fixed_s), float(row_s), int(max_rows), int(engines))
        except (TypeError, ValueError, OverflowError, RecursionError) as e:
            raise ValueError(f"the batch times cannot be read: {e!r}") from e
        times = (found.floor_s, found.fixed_s, found.row_s)
        is_timed = all(math.isfinite(s) and s >= 0 for s in times) and found.seconds(1) > 0
        is_sized = 1 <= found.max_rows <= MOST_ROWS and 1 <= found.engines <= contract.MOST_ENGINES
        if not is_timed or not is_sized or not LEAST <= derating <= 1.0:
            raise ValueError(f"the batch times cannot be read: {text[:80]}")
        return cls(found, Derating(derating), _seen=ENOUGH, _is_measured=True)

    def _points(self, profile: Sequence[tuple[int, float]]) -> Mapping[float, tuple[float, float]]:
        """Return what batches took by their mean rows, and by the `profile` for sizes that have not been seen.

        Means are no whole numbers. Counter-example: batches of 11.4 rows taken for 11 are 3 % too slow, and by a line
        from there to full ones a replica carries 6 % more in one minute than in the next.
        """
        points: dict[float, tuple[float, float]] = {}
        known: dict[int, tuple[float, float]] = {}
        for most, (count, seconds) in self._times.items():
            rows = self._rows[most][1] / self._rows[most][0] if most in self._rows else float(most)
            points[rows] = _sum(points.get(rows), count, seconds)
            nearest = max(1, round(rows))
            known[nearest] = _sum(known.get(nearest), count, seconds)
        off = _off(known, profile)
        for size, seconds in profile:
            if size > 0 and seconds > 0 and known.get(size, (0.0, 0.0))[0] < PROFILE_WEIGHT:
                points[size] = _sum(points.get(size), PROFILE_WEIGHT, PROFILE_WEIGHT * seconds * off)
        return points


def _off(points: Mapping[int, tuple[float, float]], profile: Sequence[tuple[int, float]]) -> float:
    """Return by what batches in service take longer than the `profile` says, by the sizes that both know.

    A device that is slower with small batches is so with large ones: where only the former have been seen, a burst
    would otherwise find a model that is half right.
    """
    taken = assumed = 0.0
    for rows, seconds in profile:
        if rows in points and seconds > 0:
            count, total = points[rows]
            taken += PROFILE_WEIGHT * seconds + total
            assumed += (PROFILE_WEIGHT + count) * seconds
    return taken / assumed if assumed > 0.0 else 1.0


def _sum(had: tuple[float, float] | None, count: float, total: float) -> tuple[float, float]:
    return (count, total) if had is None else (had[0] + count, had[1] + total)
