"""What does the feedback service count, for Prometheus? Labels of a fixed set: nothing grows with what users send."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, generate_latest

from evenkeel_operator.feedback.records import Answer, Outcome


class Metrics:
    """The counters of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._items = Counter(
            "evenkeel_feedback_items", "Items of posts, by what became of them", ["outcome"], registry=self._registry
        )
        for outcome in Outcome:
            self._items.labels(outcome=outcome.value)  # so that the first of them is a rise from 0
        self.refused = Counter(
            "evenkeel_feedback_refused", "Posts refused because too much waited", registry=self._registry
        )
        self.unavailable = Counter(
            "evenkeel_feedback_unavailable",
            "Requests that the database or the API server was needed for and did not answer",
            registry=self._registry,
        )

    def answered(self, answers: Iterable[Answer]) -> None:
        """Count the outcomes of a post."""
        for answer in answers:
            self._items.labels(outcome=answer.outcome.value).inc()

    def exposition(self) -> bytes:
        """Return the metrics as text."""
        return generate_latest(self._registry)
