"""Does every client get its own rows, and does the server stay responsive while the model runs?"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from evenkeel_runtime.contract import SIGNALS_PATH
from tests.system.runtime.replica import Replica, binary_header, read_answer, request_bytes


def long_request() -> bytes:
    import json

    body = json.dumps({"inputs": [{"name": "row", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}).encode()
    return request_bytes("POST", "/v2/models/m/infer", body)


def await_metric(replica: Replica, name: str, value: float) -> None:
    until = time.monotonic() + 120
    while replica.metric(name) != value:
        assert time.monotonic() < until, f"{name} is {replica.metric(name)}, not {value}"


@pytest.mark.parametrize(
    "told",
    [pytest.param({}, id="in one process"), pytest.param({"EVENKEEL_ENGINES": "2"}, id="by two engines")],
)
def test_rows_are_never_mixed_up(start: Callable[..., Replica], model_dir: Path, told: dict[str, str]) -> None:
    """Each client sends rows of its own, in batches of changing size, and knows the answers."""
    replica = start("perceptron.pt2", **told)
    replica.await_ready()
    from tests.unit.runtime.test_export import loaded

    model = loaded((model_dir / "perceptron.pt2").read_bytes())
    import torch

    def client(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(40):
            image = random.random((int(random.integers(1, 9)), 12), dtype=np.float32)
            answer = replica.rows(image)
            assert answer.status == 200
            got = np.frombuffer(answer.tensors, np.float32).reshape(-1, 3)
            with torch.inference_mode():
                want = model.call(torch.from_numpy(image))[0].numpy()
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(client, seed) for seed in range(16)]:
            future.result()


def test_without_batching_every_row_has_a_call_of_its_own(start: Callable[..., Replica], model_dir: Path) -> None:
    import torch

    from tests.unit.runtime.test_export import loaded

    replica = start("perceptron.pt2", EVENKEEL_MAX_BATCH_SIZE="1")
    replica.await_ready()
    parameters = replica.ask("GET", "/v2/models/m").json["parameters"]
    assert (parameters["max_batch_size"], parameters["precision"]) == (1, "FP32")
    image = np.random.default_rng(0).random((5, 12), dtype=np.float32)
    with torch.inference_mode():
        want = loaded((model_dir / "perceptron.pt2").read_bytes()).call(torch.from_numpy(image))[0].numpy()
    got = np.frombuffer(replica.rows(image).tensors, np.float32).reshape(-1, 3)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_health_answers_while_a_long_forward_runs(start: Callable[..., Replica]) -> None:
    replica = start("long.pt2")
    replica.await_ready()
    assert replica.ask("GET", "/v2/models/m").json["parameters"]["execution_mode"] == "thread"
    answered = threading.Event()
    took: list[float] = []

    def ask() -> None:
        began = time.monotonic()
        assert (
            replica.infer(
                {"inputs": [{"name": "row", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
            ).status
            == 200
        )
        took.append(time.monotonic() - began)
        answered.set()

    asking = threading.Thread(target=ask)
    asking.start()
    waits: list[float] = []
    with replica.connect() as stream:
        while not answered.is_set():
            began = time.monotonic()
            stream.sendall(request_bytes("GET", "/v2/health/ready"))
            assert read_answer(stream)[0] == 200
            waits.append(time.monotonic() - began)
    asking.join()
    assert len(waits) > 10  # were health waiting for the model, there would be one or two
    assert sorted(waits)[len(waits) // 2] < took[0] / 10


def test_client_that_left_costs_no_forward(start: Callable[..., Replica]) -> None:
    replica = start("long.pt2")
    replica.await_ready()
    with replica.connect() as running:
        running.sendall(long_request())
        await_metric(replica, "inference_requests_in_flight", 1)
        with replica.connect() as leaving:
            leaving.sendall(long_request())
            await_metric(replica, "inference_requests_in_flight", 2)
        await_metric(replica, "inference_cancelled_total", 1)
        assert sum(replica.admin("GET", SIGNALS_PATH).json["latency"]["counts"]) == 1, "as long as it has waited"
        assert read_answer(running)[0] == 200
    await_metric(replica, "inference_requests_in_flight", 0)
    assert replica.metric("inference_batch_size_count") == 1
    assert replica.metric("inference_rows_total") == 1


def test_full_queue_sends_newcomers_away_and_time_limits_hold(start: Callable[..., Replica]) -> None:
    replica = start("long.pt2", EVENKEEL_MAX_QUEUED_ROWS="1")
    replica.await_ready()
    with replica.connect() as first, replica.connect() as second, replica.connect() as third:
        first.sendall(long_request())
        await_metric(replica, "inference_requests_in_flight", 1)
        second.sendall(long_request().replace(b"Host: t\r\n", b"Host: t\r\nX-Request-Timeout-Ms: 1\r\n"))
        await_metric(replica, "inference_requests_in_flight", 2)
        third.sendall(long_request())
        status, head, _ = read_answer(third)
        assert status == 429
        assert b"retry-after: " in head
        assert read_answer(first)[0] == 200
        assert read_answer(second)[0] == 504
    assert replica.metric("inference_rejected_total") == 2


def test_few_rows_fill_the_queue_where_they_are_large(start: Callable[..., Replica]) -> None:
    replica = start("long.pt2", EVENKEEL_MAX_QUEUED_BYTES=str(len(long_request())))
    replica.await_ready()
    with replica.connect() as first, replica.connect() as second, replica.connect() as third:
        for stream, count in ((first, 1), (second, 2)):
            stream.sendall(long_request())
            await_metric(replica, "inference_requests_in_flight", count)
        third.sendall(long_request())
        status, head, body = read_answer(third)
        assert status == 429
        assert b"retry-after: " in head
        assert b"bytes" in body
        assert [read_answer(first)[0], read_answer(second)[0]] == [200, 200]


def test_several_inputs_and_outputs(start: Callable[..., Replica]) -> None:
    replica = start("several.pt2")
    replica.await_ready()
    left = np.arange(12, dtype=np.float32).reshape(2, 6)
    entries = []
    for name in ("right", "left"):  # the client's order is not the model's
        entries.append({**binary_header(left)["inputs"][0], "name": name})
    header = {"inputs": entries, "outputs": [{"name": "where"}, {"name": "best", "parameters": {"binary_data": True}}]}
    answer = replica.infer_binary(header, (left * 0).tobytes() + left.tobytes())
    assert answer.status == 200
    assert answer.json["outputs"][0] == {"name": "where", "datatype": "INT64", "shape": [2], "data": [5, 5]}
    assert np.frombuffer(answer.tensors, np.float32).tolist() == [5.0, 11.0]


def test_torch_s_threads_wait_briefly_for_work(model_dir: Path) -> None:
    """What torch's own OpenMP has read is told by it: nothing in the process may import torch before that is said."""
    script = (
        "import sys; from pathlib import Path; from evenkeel_runtime.config import Model; "
        "from evenkeel_runtime.serve.loading import load; load(Path(sys.argv[1]), Model('Auto', '', False), 8)"
    )
    silent = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    environment = {name: value for name, value in os.environ.items() if name not in silent}
    done = subprocess.run(
        [sys.executable, "-c", script, str(model_dir / "perceptron.pt2")],
        env=environment | {"OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    counts = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    assert counts, done.stderr
    assert set(counts) == {"2000"}
