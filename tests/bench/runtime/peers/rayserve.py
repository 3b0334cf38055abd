"""Ray Serve.

Fastest form: the deployment is called with Starlette's request itself, not through FastAPI, parses with orjson and
returns a finished response; access logs are off, one replica on the one core, with room for 100 requests at a time so
that the proxy never holds any back. Batching (`@serve.batch`, 32 rows, no wait) is on for the convolution only: for the
perceptron the queue costs more than the calls it saves.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from tests.bench.runtime.peers import FASTEST
from tests.bench.runtime.peers.tensors import LENGTH, body_of, document_of, load, of_body, of_document

PATH = "/v2/models/model/infer"
_PATIENCE = {"RAY_raylet_start_wait_time_s": "300", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
"""On one core that is busy with other things, Ray's processes need longer to find each other than it waits for them."""


@serve.deployment
class Idiomatic:
    def __init__(self, path: str) -> None:
        self.model = load(path)

    async def __call__(self, request: Request) -> dict[str, Any]:
        return document_of(self.model(of_document(await request.json())))


@serve.deployment(max_ongoing_requests=100)
class Fastest:
    def __init__(self, path: str) -> None:
        self.model = load(path)
        self.shares = not path.endswith("mlp.pt")

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.0)
    async def together(self, arrays: list[Any]) -> list[Any]:
        found = self.model(np.concatenate(arrays))
        return [found[row : row + 1] for row in range(len(arrays))]

    async def __call__(self, request: Request) -> Response:
        header = request.headers.get(LENGTH)
        array = of_body(await request.body(), header)
        answer = await self.together(array) if self.shares else self.model(array)
        body, headers = body_of(answer, header is not None)
        return Response(body, headers=headers)


def main() -> None:
    form, model, port = sys.argv[1:4]
    os.environ |= _PATIENCE
    ray.init(num_cpus=1, include_dashboard=False, configure_logging=False, log_to_driver=False)
    quiet = {"log_level": "ERROR", "enable_access_log": False}
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)}, logging_config=quiet)
    kind: Any = Fastest if form == FASTEST else Idiomatic
    deployment = kind.options(ray_actor_options={"num_cpus": 0}, logging_config=quiet)
    serve.run(deployment.bind(model), route_prefix=PATH)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
