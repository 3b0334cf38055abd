"""How good is each model, for Prometheus? From the labels known by now of the last week's predictions, once a minute.

Not when Prometheus asks: the bounds of one revision of many classes take tenths of a second. A thread finds them, of
what has new labels, and a scrape reads the text that is there; a post waits for it no longer than for another thread's
turn.

These are numbers to look at. Labels that come in are taken as they are, mature or not; what is decided on is in
status.accuracy and in the conditions.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from evenkeel_operator.decide.quality import floors, measures
from evenkeel_operator.decide.quality.cohorts import coverage_of
from evenkeel_operator.decide.quality.measures import Average, Measure, Metric
from evenkeel_operator.decide.snapshot import NoSignal
from evenkeel_operator.feedback.access import Denied
from evenkeel_operator.feedback.records import Totals
from evenkeel_operator.feedback.store import Store, Unavailable
from evenkeel_operator.feedback.totals import subjects, totals
from evenkeel_runtime.receipts import uid_of

SINCE_S = 7 * 86400
MOST_CLASSES = 32
"""Of models with more, accuracy alone: an average's bounds take long and say little where classes have few labels."""
GOOD_FOR_S = 300.0
"""Numbers older than this are told no more: the database does not answer, and nobody knows."""

Places = Mapping[bytes, tuple[str, str]]
"""Namespace and name by subject."""
_Revision = tuple[bytes, str, int]
"""Subject, revision, classes."""

log = logging.getLogger(__name__)

_AVERAGED = (Metric.PRECISION, Metric.RECALL, Metric.F1)
_FAMILIES = {
    "evenkeel_quality": "Of the predictions of the last seven days whose label is known.",
    "evenkeel_quality_lower": "Where the 95 % interval of evenkeel_quality begins.",
    "evenkeel_quality_upper": "Where the 95 % interval of evenkeel_quality ends.",
    "evenkeel_quality_labels": "Predictions of the last seven days whose label is known.",
    "evenkeel_quality_predictions": "Predictions of the last seven days.",
    "evenkeel_quality_coverage": "Share of the predictions whose label is known: of all, and of predicted classes.",
    "evenkeel_quality_skewed": "1 where one predicted class is labelled so much more often that a metric may mislead.",
}


@dataclass(frozen=True, slots=True)
class Rating:
    """One number: its family, its labels beside those of the revision, its value."""

    family: str
    labels: tuple[tuple[str, str], ...]
    value: float


def rated(found: Totals) -> Iterator[Rating]:
    """Yield what is known of one revision; of what nobody has labelled there is no number."""
    if found.predictions:
        yield Rating("evenkeel_quality_predictions", (), found.predictions)
        yield from _coverage(found)
    if not found.labels:
        return
    yield Rating("evenkeel_quality_labels", (), found.labels)
    if not found.classes:
        assert found.errors is not None, "labelled numbers"
        # The store has sums of the errors, and bounds take how they are spread.
        yield _value(Metric.MAE, found.errors.absolute / found.labels)
        yield _value(Metric.RMSE, (found.errors.squared / found.labels) ** 0.5)
        return
    right = sum(count for (predicted, actual), count in found.confusion.items() if predicted == actual)
    # Of many classes, right and wrong are all that counts here: the two cells of a first class.
    yield from _interval(_measure(Metric.ACCURACY, 2), (right, found.labels - right, 0, 0), Metric.ACCURACY)
    yield from _averages(found)


def _coverage(found: Totals) -> Iterator[Rating]:
    counts = [found.predicted.get(class_, (0, 0)) for class_ in range(found.classes)]
    covered = coverage_of([predicted for predicted, _ in counts], [labels for _, labels in counts])
    if isinstance(covered.total, NoSignal):
        return
    shares = (covered.enough or covered.by_class).values()
    for of, share in (("all", covered.total), ("least", min(shares)), ("most", max(shares))):
        yield Rating("evenkeel_quality_coverage", (("of", of),), share)
    yield Rating("evenkeel_quality_skewed", (), int(covered.is_skewed))


