"""Does every request get its answer? A constant closed loop of predictions against loopback, and what failed of it.

Half the clients keep their connection, half open one for each request: a rollout must lose neither. There is no retry:
what is refused, cut or answered with anything but 200 counts as failed.
"""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Tally:
    """What came of the requests so far. `failed` counts by kind of failure."""

    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    first_failure: str = ""

    def failures(self) -> int:
        return sum(self.failed.values())


@dataclass(frozen=True)
class Target:
    """Where to send what: a port on loopback, the path of an infer endpoint, a body."""

    port: int
    path: str
    body: bytes
    timeout_s: float = 30.0


@contextmanager
def constant(target: Target, *, clients: int = 4, pause_s: float = 0.02) -> Iterator[Tally]:
    """Send predictions from `clients` threads, `pause_s` apart each, until the block ends."""
    tally, lock, over = Tally(), threading.Lock(), threading.Event()
    threads = [
        threading.Thread(target=_client, args=(target, number % 2 == 0, pause_s, tally, lock, over), daemon=True)
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield tally
    finally:
        over.set()
        for thread in threads:
            thread.join(target.timeout_s + 5)


def _client(
    target: Target, keeps: bool, pause_s: float, tally: Tally, lock: threading.Lock, over: threading.Event
) -> None:
    connection: http.client.HTTPConnection | None = None
    for _ in itertools.count():
        if over.is_set():
            break
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=target.timeout_s)
        failure, version = "", ""
        try:
            connection.request("POST", target.path, target.body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                failure = f"status {answer.status}"
            else:
                version = _version(text)
            closing = answer.will_close
        except (OSError, http.client.HTTPException) as problem:
            failure, closing = type(problem).__name__, True
        if closing or not keeps:
            connection.close()
            connection = None
        with lock:
            if failure:
                tally.failed[failure] += 1
                tally.first_failure = tally.first_failure or f"{time.strftime('%H:%M:%S')} {failure}"
            else:
                tally.answered += 1
                tally.versions[version] += 1
        over.wait(pause_s)
    if connection is not None:
        connection.close()


def _version(answer: bytes) -> str:
    mark = b'"model_version":"'
    start = answer.find(mark)
    return "" if start < 0 else answer[start + len(mark) :].split(b'"', 1)[0].decode()
