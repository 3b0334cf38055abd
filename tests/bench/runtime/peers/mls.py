"""MLServer.

Fastest form: no worker processes (`parallel_workers: 0`: the model is called in the server's own process, which saves
two queues per request), metrics endpoint, gzip, tracing and access logs off, adaptive batching off for the perceptron
and on for the convolution (32 rows, 2 ms). Its REST API takes no binary tensors. *route* is a custom handler, which
gives the raw request to the model's class and goes around MLServer's data plane, codecs and batching: a FastAPI route
in MLServer's process.

uvloop is held below 0.22: with newer ones MLServer 1.7.1's workers end with "no current event loop".
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import mlserver
import orjson
from fastapi import Request, Response
from mlserver.codecs import NumpyCodec
from mlserver.handlers import custom_handler
from mlserver.types import InferenceRequest, InferenceResponse

from tests.bench.runtime.peers import FASTEST, IDIOMATIC
from tests.bench.runtime.peers.tensors import LENGTH, body_of, load, of_body


class Served(mlserver.MLModel):
    async def load(self) -> bool:
        self.model = load(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        array = NumpyCodec.decode_input(payload.inputs[0])
        answer = NumpyCodec.encode_output("answer", self.model(array))
        return InferenceResponse(model_name=self.name, outputs=[answer])

    @custom_handler(rest_path="/route")
    async def route(self, request: Request) -> Response:
        header = request.headers.get(LENGTH)
        body, headers = body_of(self.model(of_body(await request.body(), header)), header is not None)
        return Response(body, headers=headers)


def main() -> None:
    form, model, port = sys.argv[1:4]
    folder = Path(model).with_name(f"mlserver-{form}-{Path(model).stem}")
    folder.mkdir(exist_ok=True)
    server: dict[str, Any] = {
        "host": "127.0.0.1",
        "http_port": int(port),
        "grpc_port": int(port) + 1,
        "metrics_port": int(port) + 2,
        "debug": False,
    }
    settings: dict[str, Any] = {
        "name": "model",
        "implementation": f"{__spec__.name}.Served",
        "parameters": {"uri": model},
    }
    if form != IDIOMATIC:
        server |= {"parallel_workers": 0, "metrics_endpoint": None, "gzip_enabled": False}
    if form == FASTEST and not model.endswith("mlp.pt"):
        settings |= {"max_batch_size": 32, "max_batch_time": 0.002}
    (folder / "settings.json").write_bytes(orjson.dumps(server))
    (folder / "model-settings.json").write_bytes(orjson.dumps(settings))
    program = f"{sys.prefix}/bin/mlserver"
    os.environ["PYTHONPATH"] = os.getcwd()
    os.execv(program, [program, "start", str(folder)])


if __name__ == "__main__":
    main()
