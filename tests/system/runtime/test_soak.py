"""Does a replica stay as large as it is however much it has answered, and is no drain unlucky?

`make soak-runtime` sets EVENKEEL_SOAK: then a replica answers for half an hour or 10^8 requests, whichever is first,
and a hundred are drained. Without it the same is done in seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.runtime import payloads
from tests.bench.runtime.servers import resident_bytes
from tests.system.runtime.replica import Replica
from tests.system.runtime.test_life import at_work, failures_when_sent_away

IS_FULL = "EVENKEEL_SOAK" in os.environ
REQUESTS, WITHIN_S, SLICE_S = (100_000_000, 1800.0, 30.0) if IS_FULL else (20_000, 30.0, 1.0)
WARM_UP = 5_000
"""Requests after which what is kept of requests and answers is there."""
FLAT = 1.02
LEAST_SIZES = 3
CONNECTIONS = 32
DRAINS = 100 if IS_FULL else 3


def test_memory_stays_flat(start: Callable[..., Replica], tmp_path: Path) -> None:
    replica = start("perceptron.pt2", EVENKEEL_MODEL_NAME="model")
    replica.await_ready()
    request = payloads.binary(tmp_path, "image", 1, 12)
    answered = 0
    while answered < WARM_UP:
        answered += _slice(replica, request, 1.0)
    answered = 0
    until, sizes = time.monotonic() + WITHIN_S, [resident_bytes(replica.process.pid)]
    while (answered < REQUESTS or len(sizes) <= LEAST_SIZES) and time.monotonic() < until:
        answered += _slice(replica, request, SLICE_S)
        sizes.append(resident_bytes(replica.process.pid))
    print(f"{answered} requests, resident MB: {' '.join(f'{size / 1e6:.1f}' for size in sizes)}")
    assert replica.metric("inference_requests_total") >= answered
    assert len(sizes) > LEAST_SIZES, "too few to tell"
    assert max(sizes) <= FLAT * sizes[0], sizes


def _slice(replica: Replica, request: Path, seconds: float) -> int:
    told = ["127.0.0.1", str(replica.port), str(request), str(CONNECTIONS), str(seconds)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.runtime.client", *told], check=True, stdout=subprocess.PIPE, text=True
    )
    return int(json.loads(done.stdout)["requests"])


def test_no_drain_of_many_fails_a_request(start: Callable[..., Replica]) -> None:
    answered = 0
    for _ in range(DRAINS):
        replica = start("perceptron.pt2", EVENKEEL_DRAIN_DELAY_S="3")
        replica.await_ready()
        clients = at_work(replica)
        replica.terminate()
        replica.await_status("/v2/health/ready", 503)
        failures = failures_when_sent_away(clients)
        assert replica.wait() == 0
        answered += sum(client.answered for client in clients)
        assert failures == []
    print(f"{DRAINS} drains, {answered} requests, none failed")
