"""What is this process doing? `GET /debug/profile?seconds=5` samples every thread's Python stack while it serves on.

The answer is one line per stack, outermost function first, with how often it was seen: the folded form that
flame-graph tools read. Off unless EVENKEEL_PROFILE is "true": whoever may ask learns which code runs, and each sample
takes the GIL.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from types import FrameType
from urllib.parse import parse_qs

from evenkeel_runtime.serve.protocol import error_body

PATH = "/debug/profile"
MOST_S = 60.0
DEFAULT_S = 5.0
INTERVAL_S = 0.01

_running = threading.Lock()


def seconds_of(query: str) -> float | None:
    """Return for how long to sample, None where the query says no such time."""
    given = parse_qs(query).get("seconds", [str(DEFAULT_S)])[-1]
    try:
        seconds = float(given)
    except ValueError:
        return None
    return seconds if 0 < seconds <= MOST_S else None


def profile(seconds: float) -> bytes | None:
    """Sample for so long and return the stacks; None where another profile is being taken."""
    if not _running.acquire(blocking=False):
        return None
    try:
        seen = _sampled(seconds)
    finally:
        _running.release()
    return "".join(f"{stack} {count}\n" for stack, count in sorted(seen.items())).encode()


def rendered(seconds: float) -> tuple[int, bytes, bytes]:
    """Return the answer with the stacks of so long: status, content type, body."""
    found = profile(seconds)
    if found is None:
        return 409, b"application/json", error_body("another profile is being taken; try again when it is done")
    return 200, b"text/plain; charset=utf-8", found


def _sampled(seconds: float) -> Counter[str]:
    own = threading.get_ident()
    seen: Counter[str] = Counter()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            if ident != own:
                seen[";".join([names.get(ident, "thread"), *_functions(frame)])] += 1
        time.sleep(INTERVAL_S)
    return seen


def _functions(frame: FrameType | None) -> list[str]:
    found: list[str] = []
    while frame is not None:
        found.append(f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}")
        frame = frame.f_back
    return found[::-1]
