"""How is a replica asked the same thing by every protocol that it speaks? Tensors by name go in, tensors come out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from tests.system.runtime.replica import PATIENCE_S, Answer, Replica

Named = dict[str, NDArray[Any]]
"""Tensors by name, in the model's order; strings are arrays of `bytes`."""
WORDS = {"float32": "FP32", "float64": "FP64", "int64": "INT64", "uint8": "UINT8", "object": "BYTES"}
TYPES: dict[str, Any] = {word: np.dtype(name) for name, word in WORDS.items()}


def _entry(name: str, values: NDArray[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": WORDS[values.dtype.name], "shape": list(values.shape), **more}


def _raw(values: NDArray[Any]) -> bytes:
    return values.tobytes() if values.dtype != object else bytes(serialize_byte_tensor(values).item())


def _from_raw(raw: bytes, word: str, shape: list[int]) -> NDArray[Any]:
    found: NDArray[Any] = deserialize_bytes_tensor(raw) if word == "BYTES" else np.frombuffer(raw, TYPES[word])
    return found.reshape(shape)


def _values(values: NDArray[Any]) -> Any:
    """Return the values as JSON holds them."""
    return values.tolist() if values.dtype != object else [value.decode() for value in values.tolist()]


def _from_values(values: Any, word: str) -> NDArray[Any]:
    return np.array([value.encode() for value in values] if word == "BYTES" else values, TYPES.get(word, "f4"))


def _good(answer: Answer) -> Answer:
    assert answer.status == 200, answer.body[:1000]
    return answer


def by_json(replica: Replica, given: Named) -> Named:
    body = {"inputs": [_entry(name, values, data=_values(values)) for name, values in given.items()]}
    return {
        output["name"]: _from_values(output["data"], output["datatype"]).reshape(output["shape"])
        for output in _good(replica.infer(body)).json["outputs"]
    }


def by_binary(replica: Replica, given: Named) -> Named:
    raws = {name: _raw(values) for name, values in given.items()}
    entries = [_entry(name, values, parameters={"binary_data_size": len(raws[name])}) for name, values in given.items()]
    header = {"inputs": entries, "parameters": {"binary_data_output": True}}
    answer = _good(replica.infer_binary(header, b"".join(raws.values())))
    found, start = {}, 0
    for output in answer.json["outputs"]:
        end = start + output["parameters"]["binary_data_size"]
        found[output["name"]] = _from_raw(answer.tensors[start:end], output["datatype"], output["shape"])
        start = end
    assert start == len(answer.tensors)
    return found


def by_grpc(replica: Replica, given: Named) -> Named:
    request = service_pb2.ModelInferRequest(model_name="m")
    for name, values in given.items():
        request.inputs.add(name=name, datatype=WORDS[values.dtype.name], shape=values.shape)
        request.raw_input_contents.append(_raw(values))
    with grpc.insecure_channel(f"127.0.0.1:{replica.grpc_port}") as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=PATIENCE_S)
    return {
        output.name: _from_raw(raw, output.datatype, list(output.shape))
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def by_v1(replica: Replica, given: Named) -> Named:
    """Ask by KServe's V1, which states no types and no name of a lone tensor: they are the model's, or FP32.

    An instance is a row. To a model whose file says nothing of its inputs it is all of them.
    """
    metadata = replica.ask("GET", "/v2/models/m").json
    if metadata["inputs"][0]["datatype"] == "ANY":
        (prediction,) = _good(v1_of(replica, [instances_of(given)])).json["predictions"]
        predictions = prediction
    else:
        predictions = _good(v1_of(replica, instances_of(given))).json["predictions"]
    outputs = metadata["outputs"]
    return {
        name: _from_values(predictions if len(outputs) == 1 else [row[name] for row in predictions], word)
        for name, word in ((output["name"], output["datatype"]) for output in outputs)
    }


def v1_of(replica: Replica, instances: list[Any]) -> Answer:
    return replica.ask("POST", "/v1/models/m:predict", json.dumps({"instances": instances}).encode())


def instances_of(given: Named) -> list[Any]:
    """Return V1's instances, one a row."""
    if len(given) == 1:
        (values,) = given.values()
        found: list[Any] = _values(values)
        return found
    return [dict(zip(given, row, strict=True)) for row in zip(*map(_values, given.values()), strict=True)]


WAYS: Mapping[str, Callable[[Replica, Named], Named]] = {
    "JSON": by_json,
    "binary": by_binary,
    "gRPC": by_grpc,
    "V1": by_v1,
}
