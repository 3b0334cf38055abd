"""What is going on, how long has it taken, and where is the log of the step that failed?"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.processes import CommandFailed

TAIL_LINES = 25


class StepFailed(Exception):
    """A step did not succeed; the message names it and its log."""


class Steps:
    """Prints one line when a step starts and one when it ends. Steps may overlap, from several threads."""

    def __init__(self, logs: Path, *, quiet: bool = False) -> None:
        self._logs = logs
        self._quiet = quiet
        self._began = time.monotonic()
        self._printing = threading.Lock()
        logs.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def step(self, title: str) -> Iterator[Path]:
        """Yields the log of the step. A log is kept until the same step runs again."""
        log = self._logs / (re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") + ".log")
        log.write_bytes(b"")
        self.say(f"{title} ...")
        began = time.monotonic()
        try:
            yield log
        except (CommandFailed, OSError) as failure:
            self.say(f"{title}: FAILED after {time.monotonic() - began:.1f} s")
            raise StepFailed(f"{title}: {failure}\n{_tail(log)}\nThe whole log: {log}") from failure
        self.say(f"{title}: done in {time.monotonic() - began:.1f} s")

    def say(self, text: str) -> None:
        if self._quiet:
            return
        elapsed = int(time.monotonic() - self._began)
        with self._printing:
            print(f"[{elapsed // 60:2d}:{elapsed % 60:02d}] {text}", file=sys.stderr, flush=True)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
    return "\n".join(f"    | {line[:300]}" for line in lines)
