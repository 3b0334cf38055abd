"""LitServe.

Fastest form: a request's body reaches the worker as the bytes that came in (a FastAPI dependency in the annotation of
`decode_request`), since what LitServe hands over is pickled and sent through a manager process, and bytes are the
cheapest thing to pickle; the worker parses with orjson and returns a finished response. `fast_queue` is set, though in
0.2.19 it changes nothing (LitServe#751). One worker, for there is one core. Batching (`max_batch_size=32,
batch_timeout=0`) is on for the convolution only: for the perceptron it measured slower than one call per request.

Annotations are evaluated here: FastAPI has to find them as they are.
"""

import logging
import sys
from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import Depends, Request, Response

from tests.bench.runtime.peers import FASTEST
from tests.bench.runtime.peers.tensors import LENGTH, body_of, document_of, load, of_body, of_document

PATH = "/v2/models/model/infer"


class Idiomatic(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = load(sys.argv[2])

    def decode_request(self, request: dict[str, Any]) -> Any:
        return of_document(request)

    def predict(self, x: Any) -> Any:
        return self.model(x)

    def encode_response(self, output: Any) -> dict[str, Any]:
        return document_of(output)


async def raw(request: Request) -> tuple[bytes, str | None]:
    return await request.body(), request.headers.get(LENGTH)


class Fastest(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = load(sys.argv[2])

    def decode_request(self, request: Annotated[Any, Depends(raw)]) -> Any:
        body, header = request
        return of_body(body, header), header is not None

    def predict(self, x: Any) -> Any:
        if isinstance(x, list):
            found = self.model(np.concatenate([array for array, _ in x]))
            return [(found[row : row + 1], is_binary) for row, (_, is_binary) in enumerate(x)]
        array, is_binary = x
        return self.model(array), is_binary

    def encode_response(self, output: Any) -> Response:
        body, headers = body_of(*output)
        return Response(body, headers=headers)


class Batching(Fastest):
    def batch(self, inputs: list[Any]) -> Any:
        return inputs

    def unbatch(self, output: list[Any]) -> Any:
        return output


def main() -> None:
    form, model, port = sys.argv[1:4]
    if form == FASTEST:
        batching = {} if model.endswith("mlp.pt") else {"max_batch_size": 32, "batch_timeout": 0.0}
        api = (Batching if batching else Fastest)(api_path=PATH, **batching)
        server = litserve.LitServer(api, accelerator="cpu", fast_queue=True)
        logging.disable(logging.INFO)
    else:
        server = litserve.LitServer(Idiomatic(api_path=PATH), accelerator="cpu")
    server.run(port=int(port), host="127.0.0.1", generate_client_file=False, log_level="error", access_log=False)


if __name__ == "__main__":
    main()
