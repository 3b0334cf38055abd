"""How is the Open Inference Protocol spoken over gRPC?

A request becomes the document and the bytes that the same request over HTTP would be, so both are read, checked,
batched and counted alike. A gRPC request costs about ten times the CPU of a binary HTTP request, most of it in grpc's
own machinery: it is here for clients that speak nothing else. Nothing of it is imported unless a port was given.

Answers carry their values in `raw_output_contents`, whichever way the request carried its own, as Triton does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import orjson
from google.protobuf.message import DecodeError

from evenkeel_runtime import receipts
from evenkeel_runtime.config import Limits
from evenkeel_runtime.contract import Env
from evenkeel_runtime.models.datatypes import BYTES
from evenkeel_runtime.serve.body import BadRequest
from evenkeel_runtime.serve.messages import PACKAGE, SERVICE, Messages
from evenkeel_runtime.serve.metadata import DATA_TYPES, of_server
from evenkeel_runtime.serve.ports import cannot_listen
from evenkeel_runtime.serve.service import LOADING, Ready, Service
from evenkeel_runtime.serve.strings import packed
from evenkeel_runtime.serve.tracing import trace_of

if TYPE_CHECKING:
    from evenkeel_runtime.serve.oip import Array, Asked, Plan
    from evenkeel_runtime.serve.views import Outputs

CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""Which field of InferTensorContents has the values of a datatype. FP16 and BF16 have none: they travel raw."""
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
PUSHBACK = "grpc-retry-pushback-ms"
"""How gRPC says Retry-After (gRPC proposal A6)."""
_HEADERS = ("traceparent", "tracestate", receipts.ID_HEADER)
"""Metadata that say what the same headers say over HTTP."""

Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[bytes, Context], Awaitable[bytes]]


