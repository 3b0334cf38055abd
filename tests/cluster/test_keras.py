"""Is a file of Keras refused before it has a replica where it would run code?"""

from __future__ import annotations

import pytest

from tests.cluster.place import Place
from tests.unit.runtime.keras_files import HOSTILE, good

pytestmark = pytest.mark.cluster

PATIENCE_S = 300
"""The import of Keras, on a busy machine."""


def test_a_file_with_a_lambda_is_refused_by_name(here: Place) -> None:
    here.put(hostile__keras=HOSTILE["a Lambda layer"].build(good(), here.folder / "canary"))
    hostile = here.deployment("hostile")
    hostile.apply(here.spec("hostile.keras"))
    assert "Lambda" in hostile.wait("FormatRefused", timeout_s=PATIENCE_S)
    assert not (here.folder / "canary").exists()
