"""KServe's Python server.

Fastest form: one uvicorn worker on uvloop, no gRPC server, no latency logging, no access logs; `predict` is a
coroutine, so that it is not handed to a thread; answers are binary where the request asks for it. The SDK does not
batch.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import kserve
from kserve import InferOutput, InferRequest, InferResponse

from tests.bench.runtime.peers import FASTEST
from tests.bench.runtime.peers.tensors import load


class Served(kserve.Model):
    def __init__(self, path: str) -> None:
        super().__init__("model")
        self.model = load(path)
        self.ready = True

    async def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        found = self.model(payload.inputs[0].as_numpy())
        answer = InferOutput("answer", list(found.shape), "FP32")
        is_binary = bool(payload.use_binary_outputs)
        answer.set_data_from_numpy(found, binary_data=is_binary)
        return InferResponse("", "model", [answer], use_binary_outputs=is_binary)


def main() -> None:
    form, model, port = sys.argv[1:4]
    served = Served(model)
    if form == FASTEST:
        logging.disable(logging.INFO)
        quick = {"enable_grpc": False, "enable_latency_logging": False, "event_loop": "uvloop"}
    else:
        quick = {"grpc_port": int(port) + 1}
    kserve.ModelServer(http_port=int(port), **quick).start([served])


if __name__ == "__main__":
    main()
