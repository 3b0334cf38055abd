"""What became of the requests that went to the canary?

Whoever was meant for the canary is counted for it, whoever answered in the end (intention to treat): a canary that
fails or is late is charged with that, though the user saw the stable replica's answer. Of the answered ones, the time
is kept as this replica saw it, in the buckets of its own requests, so that the two can be compared.

    sent = answered + failed, for every reason + invalid + abandoned + under way

A request is *invalid* where the stable replica refuses it as the canary did. That is the request's fault: no failure.

What this replica answers itself is counted once more where it could have been the canary's (`Beside`), and by the
canary's measure: *late* is what took longer than the canary would have had. Counter-example to the target as measure:
where stable takes 60 to 90 ms of 100, the canary has 90, and one that is just as fast is late 1 time in 20, stable
never. Counter-example to everything as yardstick: beside gRPC, which never goes to the canary and takes a tenth of the
time, a canary that is as fast as stable looks slow.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from evenkeel_runtime.contract import MIRROR, SPLIT
from evenkeel_runtime.serve.metrics import SECONDS, Histogram, escaped, family
from evenkeel_runtime.serve.signals import latency_edges, told

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Failure(enum.StrEnum):
    """Why the canary did not answer a request that was meant for it."""

    LATE = "late"
    """It had not answered when the stable replica had to begin."""
    UNREACHABLE = "unreachable"
    """There was no connection to it, or it broke."""
    BUSY = "busy"
    """More requests than `onward.MOST_UNDER_WAY` were on their way to it."""
    BROKEN = "broken"
    """What it sent was no HTTP, or endless."""
    FULL = "full"
    """It sent the request away: 429."""
    ERROR = "error"
    """It failed: a status from 500."""
    REFUSED = "refused"
    """It refused, with any other status, what the stable replica takes."""


def failure_of(status: int) -> Failure:
    """Return which failure a canary's answer is that is no 200."""
    if status == 429:
        return Failure.FULL
    return Failure.ERROR if status >= 500 else Failure.REFUSED


def is_failure(status: int) -> bool:
    """Return whether an answer of the stable replica's own is a failure, and not the request's fault."""
    return status == 429 or status >= 500


def is_refused_alike(status: int, answer: bytes | None) -> bool:
    """Return whether the stable replica has already refused a request with the same status, which is from 400 on."""
    return 400 <= status < 500 and status != 429 and answer is not None and answer[9:12] == b"%d" % status


class Drop(enum.StrEnum):
    """Why a request was not mirrored that was chosen."""

    LOAD = "load"
    """More requests wait for the stable model than one call of it takes."""
    MEMORY = "memory"
    """The copies that are under way hold as many bytes as they may."""
    COPIES = "copies"
    """As many copies are under way as may be."""


class Arm:
    """The counts of one mode."""

    def __init__(self, target_s: float) -> None:
        self.sent = self.answered = self.invalid = self.abandoned = 0
        self.failed = dict.fromkeys(Failure, 0)
        self.target_s = target_s
        self.latency = Histogram(latency_edges(target_s))
        self.lost = Histogram(SECONDS)
        """How long the stable replica waited in vain before it began itself."""

    @property
    def under_way(self) -> int:
        return self.sent - self.answered - sum(self.failed.values()) - self.invalid - self.abandoned

    def fail(self, why: Failure, waited_s: float) -> None:
        self.failed[why] += 1
        self.lost.observe(waited_s)

    def retarget(self, target_s: float) -> None:
        """Move the edge of the histogram, which begins again then, as that of the stable replica does."""
        if target_s != self.target_s:
            self.target_s = target_s
            self.latency = Histogram(latency_edges(target_s))

    def told(self) -> dict[str, object]:
        return {
            "sent": self.sent,
            "answered": self.answered,
            "failed": {why.value: count for why, count in self.failed.items() if count},
            "invalid": self.invalid,
            "abandoned": self.abandoned,
            "underWay": self.under_way,
            "lostSeconds": self.lost.total,
            "latency": told(self.target_s, self.latency),
        }


