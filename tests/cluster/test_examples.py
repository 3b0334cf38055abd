"""Does every example, deployed by its own resource, answer as the framework that its model was trained with?"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from tests.cluster.examples import EXAMPLES, Example
from tests.cluster.installation import wait_answering
from tests.cluster.place import CLAIM, REQUESTS, Place
from tests.cluster.state import CHECKOUT, Cluster
from tests.system.examples.recognised import recognised

pytestmark = pytest.mark.cluster

NODE_PORT = 30082
PATIENCE_S = 300
"""The import of a framework, on a busy machine, once to prepare and once per replica."""


def test_no_example_is_left_out() -> None:
    assert {example.folder for example in EXAMPLES} == {
        path.parent.name for path in (CHECKOUT / "examples").glob("*/modeldeployment.yaml")
    }


@pytest.mark.parametrize("example", [pytest.param(one, id=one.folder) for one in EXAMPLES])
def test_an_example_answers_as_its_framework_does(example: Example, here: Place, cluster: Cluster) -> None:
    asked = example.make(here.folder)
    for path in here.folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    resource = example.resource()
    spec = resource["spec"] | {"runtime": {"resources": {"requests": REQUESTS}}}
    told: dict[str, Any] = spec["model"]
    path, options = here.folder / told["uri"].removeprefix(f"pvc://{CLAIM}/"), []
    if told.get("allowNativeCode"):  # the resource has a place for the checksum, which differs from run to run
        told["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        options = ["--allow-native-code", "--sha256", told["sha256"]]
    format_ = told.get("format", "TorchExport")
    assert recognised(path, *options) == format_

    deployment = here.deployment(resource["metadata"]["name"])
    deployment.apply(spec)
    deployment.wait("Serving", timeout_s=PATIENCE_S)
    found = deployment.get()["status"]["model"]
    assert found["format"] == format_
    assert [one["name"] for one in found["inputs"]] == [one["name"] for one in json.loads(asked.body)["inputs"]]
    assert asked.want.keys() <= {one["name"] for one in found["outputs"]}
    deployment.expose(NODE_PORT)
    port = cluster.node_ports[str(NODE_PORT)]
    wait_answering(deployment, port, asked.body)
    outputs = deployment.predict(port, asked.body)["outputs"]
    got = {one["name"]: np.reshape(one["data"], one["shape"]) for one in outputs}
    for name, want in asked.want.items():
        if np.asarray(want).dtype.kind == "U":
            assert got[name].tolist() == want
        else:
            np.testing.assert_allclose(got[name], want, rtol=0, atol=1e-5)
