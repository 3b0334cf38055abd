"""Is a folder of weights served as timm answers, and refused where it is another one or holds a pickle?"""

from __future__ import annotations

import json

import numpy as np
import pytest

from examples.statedict_digits import train
from tests.cluster.installation import wait_answering
from tests.cluster.place import Place
from tests.cluster.state import Cluster

pytestmark = pytest.mark.cluster

NODE_PORT = 30082
PATIENCE_S = 300
"""The import of torchvision and timm, on a busy machine, once to prepare and once per replica."""


def test_the_examples_folder_answers_as_timm_does(here: Place, cluster: Cluster) -> None:
    split = train.load()
    train.write(train.fit(split), split, here.folder)
    for path in (here.folder / "digits").iterdir():
        path.chmod(0o644)
    (here.folder / "digits").chmod(0o755)
    body = (here.folder / "request.json").read_bytes()
    expected = json.loads((here.folder / "expected.json").read_text())

    digits = here.deployment("digits")
    wanted = here.spec("digits/")
    digits.apply(wanted)
    digits.wait("Serving", timeout_s=PATIENCE_S)
    status = digits.get()["status"]
    assert status["model"]["format"] == "StateDict"
    assert status["model"]["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 32, 32]}]

    digits.expose(NODE_PORT)
    port = cluster.node_ports[str(NODE_PORT)]
    wait_answering(digits, port, body)
    (logits,) = digits.predict(port, body)["outputs"]
    np.testing.assert_allclose(np.reshape(logits["data"], (10, 10)), expected["logits"], atol=1e-5)

    wanted["model"]["sha256"] = "ab" * 32
    digits.apply(wanted)
    assert status["model"]["digest"].removeprefix("sha256:") in digits.wait("ChecksumMismatch", timeout_s=PATIENCE_S)


def test_a_folder_with_a_pickle_is_refused_by_its_name(here: Place) -> None:
    (here.folder / "bert").mkdir(mode=0o755)
    for name, data in {"config.json": b'{"architecture": "test_resnet"}', "pytorch_model.bin": b"\x80\x04N."}.items():
        path = here.folder / "bert" / name
        path.write_bytes(data)
        path.chmod(0o644)
    bert = here.deployment("bert")
    bert.apply(here.spec("bert"))
    assert "pytorch_model.bin" in bert.wait("FormatRefused", timeout_s=PATIENCE_S)
