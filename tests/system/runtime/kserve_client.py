"""What does KServe's own client get from a server? Run as `python -m`, it prints what it was answered, as JSON.

Run by the interpreter of an environment of its own: KServe's and Triton's clients describe the same gRPC messages, and
one process takes but one description of a name.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

IMAGE = np.random.default_rng(3).random((5, 12), dtype=np.float32)


def asked(is_binary: bool) -> InferRequest:
    image = InferInput("image", list(IMAGE.shape), "FP32")
    image.set_data_from_numpy(IMAGE, binary_data=is_binary)
    return InferRequest("m", [image], request_id="a7")


async def answers(address: str, grpc_address: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as v1:
        found["v1"] = [await v1.is_server_live(address), await v1.is_model_ready(address, "m")]
        answer = await v1.infer(address, {"instances": IMAGE.tolist()}, model_name="m")
        found["predictions"] = answer["predictions"]
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as rest:
        found["rest"] = [
            await rest.is_server_live(address),
            await rest.is_server_ready(address),
            await rest.is_model_ready(address, "m"),
        ]
        for name, is_binary in (("json", False), ("binary", True)):
            found[name] = rows(await rest.infer(address, asked(is_binary), model_name="m"))
    async with InferenceGRPCClient(grpc_address) as grpc:
        found["grpc"] = [await grpc.is_server_live(), await grpc.is_server_ready(), await grpc.is_model_ready("m")]
        for name, is_binary in (("typed", False), ("raw", True)):
            found[name] = rows(await grpc.infer(asked(is_binary)))
    return found


def rows(answer: Any) -> Any:
    assert answer.id == "a7"
    return answer.outputs[0].as_numpy().reshape(len(IMAGE), -1).tolist()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(answers(sys.argv[1], sys.argv[2]))))
