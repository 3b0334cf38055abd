"""Can people see what a replica does: trace contexts, spans, profiles, Triton's metric names; and nothing unasked?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.system.runtime.replica import PATIENCE_S, Replica, binary_header

IMAGE = np.ones((2, 12), np.float32)
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Collector:
    """Takes spans as OTLP's collectors do: protobuf over HTTP."""

    def __init__(self) -> None:
        spans: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        spans.extend(scope.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.spans = spans
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def await_spans(self, count: int) -> list[Any]:
        until = time.monotonic() + PATIENCE_S
        while len(self.spans) < count:
            assert time.monotonic() < until, f"{len(self.spans)} spans came, not {count}"
            time.sleep(0.05)
        return list(self.spans)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.close()


def infer(replica: Replica, **headers: str) -> Any:
    return replica.infer_binary(binary_header(IMAGE), IMAGE.tobytes(), **headers)


@pytest.mark.parametrize(
    ("given", "want"),
    [
        pytest.param({"traceparent": PARENT}, {"traceparent": PARENT}, id="the parent alone"),
        pytest.param(
            {"traceparent": PARENT, "tracestate": "a=1,b=2"},
            {"traceparent": PARENT, "tracestate": "a=1,b=2"},
            id="the parent and its state",
        ),
        pytest.param({"traceparent": "00-what-ever-01"}, {}, id="a malformed one is none"),
        pytest.param({"tracestate": "a=1"}, {}, id="a state without a parent is none"),
        pytest.param({}, {}, id="none"),
    ],
)
def test_trace_context_comes_back_with_the_answer(
    perceptron: Replica, given: dict[str, str], want: dict[str, str]
) -> None:
    answer = infer(perceptron, **given)
    assert answer.status == 200
    assert {name: value for name, value in answer.headers.items() if name.startswith("trace")} == want


def test_trace_context_comes_back_by_grpc(perceptron: Replica) -> None:
    asked = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[IMAGE.tobytes()])
    asked.inputs.add(name="image", datatype="FP32", shape=IMAGE.shape)
    with grpc.insecure_channel(f"127.0.0.1:{perceptron.grpc_port}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        _, call = stub.ModelInfer.with_call(asked, metadata=(("traceparent", PARENT),))
    assert dict(call.trailing_metadata())["traceparent"] == PARENT


def test_what_is_off_is_not_there(perceptron: Replica) -> None:
    assert perceptron.ask("GET", "/debug/profile?seconds=0.1").status == 404
    assert b"nv_inference" not in perceptron.ask("GET", "/metrics").body


def test_spans_profiles_and_tritons_names(start: Callable[..., Replica], collector: Collector) -> None:
    replica = start(
        "perceptron.pt2",
        EVENKEEL_PROFILE="true",
        EVENKEEL_TRITON_METRICS="true",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.server.server_port}",
        OTEL_BSP_SCHEDULE_DELAY="50",
    )
    replica.await_ready()
    assert infer(replica, traceparent=PARENT).status == 200
    spans = {span.name: span for span in collector.await_spans(3)}
    assert {span.trace_id.hex() for span in spans.values()} == {PARENT.split("-")[1]}
    request, queue, forward = (spans[name] for name in ("infer", "queue", "forward"))
    assert request.parent_span_id.hex() == PARENT.split("-")[2]
    assert queue.parent_span_id == forward.parent_span_id == request.span_id
    times = [request.start_time_unix_nano, queue.start_time_unix_nano, queue.end_time_unix_nano]
    times += [forward.start_time_unix_nano, forward.end_time_unix_nano, request.end_time_unix_nano]
    assert times == sorted(times)
    assert abs(times[0] / 1e9 - time.time()) < PATIENCE_S
    assert {a.key: a.value.int_value for a in forward.attributes} == {"batch.rows": 2}

    assert infer(replica, **{"content-type": "text/html"}).status == 415
    refused = collector.await_spans(4)[3]
    assert {a.key: a.value.int_value for a in refused.attributes}["http.response.status_code"] == 415
    assert refused.status.code == 0  # the client's fault is no error of the server's

    for name, want in (("request_success", 1), ("request_failure", 1), ("count", 2), ("exec_count", 1)):
        assert replica.metric(f"nv_inference_{name}") == want, name
    for name in ("request_duration_us", "queue_duration_us", "compute_infer_duration_us"):
        assert replica.metric(f"nv_inference_{name}") > 0, name

    found = replica.ask("GET", "/debug/profile?seconds=0.2")
    assert found.status == 200
    assert b"evenkeel_runtime.serve.server." in found.body
    assert replica.ask("GET", "/debug/profile?seconds=1000").status == 400
    replica.terminate()
    assert replica.wait() == 0
