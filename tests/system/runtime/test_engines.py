"""Do several engines answer as one replica, and what becomes of it when one of them ends?"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from evenkeel_runtime import contract
from evenkeel_runtime.contract import SIGNALS_PATH, Reason
from tests.system.runtime.replica import PATIENCE_S, Replica

TWO = {"EVENKEEL_ENGINES": "2"}
LONG = {"inputs": [{"name": "row", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}


def engines_of(replica: Replica) -> list[int]:
    """Return the processes of a replica's engines."""
    found = Path(f"/proc/{replica.process.pid}/task").glob("*/children")
    return [int(pid) for children in found for pid in children.read_text().split()]


def await_gone(pids: list[int]) -> None:
    until = time.monotonic() + PATIENCE_S
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < until, "an engine is left over"
        time.sleep(0.02)


def at_once(replica: Replica, count: int) -> list[int]:
    """Return the statuses of so many requests that are asked together."""
    with ThreadPoolExecutor(count) as pool:
        return [answer.status for answer in pool.map(lambda _: replica.infer(LONG), range(count))]


def test_two_engines_answer_alike_and_are_told_of(start: Callable[..., Replica], model_dir: Path) -> None:
    one, two = start("several.pt2"), start("several.pt2", speaks_grpc=True, **TWO)
    for replica in (one, two):
        replica.await_ready()
    assert len(engines_of(two)) == 2
    assert engines_of(one) == []
    metadata = [replica.ask("GET", "/v2/models/m").json for replica in (one, two)]
    assert [(found["inputs"], found["outputs"]) for found in metadata[:1]] == [
        (found["inputs"], found["outputs"]) for found in metadata[1:]
    ]
    told = [found["parameters"]["engines"] for found in metadata]
    assert (told, metadata[1]["parameters"]["execution_mode"]) == ([1, 2], "process")
    signals = [replica.admin("GET", SIGNALS_PATH).json for replica in (one, two)]
    assert [found["engines"] for found in signals] == [1, 2]
    assert signals[1]["profile"][-1][0] == signals[1]["maxBatchRows"]
    assert two.ask("GET", "/v2/models/m/config").json == one.ask("GET", "/v2/models/m/config").json


def test_their_time_is_the_replicas(start: Callable[..., Replica]) -> None:
    """Two batches that run at the same time keep two engines busy, and their CPUs are the replica's."""
    replica = start("long.pt2", **TWO)
    replica.await_ready()
    before = replica.admin("GET", SIGNALS_PATH).json
    assert at_once(replica, 6) == [200] * 6
    after = replica.admin("GET", SIGNALS_PATH).json
    busy_s = after["busySeconds"] - before["busySeconds"]
    spent_s = after["cpuSeconds"] - before["cpuSeconds"]
    assert spent_s > 0.2 * busy_s
    assert sum(row[2] for row in after["batches"]) == 6
    assert replica.metric("inference_requests_in_flight") == 0


@pytest.mark.parametrize("is_asked", [pytest.param(True, id="at work"), pytest.param(False, id="idle")])
def test_an_engine_that_is_killed_ends_the_replica_and_nobody_hangs(
    start: Callable[..., Replica], is_asked: bool
) -> None:
    replica = start("long.pt2", **TWO, EVENKEEL_DRAIN_DELAY_S="3")
    replica.await_ready()
    engines = engines_of(replica)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(at_once, replica, 8) if is_asked else None
        if is_asked:
            until = time.monotonic() + PATIENCE_S
            while replica.metric("inference_requests_in_flight") < 8:
                assert time.monotonic() < until
                time.sleep(0.01)
        os.kill(engines[0], signal.SIGKILL)
        replica.await_status("/v2/health/ready", 503)
        got = asked.result() if asked is not None else []
    assert set(got) <= {200, 503}
    assert got.count(200) >= (1 if is_asked else 0), "the other engine goes on while the replica drains"
    assert replica.wait() == 1
    report = replica.report()
    assert isinstance(report, contract.Failed)
    assert (report.reason, "has ended: killed by signal 9" in report.message) == (Reason.ENGINE_LOST, True)
    await_gone(engines)


