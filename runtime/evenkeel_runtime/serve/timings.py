"""How long were the requests that were answered in each part of their way?

Noted as moments when an answer leaves, and binned by many at once: before anybody reads a histogram, and when MOST are
noted. Six bisections for each answer would be a tenth of what a small request costs.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from evenkeel_runtime.serve.metrics import Metrics
    from evenkeel_runtime.serve.signals import Signals

MOST = 512
_FIELDS = 8

Moments = tuple[int, float, float, float, float, float, float, float]
"""The protocol's code for the answer; then, by `time.perf_counter`, when the request had arrived, was admitted, its
forward began and ended, its answer began to be written and was written; last, `caller.Caller.within_s`."""


class Timings:
    """The moments that are not binned yet."""

    def __init__(self, metrics: Metrics, signals: Signals) -> None:
        self.moments: list[float] = []
        """Of one request after the other, as `Moments`."""
        self._metrics, self._signals = metrics, signals

    @property
    def is_full(self) -> bool:
        return len(self.moments) >= MOST * _FIELDS

    def bin(self) -> None:
        """Count what was noted. On the event loop: what is counted here is noted there."""
        if not self.moments:
            return
        packed = struct.pack(f"{len(self.moments)}d", *self.moments)
        self.moments.clear()
        columns = np.frombuffer(packed).reshape(-1, _FIELDS).T
        codes, arrived, admitted, began, ended, written_from, written, within = columns
        metrics, took = self._metrics, written - arrived
        metrics.preprocess.observe_all(admitted - arrived)
        metrics.queue.observe_all(began - admitted)
        metrics.predict.observe_all(ended - admitted)
        metrics.postprocess.observe_all(written - written_from)
        for code in np.unique(codes):
            metrics.answered_all(int(code), took[codes == code])
        self._signals.latency.observe_all(took)
        if metrics.canary is not None and within.any():
            metrics.canary.beside.end_all(took, within)
