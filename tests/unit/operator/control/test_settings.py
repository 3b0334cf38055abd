"""Are flags and environment read as the help says?"""

from __future__ import annotations

import pytest

from evenkeel_operator.settings import parse

IMAGE = "--runtime-image=evenkeel/runtime:1"


def test_what_is_not_said_has_a_default() -> None:
    got = parse([IMAGE], {"POD_NAME": "evenkeel-0", "POD_NAMESPACE": "evenkeel-system"})
    assert got.runtime_image == "evenkeel/runtime:1"
    assert got.namespaces == ()
    assert got.lease_namespace == "evenkeel-system"
    assert got.identity.startswith("evenkeel-0_")


def test_every_start_has_an_identity_of_its_own() -> None:
    assert parse([IMAGE], {"POD_NAME": "a"}).identity != parse([IMAGE], {"POD_NAME": "a"}).identity


def test_a_flag_wins_over_its_variable() -> None:
    environ = {"EVENKEEL_RUNTIME_IMAGE": "a", "EVENKEEL_WORKERS": "3", "EVENKEEL_NAMESPACES": "x, y,"}
    got = parse(["--workers=5", "--event-hosts=*.svc"], environ)
    assert (got.runtime_image, got.workers, got.namespaces, got.event_hosts) == ("a", 5, ("x", "y"), ("*.svc",))


@pytest.mark.parametrize(
    ("argv", "environ", "want"),
    [
        pytest.param([], {}, "--runtime-image", id="no runtime image"),
        pytest.param([IMAGE, "--workers=0"], {}, "less than 1", id="no workers"),
        pytest.param([IMAGE, "--resync-seconds=-1"], {}, "not more than 0", id="a negative time"),
        pytest.param([IMAGE], {"EVENKEEL_HTTP_PORT": "web"}, "--http-port", id="a variable that is no number"),
        pytest.param([IMAGE, "--runtime-image-pull-policy=Often"], {}, "invalid choice", id="an unknown pull policy"),
        pytest.param([IMAGE], {"EVENKEEL_LOG_LEVEL": "LOUD"}, "invalid choice", id="a variable that is no level"),
        pytest.param([IMAGE, "--http-port=70000"], {}, "not from 0 to 65535", id="a port that is none"),
    ],
)
def test_what_makes_no_sense_is_refused(
    argv: list[str], environ: dict[str, str], want: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(argv, environ)
    assert want in capsys.readouterr().err
