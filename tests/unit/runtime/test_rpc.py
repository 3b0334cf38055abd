"""Are gRPC's messages the protocol's, and is every request by gRPC read as the same request over HTTP?"""

from __future__ import annotations

import socket
from typing import Any, cast

import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

from evenkeel_runtime.config import Limits
from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.models.datatypes import BY_WORD
from evenkeel_runtime.serve.body import BadRequest
from evenkeel_runtime.serve.messages import Messages
from evenkeel_runtime.serve.metadata import DATA_TYPES, configuration_of
from evenkeel_runtime.serve.oip import Reader
from evenkeel_runtime.serve.rpc import CONTENTS, RpcServer, document_of
from evenkeel_runtime.serve.service import Service

MESSAGES = Messages()
IN_PART = ("ModelConfigResponse", "ModelConfig", "ModelInput", "ModelOutput")
OURS = [name for name in vars(MESSAGES) if not name.startswith("_") and name not in IN_PART]


def shape_of(descriptor: Any) -> dict[str, Any]:
    """Return all that decides how a message lies on the wire."""
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.message_type.full_name if field.message_type else None,
            shape_of(field.message_type) if field.message_type else None,
        )
        for field in descriptor.fields
    }


@pytest.mark.parametrize("name", OURS)
def test_fields_are_the_published_ones(name: str) -> None:
    """Triton's client carries the protocol's description, as it was published."""
    want = shape_of(service_pb2.DESCRIPTOR.message_types_by_name[name])
    assert shape_of(getattr(MESSAGES, name).DESCRIPTOR) == want


def test_a_configuration_says_to_tritons_client_what_it_says_here() -> None:
    inputs = (Tensor("x", "FP32", (-1, 12)), Tensor("text", "BYTES", (-1,)))
    found = configuration_of("m", "pytorch", inputs, (Tensor("y", "BF16", (-1, 3)),), 64)
    for entry in (*found["input"], *found["output"]):
        entry["data_type"] = DATA_TYPES.index(entry["data_type"].removeprefix("TYPE_"))
    sent = MESSAGES.ModelConfigResponse(config=found).SerializeToString()
    got = service_pb2.ModelConfigResponse.FromString(sent).config
    kind = model_config_pb2.DataType.Name
    assert (got.name, got.platform, got.max_batch_size) == ("m", "pytorch", 64)
    assert [(one.name, kind(one.data_type), list(one.dims)) for one in got.input] == [
        ("x", "TYPE_FP32", [12]), ("text", "TYPE_STRING", [])
    ]  # fmt: skip
    assert [(one.name, kind(one.data_type), list(one.dims)) for one in got.output] == [("y", "TYPE_BF16", [3])]


def request(word: str, **more: Any) -> Any:
    found = MESSAGES.ModelInferRequest(model_name="m", id="a7", **more)
    found.inputs.add(name="x", datatype=word, shape=[1, 2])
    return found


VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "FP32": [0.5, -2.0],
    "FP64": [0.1, -2.0],
    "BYTES": [b"\xff", b""],
}


@pytest.mark.parametrize("word", BY_WORD)
def test_every_datatype_is_read_raw_and_typed(word: str) -> None:
    reader = Reader((Tensor("x", word, (-1, 2)),), (Tensor("y", "FP32", (-1,)),), True, 10)
    typed = request(word)
    if word not in CONTENTS:
        assert word in ("FP16", "BF16")
        with pytest.raises(BadRequest, match="raw_input_contents"):
            document_of(typed)
        raw = np.array([1, 2], BY_WORD[word].numpy).tobytes()
    else:
        values = VALUES.get(word, [1, 100])
        getattr(typed.inputs[0].contents, CONTENTS[word]).extend(values)
        asked = reader.read_document(*document_of(typed))
        assert (asked.plan.id, asked.arrays[0].tolist()) == ("a7", [values])
        lies = [len(value).to_bytes(4, "little") + value for value in values] if word == "BYTES" else []
        raw = b"".join(lies) or np.array(values, BY_WORD[word].numpy).tobytes()
    again = reader.read_document(*document_of(request(word, raw_input_contents=[raw])))
    if word in CONTENTS:
        assert again.arrays[0].tolist() == asked.arrays[0].tolist()
    assert again.arrays[0].shape == (1, 2)


def test_parameters_of_every_kind_reach_the_reader() -> None:
    asked = request("FP32", raw_input_contents=[bytes(8)])
    output = asked.outputs.add(name="y")
    output.parameters["classification"].int64_param = 2
    output.parameters["probabilities"].bool_param = True
    output.parameters["nothing"].SetInParent()
    document, _ = document_of(asked)
    assert document["outputs"] == [{"name": "y", "parameters": {"classification": 2, "probabilities": True}}]


def test_values_that_are_given_twice_or_not_for_every_input() -> None:
    twice = request("FP32", raw_input_contents=[bytes(8)])
    twice.inputs[0].contents.fp32_contents.extend([1, 2])
    with pytest.raises(BadRequest, match=r"x. has contents, though raw_input_contents"):
        document_of(twice)
    with pytest.raises(BadRequest, match="raw_input_contents has 2 tensors, inputs has 1"):
        document_of(request("FP32", raw_input_contents=[bytes(8), bytes(8)]))


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = RpcServer(cast(Service, None), Limits())
        with pytest.raises(ModelError, match=f"cannot listen on port {port} of 127.0.0.1: .* with --grpc-port or EVEN"):
            await server.start("127.0.0.1", port)
