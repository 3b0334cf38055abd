"""Does every example's ModelDeployment say only what can be said?"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from evenkeel_operator.api.modeldeployment import GROUP, KIND, VERSION, Spec

EXAMPLES = Path(__file__).parents[3] / "examples"
RESOURCES = sorted(str(path.relative_to(EXAMPLES)) for path in EXAMPLES.glob("*/modeldeployment*.yaml"))


def test_every_example_has_one() -> None:
    folders = {path.parent.name for path in EXAMPLES.glob("*/*.py")}
    assert {name.split("/")[0] for name in RESOURCES} == folders


@pytest.mark.parametrize("name", RESOURCES)
def test_example_resource_has_only_fields_that_exist(name: str) -> None:
    resource = yaml.safe_load((EXAMPLES / name).read_text())
    assert (resource["apiVersion"], resource["kind"]) == (f"{GROUP}/{VERSION}", KIND)
    spec = Spec.model_validate(resource["spec"])
    assert spec.model_dump(mode="json", by_alias=True, exclude_unset=True) == resource["spec"]
