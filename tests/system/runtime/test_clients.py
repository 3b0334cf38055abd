"""Do the clients that people have work unchanged: Triton's and KServe's, over HTTP and gRPC?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from tests.system.runtime.replica import Replica

ROOT = Path(__file__).resolve().parents[3]
KSERVE = ROOT / ".venv" / "kserve"
IMAGE: NDArray[np.float32] = np.random.default_rng(3).random((5, 12), dtype=np.float32)


@pytest.fixture
def want(perceptron: Replica) -> NDArray[np.float32]:
    return np.frombuffer(perceptron.rows(IMAGE).tensors, np.float32).reshape(-1, 3)


@pytest.fixture(params=["http", "grpc"])
def triton(request: pytest.FixtureRequest, perceptron: Replica) -> Iterator[tuple[Any, Any]]:
    """Triton's client and its module, whose two halves say the same with the same words."""
    if request.param == "http":
        client = triton_http.InferenceServerClient(f"127.0.0.1:{perceptron.port}")
        module = triton_http
    else:
        client = triton_grpc.InferenceServerClient(f"127.0.0.1:{perceptron.grpc_port}")
        module = triton_grpc
    yield client, module
    client.close()


def given(module: Any, name: str, values: Any, word: str, **more: Any) -> Any:
    found = module.InferInput(name, list(values.shape), word)
    found.set_data_from_numpy(values, **more)
    return found


def test_triton_asks_whether_it_lives_and_what_it_takes(triton: tuple[Any, Any]) -> None:
    client, _ = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m")
    assert client.is_model_ready("m", "v1")
    found, model = client.get_server_metadata(), client.get_model_metadata("m")
    if not isinstance(found, dict):
        assert (found.name, "classification" in found.extensions) == ("evenkeel", True)
        assert (model.name, list(model.versions), model.platform) == ("m", ["v1"], "pytorch_torchexport")
        assert (model.inputs[0].name, list(model.inputs[0].shape)) == ("image", [-1, 12])
    else:
        assert (found["name"], "classification" in found["extensions"]) == ("evenkeel", True)
        assert (model["name"], model["versions"]) == ("m", ["v1"])
        assert model["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 12]}]


def test_triton_asks_how_it_is_configured(triton: tuple[Any, Any]) -> None:
    client, module = triton
    found = client.get_model_config("m")
    if module is triton_http:
        assert (found["name"], found["max_batch_size"]) == ("m", 64)
        assert found["input"] == [{"name": "image", "data_type": "TYPE_FP32", "dims": [12]}]
        return
    assert (found.config.name, found.config.max_batch_size) == ("m", 64)
    assert [(one.name, list(one.dims)) for one in found.config.output] == [("linear_1", [3])]


def test_triton_infers(triton: tuple[Any, Any], want: NDArray[np.float32]) -> None:
    client, module = triton
    answer = client.infer("m", [given(module, "image", IMAGE, "FP32")], request_id="a7")
    np.testing.assert_allclose(answer.as_numpy("linear_1"), want, rtol=1e-5)
    asked = [module.InferRequestedOutput("linear_1", class_count=2)]
    best = client.infer("m", [given(module, "image", IMAGE, "FP32")], outputs=asked).as_numpy("linear_1")
    assert best.shape == (5, 2)
    assert [int(text.split(b":")[1]) for text in best[:, 0]] == want.argmax(1).tolist()
    assert [float(text.split(b":")[0]) for text in best[:, 0]] == pytest.approx(want.max(1).tolist(), abs=1e-6)


@pytest.mark.parametrize("word", ["gzip", "deflate"])
def test_triton_compresses(perceptron: Replica, want: NDArray[np.float32], word: str) -> None:
    client = triton_http.InferenceServerClient(f"127.0.0.1:{perceptron.port}")
    asked = [given(triton_http, "image", IMAGE, "FP32")]
    for _ in range(2):  # a head that came before is not read again
        answer = client.infer("m", asked, request_compression_algorithm=word, response_compression_algorithm=word)
        np.testing.assert_allclose(answer.as_numpy("linear_1"), want, rtol=1e-5)
    wrong = given(triton_http, "image", np.ascontiguousarray(IMAGE[:, :11]), "FP32")
    with pytest.raises(InferenceServerException, match="shape"):
        client.infer("m", [wrong], request_compression_algorithm=word)
    client.close()


def test_triton_infers_in_json(perceptron: Replica, want: NDArray[np.float32]) -> None:
    client = triton_http.InferenceServerClient(f"127.0.0.1:{perceptron.port}")
    image = given(triton_http, "image", IMAGE, "FP32", binary_data=False)
    asked = [triton_http.InferRequestedOutput("linear_1", binary_data=False)]
    np.testing.assert_allclose(client.infer("m", [image], outputs=asked).as_numpy("linear_1"), want, rtol=1e-5)
    client.close()


@pytest.mark.parametrize(
    ("model", "name", "values", "status", "word"),
    [
        pytest.param("other", "image", IMAGE, "NOT_FOUND", "no model 'other'", id="another model"),
        pytest.param("m", "picture", IMAGE, "INVALID_ARGUMENT", "picture", id="another input"),
        pytest.param("m", "image", IMAGE[:, :11], "INVALID_ARGUMENT", "shape", id="another shape"),
    ],
)
def test_triton_is_told_what_is_wrong(
    triton: tuple[Any, Any], model: str, name: str, values: Any, status: str, word: str
) -> None:
    client, module = triton
    with pytest.raises(InferenceServerException) as raised:
        client.infer(model, [given(module, name, np.ascontiguousarray(values), "FP32")])
    assert word in raised.value.message()
    if module is triton_grpc:
        assert raised.value.status() == f"StatusCode.{status}"


@pytest.fixture(scope="session")
def kserve_python() -> Path:
    """The interpreter of an environment with KServe's client: it pins older versions of what the operator runs on."""
    folder, stamp = KSERVE, KSERVE / "installed"
    pinned = Path(__file__).with_name("kserve-requirements.txt")
    if not stamp.exists() or stamp.read_bytes() != pinned.read_bytes():
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True)
        told = [uv, "pip", "sync", "-q", "--require-hashes", str(pinned)]
        subprocess.run(told, check=True, env={**os.environ, "VIRTUAL_ENV": str(folder)}, cwd=ROOT)
        stamp.write_bytes(pinned.read_bytes())
    return folder / "bin" / "python"


def test_kserve_asks_in_every_way_it_knows(perceptron: Replica, want: NDArray[np.float32], kserve_python: Path) -> None:
    addresses = f"http://127.0.0.1:{perceptron.port}", f"127.0.0.1:{perceptron.grpc_port}"
    told = [str(kserve_python), "-m", "tests.system.runtime.kserve_client", *addresses]
    got = json.loads(subprocess.run(told, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout.splitlines()[-1])
    assert got["v1"] == [True, True]
    assert got["rest"] == got["grpc"] == [True, True, True]
    for way in ("predictions", "json", "binary", "typed", "raw"):
        np.testing.assert_allclose(got[way], want, rtol=1e-5, err_msg=way)
