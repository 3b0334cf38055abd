"""Is a file of Keras served as Keras answers, and refused before it has a replica where it would run code?"""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from evenkeel_runtime.models.keras import imported
from examples.digits import data
from tests.cluster.installation import wait_answering
from tests.cluster.place import Place
from tests.cluster.state import Cluster
from tests.unit.runtime.keras_files import HOSTILE, good

pytestmark = pytest.mark.cluster

NODE_PORT = 30082
PATIENCE_S = 300
"""The import of Keras, on a busy machine, once per replica."""
EPOCHS = 2


def test_the_examples_model_answers_as_keras_does(here: Place, cluster: Cluster) -> None:
    imported()
    from examples.keras_digits import train

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras' own ways with numpy
        split = data.load()
        train.write(train.fit(split, EPOCHS), split, here.folder)
    body = (here.folder / "request.json").read_bytes()
    want = json.loads((here.folder / "expected.json").read_bytes())["probabilities"]

    digits = here.deployment("digits")
    digits.apply(here.spec("digits.keras"))
    digits.wait("Serving", timeout_s=PATIENCE_S)
    status = digits.get()["status"]
    assert status["model"]["format"] == "Keras"
    assert status["model"]["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 28, 28, 1]}]
    assert status["model"]["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}]

    digits.expose(NODE_PORT)
    port = cluster.node_ports[str(NODE_PORT)]
    wait_answering(digits, port, body)
    (answer,) = digits.predict(port, body)["outputs"]
    np.testing.assert_allclose(np.reshape(answer["data"], (10, 10)), want, atol=1e-5)


def test_a_file_with_a_lambda_is_refused_by_name(here: Place) -> None:
    here.put(hostile__keras=HOSTILE["a Lambda layer"].build(good(), here.folder / "canary"))
    hostile = here.deployment("hostile")
    hostile.apply(here.spec("hostile.keras"))
    assert "Lambda" in hostile.wait("FormatRefused", timeout_s=PATIENCE_S)
    assert not (here.folder / "canary").exists()