def _averages(found: Totals) -> Iterator[Rating]:
    classes = found.classes
    if classes > MOST_CLASSES:
        return
    counts = [0] * classes**2
    for (predicted, actual), count in found.confusion.items():
        counts[measures.cell(predicted, actual, classes)] = count
    for metric in _AVERAGED:
        for average in (Average.MACRO, Average.WEIGHTED):
            yield from _interval(_measure(metric, classes, average), counts, metric, ("average", average.value))
        for positive in range(classes) if classes == 2 else ():
            name = found.names[positive] if found.names else str(positive)
            measure = _measure(metric, classes, Average.BINARY, positive)
            yield from _interval(measure, counts, metric, ("average", Average.BINARY.value), ("class", name))


@lru_cache(maxsize=256)
def _measure(metric: Metric, classes: int, average: Average = Average.MACRO, positive: int = 1) -> Measure:
    return measures.classification(metric, classes, average, positive)


def _interval(measure: Measure, counts: measures.Counts, metric: Metric, *labels: tuple[str, str]) -> Iterator[Rating]:
    found = floors.interval(measure, counts)
    if isinstance(found, NoSignal):
        return
    yield _value(metric, found.value, *labels)
    yield Rating("evenkeel_quality_lower", (("metric", metric.value), *labels), found.lower)
    yield Rating("evenkeel_quality_upper", (("metric", metric.value), *labels), found.upper)


def _value(metric: Metric, value: float, *labels: tuple[str, str]) -> Rating:
    return Rating("evenkeel_quality", (("metric", metric.value), *labels), value)


def exposition(rows: Iterable[tuple[tuple[str, str], str, Iterable[Rating]]]) -> bytes:
    """Return the series of revisions, each with the namespace and name of its ModelDeployment, as text."""
    lines: dict[str, list[str]] = {family: [] for family in _FAMILIES}
    for (namespace, name), revision, ratings in rows:
        own = (("namespace", namespace), ("name", name), ("revision", revision))
        for one in ratings:
            told = ",".join(f'{key}="{_escaped(value)}"' for key, value in (*own, *one.labels))
            lines[one.family].append(f"{one.family}{{{told}}} {one.value:.9g}")
    text = [
        line
        for family, what in _FAMILIES.items()
        for line in (f"# HELP {family} {what}", f"# TYPE {family} gauge", *lines[family])
    ]
    return ("\n".join(text) + "\n").encode()


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Ratings:
    """Looks at every model that is there, again and again, until it is stopped.

    `store` is its own. `present` returns what ModelDeployments there are; None where nobody can be asked, and a model
    goes by its uid. `tell` is given the text each time.
    """

    def __init__(
        self,
        store: Store,
        present: Callable[[], Awaitable[Places]] | None,
        tell: Callable[[bytes], None],
        every_s: float,
    ) -> None:
        self._store = store
        self._present = present
        self._tell = tell
        self._every_s = every_s
        self._known: dict[_Revision, tuple[Totals, tuple[Rating, ...]]] = {}
        self._stopped = asyncio.Event()
        self._is_stopping = False

    async def run(self) -> None:
        """Return when stopped; the store is in nobody's use then."""
        looked_at = time.monotonic()
        while not self._stopped.is_set():
            try:
                places = None if self._present is None else await self._present()
                self._tell(await asyncio.to_thread(self._look, places))
                looked_at = time.monotonic()
            except (Unavailable, Denied) as e:
                log.warning("quality not looked at error=%s", e)
            except Exception:  # ours to mend; labels are taken meanwhile
                log.exception("quality not looked at")
            if time.monotonic() - looked_at > GOOD_FOR_S:
                self._tell(b"")
            try:
                await asyncio.wait_for(self._stopped.wait(), self._every_s)
            except TimeoutError:
                continue

    def stop(self) -> None:
        """Let `run` return soon."""
        self._is_stopping = True
        self._stopped.set()

    def _look(self, places: Places | None) -> bytes:
        since_s = int(time.time()) - SINCE_S
        seen: dict[_Revision, tuple[Totals, tuple[Rating, ...]]] = {}
        rows = []
        for subject in subjects(self._store.ask):
            place = ("-", uid_of(subject)) if places is None else places.get(subject)
            if place is None:
                continue  # deleted: its labels stay until they are too old, its series do not
            for found in totals(self._store.ask, subject, since_s):
                if self._is_stopping:
                    break
                revision = (subject, found.revision, found.classes)
                before = self._known.get(revision)
                ratings = before[1] if before is not None and before[0] == found else tuple(rated(found))
                seen[revision] = found, ratings
                rows.append((place, found.revision, ratings))
        self._known = seen
        return exposition(rows)