class Call:
    """One inference request by gRPC, and the one answer to it."""

    protocol = "grpc"
    succeeded: int = grpc.StatusCode.OK.value[0]
    connection: object = None
    assignment: int | None = None  # what comes by gRPC is in no draw
    within_s = 0.0

    def __init__(self, headers: dict[bytes, bytes]) -> None:
        self.headers = headers
        self.trace = trace_of(headers)
        self.abandoned: Callable[[], None] | None = None
        self.outcome: asyncio.Future[bytes | Failure] = asyncio.get_running_loop().create_future()

    def respond_head(self, head: bytes, body: bytes) -> None:
        self._end(body)

    def fail(self, status: int, message: str, more: bytes = b"") -> int:
        failure = Failure(CODES.get(status, grpc.StatusCode.UNKNOWN), message, _retry_after_ms(more))
        self._end(failure)
        code: int = failure.code.value[0]
        return code

    def _end(self, outcome: bytes | Failure) -> None:
        self.abandoned = None
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class Failure(Exception):
    def __init__(self, code: grpc.StatusCode, message: str, retry_after_ms: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.retry_after_ms = code, message, retry_after_ms


class RpcServer:
    """The gRPC side of one replica."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self._messages = Messages()
        self._answers: _Answers | None = None
        self.calls = 0
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=limits.connections,
            options=[
                ("grpc.max_receive_message_length", limits.body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", limits.header_bytes),
                ("grpc.so_reuseport", 0),
            ],
        )
        methods: dict[str, Method] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelInfer": self._infer,
        }
        handlers: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(_failing(method)) for name, method in methods.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"{PACKAGE}.{SERVICE}", handlers),))

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port; raises ModelError."""
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound = self._server.add_insecure_port(address)
        except RuntimeError as error:
            why = "it is taken, or not of this machine"  # grpc does not say, but in lines of its own on stderr
            raise cannot_listen(host, port, f"--grpc-port or {Env.GRPC_PORT}", why) from error
        await self._server.start()
        return bound

    async def stop(self, within_s: float) -> None:
        """Take no more calls and end when those under way are answered, or the time is over."""
        await self._server.stop(within_s)

    # the protocol's methods

    async def _server_live(self, request: bytes, context: Context) -> bytes:
        return self._sent(self._messages.ServerLiveResponse(live=True))

    async def _server_ready(self, request: bytes, context: Context) -> bytes:
        return self._sent(self._messages.ServerReadyResponse(ready=self._service.is_ready))

    async def _model_ready(self, request: bytes, context: Context) -> bytes:
        asked = _parsed(self._messages.ModelReadyRequest, request)
        self._require_ours(asked.name, asked.version)
        return self._sent(self._messages.ModelReadyResponse(ready=self._service.is_ready))

    async def _server_metadata(self, request: bytes, context: Context) -> bytes:
        return self._sent(self._messages.ServerMetadataResponse(**of_server()))

    async def _model_metadata(self, request: bytes, context: Context) -> bytes:
        asked = _parsed(self._messages.ModelMetadataRequest, request)
        self._require_ours(asked.name, asked.version)
        document = orjson.loads(self._require_ready().metadata)
        del document["parameters"]
        return self._sent(self._messages.ModelMetadataResponse(**document))

    async def _model_config(self, request: bytes, context: Context) -> bytes:
        asked = _parsed(self._messages.ModelConfigRequest, request)
        self._require_ours(asked.name, asked.version)
        found = dict(self._require_ready().configuration)
        for group in ("input", "output"):
            numbers = (DATA_TYPES.index(entry["data_type"].removeprefix("TYPE_")) for entry in found[group])
            found[group] = [entry | {"data_type": number} for entry, number in zip(found[group], numbers, strict=True)]
        return self._sent(self._messages.ModelConfigResponse(config=found))

    async def _infer(self, request: bytes, context: Context) -> bytes:
        begun = time.perf_counter()
        remaining = context.time_remaining()
        asked = _parsed(self._messages.ModelInferRequest, request)
        self._require_ours(asked.model_name, asked.model_version)
        call = Call(_headers(context))
        self._admit(call, asked, begun, None if remaining is None else begun + remaining, len(request))
        self.calls += 1
        try:
            outcome = await call.outcome
        finally:  # a call that the client has cancelled, or whose time is over, ends here too
            self.calls -= 1
            if call.abandoned is not None:
                call.abandoned()
        if isinstance(outcome, Failure):
            raise outcome
        if call.trace is not None:
            context.set_trailing_metadata((("traceparent", call.trace.parent), ("tracestate", call.trace.state)))
        return outcome

    def _admit(self, call: Call, asked: Any, begun: float, deadline: float | None, size: int) -> None:
        service, ready = self._service, self._service.ready
        if ready is None:
            service.reject(call, 503, "not_ready", LOADING, b"retry-after: 1\r\n", begun)
            return
        try:
            read = _read(ready, asked)
        except BadRequest as error:
            service.reject(call, error.status, "invalid", error.message, b"", begun)
            return
        if self._answers is None:
            self._answers = _Answers(self._messages.ModelInferResponse, service.name, service.version, ready.shown)
        service.admit(ready, call, read, self._answers, begun, deadline, size)

    def _require_ours(self, name: str, version: str) -> None:
        if why := self._service.not_ours(name, version):
            raise Failure(grpc.StatusCode.NOT_FOUND, why)

    def _require_ready(self) -> Ready:
        if self._service.ready is None:
            raise Failure(grpc.StatusCode.UNAVAILABLE, LOADING, "1000")
        return self._service.ready

    @staticmethod
    def _sent(message: Any) -> bytes:
        sent: bytes = message.SerializeToString()
        return sent


class _Answers:
    """Writes ModelInferResponse messages."""

    def __init__(self, response: Any, model: str, version: str, shown: Outputs) -> None:
        self._response, self._model, self._version, self._shown = response, model, version, shown

    def write(self, plan: Plan, arrays: list[Array], receipt: bytes | None = None) -> tuple[bytes, bytes]:
        message = self._response(model_name=self._model, model_version=self._version, id=plan.id or "")
        for name, word, array in self._shown.of(plan, arrays):
            message.outputs.add(name=name, datatype=word, shape=array.shape)
            message.raw_output_contents.append(packed(array) if word == BYTES else array.tobytes())
        if receipt is not None:
            message.parameters[receipts.HEADER].string_param = receipt.decode()
        return b"", message.SerializeToString()


def _failing(method: Method) -> Method:
    """Return the method with its failures told as gRPC tells them."""

    async def answered(request: bytes, context: Context) -> bytes:
        try:
            return await method(request, context)
        except Failure as failure:
            after = failure.retry_after_ms
            await context.abort(failure.code, failure.message, () if after is None else ((PUSHBACK, after),))

    return answered


def _read(ready: Ready, request: Any) -> Asked:
    """Return what a ModelInferRequest asks; raises BadRequest."""
    document, tensors = document_of(request)
    try:
        return ready.reader.read_document(document, tensors)
    except BadRequest as error:
        raise BadRequest(
            error.message.replace("parameters.binary_data_size", "raw_input_contents (its length)"), error.status
        ) from error


def document_of(request: Any) -> tuple[dict[str, Any], bytes]:
    """Return the request as JSON would say it, with the raw tensors behind it; raises BadRequest."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise BadRequest(f"raw_input_contents has {len(raw)} tensors, inputs has {len(request.inputs)}")
    inputs: list[dict[str, Any]] = []
    for number, tensor in enumerate(request.inputs):
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if raw:
            if tensor.HasField("contents"):
                raise BadRequest(f"inputs[{tensor.name[:200]}] has contents, though raw_input_contents is given")
            entry["parameters"] = {"binary_data_size": len(raw[number])}
        else:
            field = CONTENTS.get(tensor.datatype)
            if field is None:
                raise BadRequest(
                    f"inputs[{tensor.name[:200]}]: values of {tensor.datatype[:40]!r} are given in raw_input_contents"
                )
            entry["data"] = list(getattr(tensor.contents, field))
        inputs.append(entry)
    document: dict[str, Any] = {"inputs": inputs, "parameters": _parameters(request.parameters)}
    if request.id:
        document["id"] = request.id
    if request.outputs:
        document["outputs"] = [
            {"name": output.name, "parameters": _parameters(output.parameters)} for output in request.outputs
        ]
    return document, b"".join(raw)


def _parameters(given: Any) -> dict[str, Any]:
    return {
        name: getattr(value, choice)
        for name, value in given.items()
        if (choice := value.WhichOneof("parameter_choice")) is not None
    }


def _parsed(message: Any, data: bytes) -> Any:
    try:
        return message.FromString(data)
    except DecodeError as error:
        raise Failure(grpc.StatusCode.INVALID_ARGUMENT, f"the request is no {message.DESCRIPTOR.name}") from error


def _headers(context: Context) -> dict[bytes, bytes]:
    return {
        name.encode(): value if isinstance(value, bytes) else value.encode()
        for name, value in context.invocation_metadata() or ()
        if name in _HEADERS
    }


def _retry_after_ms(more: bytes) -> str | None:
    """Return what a Retry-After header says, in milliseconds."""
    name, _, value = more.strip().partition(b": ")
    return f"{int(value) * 1000}" if name == b"retry-after" else None