class Beside:
    """What became of the requests that the stable replica answers and that could have been the canary's: of a split,
    those that drew stable; of a mirror, all that a copy could have been made of.

    `late` and `failed` are of those that have `ended`, and none is both: late is late, whatever it ends with.
    """

    def __init__(self) -> None:
        self.ended = self.late = self.failed = 0

    def end(self, took_s: float, within_s: float, *, has_failed: bool) -> None:
        """Count one that ended after `took_s`, for which the canary would have had `within_s`."""
        self.ended += 1
        if took_s > within_s:
            self.late += 1
        elif has_failed:
            self.failed += 1

    def end_all(self, took: NDArray[np.float64], within: NDArray[np.float64]) -> None:
        """Count many that were answered; `within` is 0 of those that do not count."""
        counts = within > 0
        self.ended += int(counts.sum())
        self.late += int((counts & (took > within)).sum())

    def told(self) -> dict[str, int]:
        return {"ended": self.ended, "late": self.late, "failed": self.failed}


class Tally:
    """The counts of one canary, since this replica was told of it."""

    def __init__(self, revision: str, target_s: float) -> None:
        self.revision = revision
        self.arms = {SPLIT: Arm(target_s), MIRROR: Arm(target_s)}
        self.dropped = dict.fromkeys(Drop, 0)
        self.beside = Beside()

    def told(self) -> dict[str, object]:
        """Return the counts as the signals show them; a mode of which there is nothing to tell is null."""
        split, mirror = (self.arms[mode] for mode in (SPLIT, MIRROR))
        dropped = {why.value: count for why, count in self.dropped.items() if count}
        return {
            "revision": self.revision,
            "split": split.told() if split.sent else None,
            "mirror": {**mirror.told(), "dropped": dropped} if mirror.sent or dropped else None,
            "beside": self.beside.told(),
        }

    def lines(self, labels: str) -> list[str]:
        """Return the counts as Prometheus reads them. Pure reading, as `Metrics.render` is."""
        named = f'{labels},canary="{escaped(self.revision)}"'
        counts, under_way, times, lost = [], [], [], []
        for mode, arm in self.arms.items():
            if not arm.sent:
                continue
            told = f'{named},mode="{mode.lower()}"'
            outcomes = {"answered": arm.answered, "invalid": arm.invalid, "abandoned": arm.abandoned}
            outcomes |= {why.value: count for why, count in arm.failed.items()}
            counts += [
                f'inference_canary_requests_total{{{told},outcome="{word}"}} {count}'
                for word, count in outcomes.items()
                if count
            ]
            under_way.append(f"inference_canary_requests_in_flight{{{told}}} {arm.under_way}")
            times += arm.latency.lines("inference_canary_duration_seconds", told)
            lost += arm.lost.lines("inference_canary_lost_seconds", told)
        dropped = [
            f'inference_canary_dropped_total{{{named},reason="{why}"}} {count}'
            for why, count in self.dropped.items()
            if count
        ]
        beside = [
            f'inference_canary_beside_total{{{named},outcome="{word}"}} {count}'
            for word, count in (
                ("answered", self.beside.ended - self.beside.late - self.beside.failed),
                ("late", self.beside.late),
                ("failed", self.beside.failed),
            )
            if count
        ]
        return [
            *family("inference_canary_requests_total", "counter", "Requests meant for the canary, by outcome.", counts),
            *family("inference_canary_requests_in_flight", "gauge", "Requests that the canary has.", under_way),
            *family("inference_canary_duration_seconds", "histogram", "Until the canary's answer.", times),
            *family("inference_canary_lost_seconds", "histogram", "Until stable began in the canary's place.", lost),
            *family("inference_canary_dropped_total", "counter", "Requests that were not mirrored.", dropped),
            *family(
                "inference_canary_beside_total", "counter", "Stable's, which the canary's are compared to.", beside
            ),
        ]
