"""Does every request get the right answer, and every bad one the right error, with the server serving on?"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.system.runtime.replica import Replica, binary_header

IMAGE: NDArray[np.float32] = np.arange(24, dtype=np.float32).reshape(2, 12) / np.float32(24)


def document(**change: Any) -> dict[str, Any]:
    """Return a good request with some fields of its input changed (None: left out)."""
    entry = {"name": "image", "datatype": "FP32", "shape": [2, 12], "data": IMAGE.reshape(-1).tolist(), **change}
    return {"inputs": [{name: value for name, value in entry.items() if value is not None}]}


def test_json_and_binary_answer_the_same(perceptron: Replica) -> None:
    text = perceptron.infer({"id": "a7", **document()})
    nested = perceptron.infer(document(data=IMAGE.tolist()))
    binary = perceptron.rows(IMAGE)
    want = np.array(text.json["outputs"][0]["data"], np.float32)
    assert text.status == nested.status == binary.status == 200
    assert text.json["id"] == "a7"
    assert (text.json["model_name"], text.json["model_version"]) == ("m", "v1")
    assert text.json["outputs"][0]["shape"] == binary.json["outputs"][0]["shape"] == [2, 3]
    np.testing.assert_allclose(np.frombuffer(binary.tensors, np.float32), want, rtol=1e-5)
    np.testing.assert_allclose(np.array(nested.json["outputs"][0]["data"], np.float32), want, rtol=1e-5)


def test_binary_in_and_json_out_and_the_other_way_round(perceptron: Replica) -> None:
    header = binary_header(IMAGE)
    del header["parameters"]
    assert "data" in perceptron.infer_binary(header, IMAGE.tobytes()).json["outputs"][0]
    answer = perceptron.infer({**document(), "outputs": [{"name": "linear_1", "parameters": {"binary_data": True}}]})
    assert len(answer.tensors) == 24


def test_metadata_health_and_versions(perceptron: Replica) -> None:
    for path in (
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/m/ready",
        "/v2/models/m/versions/v1/ready",
        "/ping",
    ):
        assert perceptron.ask("GET", path).status == 200
        assert perceptron.ask("HEAD", path).body == b""
    assert "binary_tensor_data" in perceptron.ask("GET", "/v2").json["extensions"]
    found = perceptron.ask("GET", "/v2/models/m").json
    assert found["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 12]}]
    assert found["outputs"] == [{"name": "linear_1", "datatype": "FP32", "shape": [-1, 3]}]
    assert found["parameters"]["execution_mode"] in ("inline", "thread")
    assert perceptron.ask("POST", "/v2/models/m/versions/v1/infer", json.dumps(document()).encode()).status == 200


def test_kserve_v1_answers_as_the_open_inference_protocol_does(perceptron: Replica) -> None:
    want = np.frombuffer(perceptron.rows(IMAGE).tensors, np.float32).reshape(len(IMAGE), -1)
    answer = perceptron.ask("POST", "/v1/models/m:predict", json.dumps({"instances": IMAGE.tolist()}).encode())
    assert answer.status == 200
    assert np.allclose(answer.json["predictions"], want, atol=1e-6)
    assert perceptron.ask("GET", "/v1/models").json == {"models": ["m"]}
    assert perceptron.ask("GET", "/v1/models/m").json == {"name": "m", "ready": True}


BAD_JSON: dict[str, tuple[Any, int, str]] = {
    "wrong row length": (document(shape=[2, 11]), 400, "shape"),
    "wrong rank": (document(shape=[24]), 400, "shape"),
    "negative shape": (document(shape=[-2, 12]), 400, "shape"),
    "overflowing shape": (document(shape=[2**39, 12]), 400, "rows"),
    "shape beyond 64 bits": (document(shape=[2**63, 12]), 400, "shape"),
    "shape of a float": (document(shape=[2.0, 12]), 400, "shape"),
    "shape of a boolean": (document(shape=[True, 12]), 400, "shape"),
    "no shape": (document(shape=None), 400, "shape"),
    "no rows": (document(shape=[0, 12], data=[]), 400, "rows"),
    "more rows than allowed": (document(shape=[65, 12], data=[0.0] * 780), 400, "64"),
    "wrong datatype": (document(datatype="INT64"), 400, "datatype"),
    "unknown datatype": (document(datatype="FLOAT"), 400, "datatype"),
    "wrong input name": (document(name="picture"), 400, "picture"),
    "no name": (document(name=None), 400, "name"),
    "no inputs": ({}, 400, "inputs"),
    "inputs of another kind": ({"inputs": 7}, 400, "inputs"),
    "an input that is no object": ({"inputs": ["image"]}, 400, "objects"),
    "missing input": ({"inputs": []}, 400, "image is missing"),
    "input twice": ({"inputs": document()["inputs"] * 2}, 400, "twice"),
    "unknown output": ({**document(), "outputs": [{"name": "logits"}]}, 400, "logits"),
    "output twice": ({**document(), "outputs": [{"name": "linear_1"}] * 2}, 400, "twice"),
    "too few values": (document(data=[0.0] * 23), 400, "data"),
    "text for numbers": (document(data=["1"] * 24), 400, "data"),
    "null for a number": (document(data=[None] * 24), 400, "data"),
    "booleans for numbers": (document(data=[True] * 24), 400, "data"),
    "uneven lists": (document(data=[[0.0] * 12, [0.0] * 11]), 400, "data"),
    "a number too large for FP32": (document(data=[1e300] * 24), 400, "data"),
    "data of another kind": (document(data="AAAA"), 400, "data"),
    "no data": (document(data=None), 400, "data"),
    "an id of another kind": ({**document(), "id": 7}, 400, "id"),
    "parameters of another kind": ({**document(), "parameters": 7}, 400, "parameters"),
    "NaN": (json.dumps(document()).replace("0.0,", "NaN,", 1).encode(), 400, "JSON"),
    "not JSON": (b"image=1", 400, "JSON"),
    "a list": (b"[]", 400, "object"),
    "a million nested lists": (b"[" * 1_000_000, 400, "JSON"),
    "invalid UTF-8": (b'{"inputs": "\xff\xfe"}', 400, "JSON"),
    "an empty body": (b"", 400, "empty"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_bad_json_request(perceptron: Replica, name: str) -> None:
    body, status, word = BAD_JSON[name]
    answer = perceptron.infer(body)
    assert answer.status == status
    assert word in answer.json["error"]
    assert perceptron.rows(IMAGE).status == 200


def header_with(size: object = 96, shape: object = (2, 12)) -> dict[str, Any]:
    return {"inputs": [{"name": "image", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": size}}]}


BAD_BINARY: dict[str, tuple[Any, bytes, str]] = {
    "fewer bytes than the shape": (header_with(92), bytes(92), "binary_data_size"),
    "a size that is no number": (header_with("96"), bytes(96), "binary_data_size"),
    "a body shorter than its size": (header_with(), bytes(95), "bytes"),
    "a body longer than its size": (header_with(), bytes(97), "bytes"),
    "a shape of terabytes": (header_with(2**39 * 48, (2**39, 12)), bytes(8), "rows"),
    "data and binary data": ({"inputs": [{**header_with()["inputs"][0], "data": [0.0]}]}, bytes(96), "both"),
}


@pytest.mark.parametrize("name", BAD_BINARY)
def test_bad_binary_request(perceptron: Replica, name: str) -> None:
    header, tensors, word = BAD_BINARY[name]
    answer = perceptron.infer_binary(header, tensors)
    assert answer.status == 400
    assert word in answer.json["error"]
    assert perceptron.rows(IMAGE).status == 200


@pytest.mark.parametrize(
    ("length", "word"),
    [("100000", "Inference-Header-Content-Length"), ("-1", "Inference"), ("x", "Inference"), ("9" * 30, "Inference")],
)
def test_header_length_that_cannot_be(perceptron: Replica, length: str, word: str) -> None:
    answer = perceptron.infer(document(), **{"Inference-Header-Content-Length": length})
    assert answer.status == 400
    assert word in answer.json["error"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/v2/models/other/infer", {}, 404),
        ("POST", "/v2/models/m/versions/v0/infer", {}, 404),
        ("GET", "/v2/models/m/versions/v0/ready", {}, 404),
        ("GET", "/v2/models/m/nothing", {}, 404),
        ("GET", "/nothing", {}, 404),
        ("GET", "/v1/models/other", {}, 404),
        ("POST", "/v1/models/m:explain", {}, 404),
        ("GET", "/v1/models/m:predict", {}, 405),
        ("GET", "/v2/models/m/infer", {}, 405),
        ("PUT", "/v2/models/m/infer", {}, 405),
        ("POST", "/v2/health/live", {}, 405),
        ("DELETE", "/v2/models/m", {}, 405),
        ("POST", "/v2/models/m/infer", {"Content-Type": "text/csv"}, 415),
        ("POST", "/v2/models/m/infer", {"Content-Encoding": "br"}, 415),
        ("POST", "/v2/models/m/infer", {"Content-Encoding": "gzip"}, 400),
        ("POST", "/v2/models/m/infer", {"X-Request-Timeout-Ms": "soon"}, 400),
    ],
)
def test_wrong_address_method_or_type(
    perceptron: Replica, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = perceptron.ask(method, path, json.dumps(document()).encode() if method != "GET" else b"", headers)
    assert answer.status == status
    assert answer.json["error"]


def test_metrics_are_prometheus_text(perceptron: Replica) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    perceptron.rows(IMAGE)
    families = {
        family.name: family
        for family in text_string_to_metric_families(perceptron.ask("GET", "/metrics").body.decode())
    }
    for name in (
        *("inference_requests", "inference_request_duration_seconds", "inference_queue_duration_seconds"),
        *("inference_compute_duration_seconds", "inference_batch_size", "inference_rows", "inference_rejected"),
        *("inference_cancelled", "inference_requests_in_flight", "inference_queue_depth", "model_ready", "model_info"),
        *("model_load_duration_seconds", "request_preprocess_seconds", "request_predict_seconds"),
        *("request_postprocess_seconds", "process_cpu_seconds", "process_resident_memory_bytes"),
        *("process_virtual_memory_bytes", "process_open_fds", "process_max_fds", "process_start_time_seconds"),
    ):
        assert families[name].samples, name
    assert families["inference_requests_in_flight"].samples[0].value == 0
