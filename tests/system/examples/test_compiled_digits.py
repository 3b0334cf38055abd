"""Does the compiled example name an option that it cannot use?"""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.compiled_digits import compile as example


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        pytest.param(["absent.pt2", "--out", "."], "error: MODEL: there is no file absent.pt2", id="no model"),
        pytest.param([__file__, "--out", __file__], "is a file; name a folder", id="no folder"),
        pytest.param([__file__, "--out", str(Path(__file__).parent)], "the model's own folder", id="onto the model"),
    ],
)
def test_a_bad_option_is_named(arguments: list[str], want: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        example.main(arguments)
    assert want in capsys.readouterr().err