def test_what_was_admitted_is_answered_before_the_engines_end(start: Callable[..., Replica]) -> None:
    replica = start("long.pt2", **TWO)
    replica.await_ready()
    engines = engines_of(replica)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(at_once, replica, 5)
        until = time.monotonic() + PATIENCE_S
        while replica.metric("inference_requests_in_flight") < 5:
            assert time.monotonic() < until
            time.sleep(0.01)
        for pid in (replica.process.pid, *engines):  # as who ends a whole control group does
            os.kill(pid, signal.SIGTERM)
        assert asked.result() == [200] * 5
    assert replica.wait() == 0
    await_gone(engines)


def test_engines_end_with_a_front_that_is_killed(start: Callable[..., Replica]) -> None:
    replica = start("perceptron.pt2", **TWO)
    replica.await_ready()
    engines = engines_of(replica)
    replica.kill()
    await_gone(engines)


@pytest.mark.parametrize(
    ("environment", "want"),
    [
        pytest.param({}, Reason.LOAD_FAILED, id="a model that does not run"),
        pytest.param({"EVENKEEL_MODEL_SHA256": "0" * 64}, Reason.MODEL_CHANGED, id="another one than was pinned"),
        pytest.param({"EVENKEEL_MODEL_FORMAT": "Sklearn"}, Reason.FORMAT_REFUSED, id="another format"),
        pytest.param({"EVENKEEL_ENGINES": "65"}, Reason.INVALID, id="more engines than there are GPUs in a node"),
    ],
)
def test_what_one_engine_refuses_so_do_two(
    start: Callable[..., Replica], environment: dict[str, str], want: Reason
) -> None:
    replicas = [start("unrunnable.pt2", **{**told, **environment}) for told in ({}, TWO)]
    if "EVENKEEL_ENGINES" in environment:
        replicas = replicas[1:]
    reports = []
    for replica in replicas:
        assert replica.wait() == 1
        reports.append(replica.report())
    assert all(isinstance(report, contract.Failed) and report.reason == want for report in reports), reports
    assert all(report == reports[0] for report in reports)


def test_weights_are_in_memory_once(start: Callable[..., Replica], model_dir: Path) -> None:
    """Each engine maps the same file, whose pages are shared until one of them is written to."""
    replica = start("long.pt2", **TWO)
    replica.await_ready()
    size = (model_dir / "long.pt2").stat().st_size
    inodes = set()
    for pid in engines_of(replica):
        maps = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "memfd:model" in line]
        assert maps
        low, high = (int(address, 16) for address in maps[0][0].split("-"))
        assert high - low >= size
        inodes.add(maps[0][4])
    assert len(inodes) == 1


def test_texts_come_and_go(start: Callable[..., Replica], tmp_path: Path) -> None:
    from tests.system.runtime.saved import FORMATS

    saved = FORMATS["Sklearn"].save(tmp_path, tmp_path)
    answers = []
    for told in ({}, TWO):
        replica = Replica(saved.path, tmp_path / "termination", {**saved.told, **told})
        try:
            replica.await_ready()
            inputs = replica.ask("GET", "/v2/models/m").json["inputs"]
            rows = np.linspace(0, 1, 3 * inputs[0]["shape"][1]).tolist()
            shape = [3, inputs[0]["shape"][1]]
            tensor = {"name": inputs[0]["name"], "datatype": inputs[0]["datatype"], "shape": shape, "data": rows}
            answer = replica.infer(json.dumps({"inputs": [tensor]}).encode())
            assert answer.status == 200, answer.body
            answers.append(answer.json["outputs"])
        finally:
            replica.kill()
    assert answers[0] == answers[1]
