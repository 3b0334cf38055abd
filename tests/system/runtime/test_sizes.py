"""Does a server hold requests to the sizes that its model was exported for, before it calls the model?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from tests.system.runtime.replica import Answer, Replica
from tests.unit.runtime.models import Case, MeanOverBatch, exported, floats
from tests.unit.runtime.test_dimensions import LENGTH, both


def entries(length: int, masked: int) -> list[dict[str, Any]]:
    return [
        {"name": name, "datatype": "FP32", "shape": [1, size], "data": [1.0] * size}
        for name, size in (("x", length), ("mask", masked))
    ]


def test_every_protocol_refuses_what_torch_refuses(model_dir: Path, start: Callable[..., Replica]) -> None:
    (model_dir / "masked.pt2").write_bytes(both(LENGTH))
    replica = start("masked.pt2", speaks_grpc=True)
    replica.await_ready()

    def in_v1(length: int, masked: int) -> Answer:
        row = {"x": [1.0] * length, "mask": [1.0] * masked}
        return replica.ask("POST", "/v1/models/m:predict", json.dumps({"instances": [row]}).encode())

    assert replica.infer({"inputs": entries(4, 4)}).json["outputs"][0]["data"] == [4.0]
    assert in_v1(4, 4).json == {"predictions": [4.0]}
    for answer in (replica.infer({"inputs": entries(4, 1)}), in_v1(4, 1)):
        assert answer.status == 400
        assert "dimension 1 of [1, 1] is 1, the model takes 3 to 16" in answer.json["error"]
    client = grpc.InferenceServerClient(f"127.0.0.1:{replica.grpc_port}")
    inputs = [grpc.InferInput(entry["name"], entry["shape"], "FP32") for entry in entries(4, 1)]
    for given in inputs:
        given.set_data_from_numpy(torch.ones(*given.shape()).numpy())
    with pytest.raises(InferenceServerException, match=r"inputs\[mask\]\.shape: dimension 1 of \[1, 1\] is 1"):
        client.infer("m", inputs)
    client.close()


def test_rows_that_cannot_be_cut_are_no_more_than_the_model_takes(
    model_dir: Path, start: Callable[..., Replica]
) -> None:
    batch = torch.export.Dim("batch", max=8)
    (model_dir / "mean.pt2").write_bytes(exported(Case(MeanOverBatch, floats(4), {"row": {0: batch}})))
    replica = start("mean.pt2")
    replica.await_ready()
    for rows, want in ((8, 200), (9, 400)):
        entry = {"name": "row", "datatype": "FP32", "shape": [rows, 4], "data": [1.0] * 4 * rows}
        assert replica.infer({"inputs": [entry]}).status == want
