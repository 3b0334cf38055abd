"""How does a test play the operator of a rollout? It tells real replicas signed directives and reads their signals."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evenkeel_runtime import contract, receipts
from evenkeel_runtime.contract import DIRECTIVES_PATH, SIGNALS_PATH, Canary
from tests.system.feedback.server import Deployment
from tests.system.runtime.replica import PATIENCE_S, Answer, Replica, binary_header, read_answer, request_bytes

FAR = 5.0
"""Standard deviations: one in two million."""
CALM_S = 600.0
"""A latency target that nobody misses on a busy machine."""
IMAGE = np.ones((1, 12), np.float32)
ROW: dict[str, Any] = {"name": "image", "datatype": "FP32", "shape": [1, 12], "data": [1.0] * 12}
HEADER: Any = {"inputs": [ROW]}
INFER = "/v2/models/m/infer"
_moments = itertools.count(int(time.time() * 1000))


@dataclass(frozen=True)
class Rollout:
    """A stable replica, the canary's, and the key of their ModelDeployment."""

    model: Deployment
    stable: Replica
    canaries: tuple[Replica, ...]

    @property
    def canary(self) -> Replica:
        return self.canaries[0]

    def plan(self, share: float = 1.0, mode: str = contract.SPLIT, **more: Any) -> Canary:
        """Return what the stable replica is to be told, with every replica of the canary."""
        addresses = tuple(f"127.0.0.1:{found.port}" for found in self.canaries)
        return replace(Canary("canary", mode, share, addresses, 300.0), **more)

    def tell(self, canary: Canary | None, target_s: float | None = None, who: Replica | None = None) -> Answer:
        """Tell a replica, the stable one unless said otherwise; it has to follow."""
        found = who or self.stable
        body = contract.directive(0, target_s, self.signals(found)["bootId"], canary)
        answer = told(found, body, signed(self.model.key, body))
        assert answer.status == 200, answer.body
        return answer

    def signals(self, who: Replica | None = None) -> Any:
        return (who or self.stable).admin("GET", SIGNALS_PATH).json

    def arm(self, mode: str = contract.SPLIT) -> dict[str, Any]:
        """Return the counts of a mode, when nothing of it is under way any more."""
        found: dict[str, Any] = {}

        def is_settled() -> bool:
            found.clear()
            found.update(self.signals()["canary"][mode.lower()] or {})
            return not found.get("underWay")

        await_that(is_settled)
        if found:
            ended = found["answered"] + sum(found["failed"].values()) + found["invalid"] + found["abandoned"]
            assert ended == found["sent"]
        return found


def signed(key: bytes, body: bytes, moment: int | None = None) -> dict[str, str]:
    """Return the headers that the operator sends with a directive."""
    text = str(next(_moments) if moment is None else moment)
    return {
        receipts.TIME_HEADER: text,
        receipts.SIGNATURE_HEADER: receipts.signature(key, receipts.DIRECTIVE, text.encode(), body),
    }


def told(who: Replica, body: bytes, headers: dict[str, str]) -> Answer:
    return who.ask("POST", DIRECTIVES_PATH, body, headers, port=who.admin_port)


def versions(who: Replica, headers: list[str]) -> Counter[str]:
    """Return which revision answered how often; a request for each of `headers`, many at a time."""
    found: Counter[str] = Counter()
    body = binary_body()
    more = f"inference-header-content-length: {len(body) - IMAGE.nbytes}\r\n"
    with who.connect() as stream:
        for start in range(0, len(headers), 50):
            some = headers[start : start + 50]
            stream.sendall(b"".join(request_bytes("POST", INFER, body, more + line) for line in some))
            for _ in some:
                status, head, answer = read_answer(stream)
                assert status == 200, head + answer
                found["canary" if b'"model_version":"canary"' in answer else "stable"] += 1
    return found


def binary_body() -> bytes:
    return json.dumps(binary_header(IMAGE)).encode() + IMAGE.tobytes()


def await_that(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)


def stop(who: Replica) -> None:
    """Let a replica answer nothing, with its connections open, until it is told to go on."""
    os.kill(who.process.pid, signal.SIGSTOP)


def go_on(who: Replica) -> None:
    os.kill(who.process.pid, signal.SIGCONT)
