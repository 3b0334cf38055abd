"""Is a file of skops refused before it has a replica where it is not trusted, and served where it is?"""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.ensemble import RandomForestClassifier

from tests.cluster.installation import Deployment
from tests.cluster.place import Place
from tests.unit.runtime.skops_files import FEATURES, HOSTILE, LABELS, ROWS, dumped, good

pytestmark = pytest.mark.cluster

PATIENCE_S = 300
"""The import of all of scikit-learn, on a busy machine, once to prepare and once per replica."""
TREE = "sklearn.tree._tree.Tree"


def replicas(deployment: Deployment) -> list[dict[str, Any]]:
    """Return the pods that serve, without the one that prepared."""
    return [pod for pod in deployment.children() if pod["metadata"]["labels"]["evenkeel.dev/role"] == "serve"]


def test_types_are_named_trusted_and_pinned_with_the_revision(here: Place) -> None:
    here.put(forest__skops=dumped(RandomForestClassifier(3, random_state=0).fit(ROWS, LABELS)))
    forest = here.deployment("forest")
    wanted = here.spec("forest.skops")
    forest.apply(wanted)
    message = forest.wait("FormatRefused", timeout_s=PATIENCE_S)
    assert TREE in message
    assert "spec.model.trustedTypes" in message
    assert replicas(forest) == []

    wanted["model"]["trustedTypes"] = [TREE]
    forest.apply(wanted)
    forest.wait("Serving", timeout_s=PATIENCE_S)
    (pod,) = replicas(forest)
    (server,) = pod["spec"]["containers"]
    assert {"name": "EVENKEEL_TRUSTED_TYPES", "value": TREE} in server["env"]
    assert forest.get()["status"]["model"]["inputs"][0]["shape"] == [-1, FEATURES]


def test_a_file_that_calls_a_function_is_refused_by_its_name(here: Place) -> None:
    here.put(hostile__skops=HOSTILE["a call"].build(good(), here.folder / "canary"))
    hostile = here.deployment("hostile")
    hostile.apply(here.spec("hostile.skops"))
    assert "os.system" in hostile.wait("FormatRefused", timeout_s=PATIENCE_S)
    assert not (here.folder / "canary").exists()
