"""What does the feedback service count, for Prometheus? Labels of a fixed set: nothing grows with what users send.

How good each model is, is found elsewhere (`ratings`) and told here.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, generate_latest

from evenkeel_operator.feedback.records import Answer, Outcome


class Metrics:
    """The counters of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._quality = b""
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

    def rated(self, text: bytes) -> None:
        """Tell of every model's quality what this text says, until the next one."""
        self._quality = text

    def exposition(self, *, with_quality: bool) -> bytes:
        """Return the metrics as text."""
        return generate_latest(self._registry) + (self._quality if with_quality else b"")
