"""How is the service loaded? Clients that post batches, one after the other, each until it is acknowledged.

A client whose post got no answer sends the same bytes again, as a user's would: whether the first was counted is what
the store has to know.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable

from tests.system.feedback.server import PATIENCE_S, Deployment, Service

BATCH = 100
CLIENTS = 8
_AGAIN_S = 0.05


def batches(model: Deployment, count: int, size: int = BATCH) -> list[bytes]:
    """Return bodies of `size` labels each; nine labels of ten say what was predicted."""
    return [
        json.dumps([{"receipt": model.receipt(n % 10), "label": n % 10 if n % 11 else 0} for n in range(size)]).encode()
        for _ in range(count)
    ]


class Load:
    """Clients at work. `latencies_s` are those of posts that were acknowledged at once, in no order."""

    def __init__(
        self, service: Service, bodies: Iterable[bytes], *, clients: int = CLIENTS, per_second: float | None = None
    ) -> None:
        self._service = service
        self._waiting = deque(bodies)
        self._pace_s = 0.0 if per_second is None else 1 / per_second
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self._due = self._begun
        self.outcomes: Counter[str] = Counter()
        self.latencies_s: list[float] = []
        self.sent_again = 0
        self.errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._client) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    @property
    def is_over(self) -> bool:
        """Whether everything is acknowledged, or a client gave up."""
        return not any(thread.is_alive() for thread in self._threads)

    def wait(self) -> float:
        """Return the seconds that it took, once everything is acknowledged; raises what a client met."""
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]
        return time.monotonic() - self._begun

    def _client(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._service.port, timeout=PATIENCE_S)
        try:
            while (taken := self._next()) is not None:
                body, due = taken
                time.sleep(max(0.0, due - time.monotonic()))
                self._acknowledged(connection, body, due if self._pace_s else time.monotonic())
        except BaseException as error:  # noqa: BLE001 - raised again by wait
            self.errors.append(error)
        finally:
            connection.close()

    def _next(self) -> tuple[bytes, float] | None:
        with self._lock:
            if not self._waiting:
                return None
            self._due += self._pace_s
            return self._waiting.popleft(), self._due

    def _acknowledged(self, connection: http.client.HTTPConnection, body: bytes, since: float) -> None:
        """Post until there is an answer; a latency counts from when the post was due, so that a stall is not hidden."""
        until = time.monotonic() + PATIENCE_S
        is_first = True
        while True:
            try:
                connection.request("POST", "/v1/feedback", body, {"content-type": "application/json"})
                response = connection.getresponse()
                text = response.read()
            except (OSError, http.client.HTTPException):
                connection.close()
            else:
                if response.status == 200:
                    break
                assert response.status in (429, 503), text
            assert time.monotonic() < until, "a post was not acknowledged"
            is_first = False
            self.sent_again += 1
            time.sleep(_AGAIN_S)
        if is_first:
            self.latencies_s.append(time.monotonic() - since)
        found = Counter(one["outcome"] for one in json.loads(text)["results"])
        with self._lock:
            self.outcomes += found
