"""Are the compiled example's resource and its options what they say?"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from evenkeel_operator.api.modeldeployment import Spec
from examples.compiled_digits import compile as example


def test_example_resource_has_only_fields_that_exist() -> None:
    resource = yaml.safe_load(Path(example.__file__).with_name("modeldeployment.yaml").read_text())
    spec = Spec.model_validate(resource["spec"])
    assert spec.model_dump(by_alias=True, exclude_unset=True) == resource["spec"]


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        pytest.param(["absent.pt2", "--out", "."], "error: MODEL: there is no file absent.pt2", id="no model"),
        pytest.param([__file__, "--out", __file__], "is a file; name a folder", id="no folder"),
    ],
)
def test_a_bad_option_is_named(arguments: list[str], want: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        example.main(arguments)
    assert want in capsys.readouterr().err
