"""BentoML.

Fastest form: an ASGI application mounted into the service, which BentoML calls without its own parsing and
serialisation; it parses with orjson, calls the model on the event loop (a forward of microseconds is not worth a
thread) and answers with bytes. One worker, metrics, tracing and access logs off. BentoML's adaptive batching applies to
its own endpoints alone; it measured slower than this at any number of clients on one core.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

FORM, MODEL = "EVENKEEL_BENCH_FORM", "EVENKEEL_BENCH_MODEL"
PATH = "/v2/models/model/infer"
_QUIET = """
api_server:
  logging: {access: {enabled: false}}
  metrics: {enabled: false}
"""


def service() -> Any:
    import bentoml
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from tests.bench.runtime.peers import FASTEST
    from tests.bench.runtime.peers.tensors import LENGTH, body_of, document_of, load, of_body, of_document

    path = os.environ[MODEL]
    if os.environ[FORM] != FASTEST:

        @bentoml.service(workers=1)
        class Idiomatic:
            def __init__(self) -> None:
                self.model = load(path)

            @bentoml.api(route=PATH)
            def infer(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
                return document_of(self.model(of_document({"inputs": inputs})))

        return Idiomatic

    model = load(path)

    async def infer(request: Request) -> Response:
        header = request.headers.get(LENGTH)
        body, headers = body_of(model(of_body(await request.body(), header)), header is not None)
        return Response(body, headers=headers)

    @bentoml.service(workers=1)
    @bentoml.asgi_app(Starlette(routes=[Route(PATH, infer, methods=["POST"])]), path="/")
    class Fastest:
        pass

    return Fastest


def main() -> None:
    form, model, port = sys.argv[1:4]
    settings = Path(model).with_name("bentoml.yaml")
    settings.write_text(_QUIET)
    os.environ |= {FORM: form, MODEL: model, "BENTOML_CONFIG": str(settings), "BENTOML_DO_NOT_TRACK": "true"}
    program = f"{sys.prefix}/bin/bentoml"
    told = ["serve", f"{__spec__.name}:Service", "--host", "127.0.0.1", "--port", port, "--working-dir", os.getcwd()]
    os.execv(program, [program, *told])


if __name__ == "__main__":
    main()
elif FORM in os.environ:
    Service = service()
