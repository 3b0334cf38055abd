"""Do the limits, deadlines, cancellation and the drain hold for gRPC as they do for HTTP?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.system.runtime.replica import PATIENCE_S, Replica
from tests.system.runtime.test_engine import await_metric

ROW = np.array([[1, 2, 3, 4]], np.float32)


@pytest.fixture
def dial() -> Any:
    """Return a function that calls a replica by gRPC."""
    channels: list[grpc.Channel] = []

    def dialled(replica: Replica) -> Any:
        # By default a second attempt to connect is made after a second: long enough to load a small model.
        soon = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50)]
        channels.append(grpc.insecure_channel(f"127.0.0.1:{replica.grpc_port}", soon))
        return service_pb2_grpc.GRPCInferenceServiceStub(channels[-1])

    yield dialled
    for channel in channels:
        channel.close()


def asked(values: Any = ROW, name: str = "row") -> Any:
    found = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[values.tobytes()])
    found.inputs.add(name=name, datatype="FP32", shape=values.shape)
    return found


def failure(call: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    error = call.exception(PATIENCE_S)
    assert isinstance(error, grpc.RpcError)
    return call.code(), call.details(), dict(call.trailing_metadata())


def test_before_the_model_is_loaded_it_lives_and_says_when_to_come_back(
    start: Callable[..., Replica], dial: Callable[[Replica], Any]
) -> None:
    replica = start("long.pt2", speaks_grpc=True)
    stub = dial(replica)
    assert stub.ServerLive(service_pb2.ServerLiveRequest(), wait_for_ready=True, timeout=PATIENCE_S).live
    assert not stub.ServerReady(service_pb2.ServerReadyRequest()).ready
    code, _, trailing = failure(stub.ModelInfer.future(asked()))
    assert (code, trailing["grpc-retry-pushback-ms"]) == (grpc.StatusCode.UNAVAILABLE, "1000")


def test_full_queue_sends_newcomers_away_and_who_gave_up_costs_no_forward(
    start: Callable[..., Replica], dial: Callable[[Replica], Any]
) -> None:
    replica = start("long.pt2", speaks_grpc=True, EVENKEEL_MAX_QUEUED_ROWS="1")
    replica.await_ready()
    stub = dial(replica)
    first = stub.ModelInfer.future(asked(), timeout=PATIENCE_S)
    await_metric(replica, "inference_requests_in_flight", 1)
    second = stub.ModelInfer.future(asked(), timeout=PATIENCE_S)
    await_metric(replica, "inference_requests_in_flight", 2)
    code, message, trailing = failure(stub.ModelInfer.future(asked()))
    assert (code, "queue is full" in message) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
    assert int(trailing["grpc-retry-pushback-ms"]) >= 1000
    second.cancel()
    await_metric(replica, "inference_cancelled_total", 1)
    assert first.result().outputs[0].shape[0] == 1
    await_metric(replica, "inference_requests_in_flight", 0)
    assert replica.metric("inference_batch_size_count") == 1


def test_deadline_ends_the_wait(start: Callable[..., Replica], dial: Callable[[Replica], Any]) -> None:
    replica = start("long.pt2", speaks_grpc=True)
    replica.await_ready()
    stub = dial(replica)
    first = stub.ModelInfer.future(asked(), timeout=PATIENCE_S)
    await_metric(replica, "inference_requests_in_flight", 1)
    code, _, _ = failure(stub.ModelInfer.future(asked(), timeout=0.05))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert first.result().outputs[0].shape[0] == 1
    await_metric(replica, "inference_requests_in_flight", 0)
    assert replica.metric("inference_batch_size_count") == 1


def test_admitted_calls_are_answered_after_sigterm(
    start: Callable[..., Replica], dial: Callable[[Replica], Any]
) -> None:
    replica = start("long.pt2", speaks_grpc=True, EVENKEEL_DRAIN_DELAY_S="0")
    replica.await_ready()
    stub = dial(replica)
    calls = [stub.ModelInfer.future(asked(), timeout=PATIENCE_S) for _ in range(4)]
    await_metric(replica, "inference_requests_in_flight", 4)
    replica.terminate()
    assert [call.result().outputs[0].shape[0] for call in calls] == [1] * 4
    assert replica.wait() == 0


def test_message_beyond_the_limit_is_refused_and_others_are_not(
    start: Callable[..., Replica], dial: Callable[[Replica], Any]
) -> None:
    replica = start("perceptron.pt2", speaks_grpc=True, EVENKEEL_MAX_BODY_BYTES="100000")
    replica.await_ready()
    stub = dial(replica)
    code, _, _ = failure(stub.ModelInfer.future(asked(np.zeros((4000, 12), np.float32), "image")))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert list(stub.ModelInfer(asked(np.zeros((4, 12), np.float32), "image")).outputs[0].shape) == [4, 3]
