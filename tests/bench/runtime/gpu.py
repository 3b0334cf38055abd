"""What does a call of the model take on this machine's GPU, by each way to call it? Last line JSON.

Rows lie on the host before, and answers after. `eager` is torch as it is written, with pageable memory; `compiled` is
torch.compile's code, recorded. Three interleaved rounds, medians. Then a replica serves each model, exported, and the
rows/s that it answers are set beside those of `eager`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from evenkeel_runtime.contract import Tensor
from evenkeel_runtime.engine import cuda, paths
from evenkeel_runtime.engine.measure import made_up
from evenkeel_runtime.models.loaded import Loaded, Signature
from tests.system.runtime.replica import Replica, request_bytes
from tests.system.runtime.saved import export

ROUNDS, CALLS = 3, 200
SIZES = (1, 32)


class Encoder(nn.Module):
    """Four layers of a transformer over 64 steps."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True, dropout=0.0)
        self.layers = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.answer = nn.Linear(256, 10)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.answer(self.layers(input)[:, 0])
        return found


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def convolution() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 10), nn.Softmax(1),
    )  # fmt: skip


def residual() -> nn.Module:
    import torchvision

    return nn.Sequential(torchvision.models.resnet18())


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (perceptron, (784,)),
    "cnn": (convolution, (1, 28, 28)),
    "encoder": (Encoder, (64, 256)),
    "resnet18": (residual, (3, 224, 224)),
}


class Listed(nn.Module):
    """A model that answers with a list, as those that are served do."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, rows: torch.Tensor) -> list[torch.Tensor]:
        return [self.module(rows)]


def ways(module: nn.Module, shape: tuple[int, ...]) -> tuple[dict[str, Callable[..., Any]], Loaded, dict[str, float]]:
    served = Listed(module)
    tensor = Tensor("rows", "FP32", (-1, *shape))
    signature = Signature((tensor,), (Tensor("answer", "FP32", (-1, 10)),), 0, ((1, *shape),))
    loaded = Loaded("bench", "bench", signature, served, cuda.DEVICE, traceable=True)
    took: dict[str, float] = {}
    found: dict[str, Callable[..., Any]] = {
        "eager": lambda rows: [served(rows.to(cuda.DEVICE))[0].cpu()],
        "launched": cuda.OnGpu(served, None, records=False),
        "recorded": cuda.OnGpu(served, 1024, records=True),
    }
    begun = time.perf_counter()
    for path, way in paths._traced(loaded, 3, is_long=False).items():
        found[path] = cuda.OnGpu(way, 1024, records=True)
    took["trace_s"] = time.perf_counter() - begun
    begun = time.perf_counter()
    try:
        compiled = torch.compile(served, dynamic=False)
        for size in SIZES:
            compiled(torch.zeros(size, *shape, device=cuda.DEVICE))
    except Exception as error:  # noqa: BLE001 - what the compiler lacks here is part of the answer
        print(f"not compiled: {str(error)[:300]}")
    else:
        found["compiled"] = cuda.OnGpu(compiled, 1024, records=True)
    took["compile_s"] = time.perf_counter() - begun
    return found, loaded, took


def seconds(call: Callable[..., Any], rows: list[torch.Tensor]) -> float:
    found = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        call(*rows)
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def served_by_replica(module: nn.Module, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return rows/s of the served model by how many connections ask for a row each, and of 32 rows at once."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        export(module, np.zeros((4, *shape), np.float32), "input", path / "m.pt2")
        replica = Replica(path / "m.pt2", path / "termination", {})
        try:
            replica.await_ready()
            found["path"] = replica.ask("GET", "/v2/models/m").json["parameters"]["call_path"]
            for connections, rows in ((1, 1), (32, 1), (128, 1), (4, 32)):
                data = np.random.default_rng(0).random((rows, *shape), np.float32)
                entry: dict[str, Any] = {"name": "input", "datatype": "FP32", "shape": list(data.shape)}
                entry["parameters"] = {"binary_data_size": data.nbytes}
                text = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
                more = f"Inference-Header-Content-Length: {len(text)}\r\n"
                request = request_bytes("POST", "/v2/models/m/infer", text + data.tobytes(), more)
                (path / "request").write_bytes(request)
                command = [sys.executable, "-m", "tests.bench.runtime.client", "127.0.0.1", str(replica.port)]
                told = subprocess.run(
                    [*command, str(path / "request"), str(connections), "3"], capture_output=True, check=True
                )
                got = json.loads(told.stdout)
                found[f"rows_per_s_{connections}x{rows}"] = round(got["requests"] / got["seconds"] * rows)
                found[f"p50_ms_{connections}x{rows}"] = round(got["p50_ms"], 3)
        finally:
            replica.kill()
    return found


def main() -> None:
    result: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    with torch.inference_mode():
        for name, (make, shape) in MODELS.items():
            torch.manual_seed(0)
            found, loaded, took = ways(make().eval().to(cuda.DEVICE), shape)
            result[name] = {word: round(value, 1) for word, value in took.items()}
            for size in SIZES:
                rows = made_up(loaded, size)
                times: dict[str, list[float]] = {way: [] for way in found}
                for call in found.values():
                    for _ in range(5):
                        call(*rows)
                for _ in range(ROUNDS):
                    for way, call in found.items():
                        times[way].append(seconds(call, rows))
                micro = {way: round(statistics.median(values) * 1e6, 1) for way, values in times.items()}
                print(f"{name:9} rows={size:3} us: {micro}", flush=True)
                result[name][str(size)] = micro
    for name, (make, shape) in MODELS.items():
        result[name]["served"] = served_by_replica(make().eval(), shape)
        print(f"{name:9} served: {result[name]['served']}", flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
