"""Which messages does the Open Inference Protocol's gRPC service exchange?

Written down from the protocol's description (KServe, "Open Inference Protocol", gRPC; of a model's configuration, what
Triton's model_config.proto has for it, an enumeration as the number that it is), field by field, and made into classes
when gRPC is switched on. They live in a pool of their own, where another description of the same names in the same
process, such as a client's, does not meet them.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = "GRPCInferenceService"

_TENSOR = "string name 1, string datatype 2, repeated int64 shape 3"
_ANY_TENSOR = f"{_TENSOR}, map InferParameter parameters 4, InferTensorContents contents 5"
_NAMED = "string model_name 1, string model_version 2, string id 3, map InferParameter parameters 4"
_MESSAGES = {
    "InferParameter": "one bool bool_param 1, one int64 int64_param 2, one string string_param 3, "
    "one double double_param 4, one uint64 uint64_param 5",
    "InferTensorContents": "repeated bool bool_contents 1, repeated int32 int_contents 2, "
    "repeated int64 int64_contents 3, repeated uint32 uint_contents 4, repeated uint64 uint64_contents 5, "
    "repeated float fp32_contents 6, repeated double fp64_contents 7, repeated bytes bytes_contents 8",
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready 1",
    "ModelReadyRequest": "string name 1, string version 2",
    "ModelReadyResponse": "bool ready 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name 1, string version 2, repeated string extensions 3",
    "ModelMetadataRequest": "string name 1, string version 2",
    "ModelMetadataResponse.TensorMetadata": _TENSOR,
    "ModelMetadataResponse": "string name 1, repeated string versions 2, string platform 3, "
    "repeated ModelMetadataResponse.TensorMetadata inputs 4, repeated ModelMetadataResponse.TensorMetadata outputs 5",
    "ModelConfigRequest": "string name 1, string version 2",
    "ModelConfigResponse": "ModelConfig config 1",
    "ModelConfig": "string name 1, string platform 2, int32 max_batch_size 4, repeated ModelInput input 5, "
    "repeated ModelOutput output 6",
    "ModelInput": "string name 1, int32 data_type 2, repeated int64 dims 4",
    "ModelOutput": "string name 1, int32 data_type 2, repeated int64 dims 3",
    "ModelInferRequest.InferInputTensor": _ANY_TENSOR,
    "ModelInferRequest.InferRequestedOutputTensor": "string name 1, map InferParameter parameters 2",
    "ModelInferRequest": f"{_NAMED}, repeated ModelInferRequest.InferInputTensor inputs 5, "
    "repeated ModelInferRequest.InferRequestedOutputTensor outputs 6, repeated bytes raw_input_contents 7",
    "ModelInferResponse.InferOutputTensor": _ANY_TENSOR,
    "ModelInferResponse": f"{_NAMED}, repeated ModelInferResponse.InferOutputTensor outputs 5, "
    "repeated bytes raw_output_contents 6",
}
_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    word: getattr(_FIELD, f"TYPE_{word.upper()}")
    for word in ("bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes")
}


class Messages:
    """The messages' classes, by name."""

    def __init__(self) -> None:
        pool = descriptor_pool.DescriptorPool()
        pool.Add(_file())
        for name in _MESSAGES:
            if "." not in name:
                found = pool.FindMessageTypeByName(f"{PACKAGE}.{name}")
                setattr(self, name, message_factory.GetMessageClass(found))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there is no message {name}")


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="open_inference.proto", package=PACKAGE, syntax="proto3")
    messages: dict[str, descriptor_pb2.DescriptorProto] = {}
    for name, fields in sorted(_MESSAGES.items()):  # a message sorts before those inside it
        outer, _, inner = name.rpartition(".")
        message = messages[outer].nested_type.add(name=inner) if outer else file.message_type.add(name=name)
        messages[name] = message
        for field in filter(None, fields.split(", ")):
            _add(message, f"{PACKAGE}.{name}", field.split(" "))
    return file


def _add(message: descriptor_pb2.DescriptorProto, full_name: str, words: list[str]) -> None:
    """Add a field that is written as `[repeated|map|one] TYPE NAME NUMBER`; `one` of a kind makes a oneof."""
    label, (type_, name, number) = words[0] if len(words) == 4 else "", words[-3:]
    many = label in ("repeated", "map")
    field = message.field.add(
        name=name, number=int(number), label=_FIELD.LABEL_REPEATED if many else _FIELD.LABEL_OPTIONAL
    )
    if label == "map":
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        _add(entry, "", ["string", "key", "1"])
        _add(entry, "", [type_, "value", "2"])
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{full_name}.{entry.name}"
    elif type_ in _SCALARS:
        field.type = _SCALARS[type_]
    else:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{PACKAGE}.{type_}"
    if label == "one":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
