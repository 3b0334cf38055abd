"""Are the feedback service's flags and environment read as its help says, and refused so that anybody finds them?"""

from __future__ import annotations

from pathlib import Path

import pytest

from evenkeel_operator.feedback.settings import DAY_S, FeedbackSettings, parse


def test_what_is_not_said_has_a_default() -> None:
    assert parse([], {}) == FeedbackSettings(
        keys_dir=Path("/etc/evenkeel/keys"),
        path=Path("/var/lib/evenkeel/feedback.db"),
        dsn="",
        port=8080,
        host="",
        horizon_s=30 * DAY_S,
        retention_s=90 * DAY_S,
        quality_s=60.0,
        is_open=False,
        namespaces=(),
        kubeconfig=None,
        log_level="INFO",
    )


def test_a_flag_wins_over_its_variable() -> None:
    environ = {"EVENKEEL_PORT": "81", "EVENKEEL_LOG_LEVEL": "DEBUG", "EVENKEEL_NAMESPACES": "x, y,"}
    got = parse(["--port=82", "--horizon-days=0.5"], environ)
    assert (got.port, got.log_level, got.namespaces, got.horizon_s) == (82, "DEBUG", ("x", "y"), DAY_S // 2)


@pytest.mark.parametrize(
    ("argv", "environ", "want"),
    [
        pytest.param(["--open"], {}, True, id="the flag"),
        pytest.param(["--open", "--port=0"], {}, True, id="the flag before another"),
        pytest.param(["--open=false"], {}, False, id="the flag that says no"),
        pytest.param([], {"EVENKEEL_OPEN": "true"}, True, id="the variable"),
        pytest.param([], {"EVENKEEL_OPEN": "false"}, False, id="the variable that says no"),
        pytest.param([], {"EVENKEEL_OPEN": ""}, False, id="a variable that is empty"),
        pytest.param(["--open=false"], {"EVENKEEL_OPEN": "true"}, False, id="the flag against the variable"),
    ],
)
def test_rights_are_asked_for_where_nobody_says_otherwise(argv: list[str], environ: dict[str, str], want: bool) -> None:
    assert parse(argv, environ).is_open is want


BAD = [
    ("--port", "web"),
    ("--port", "-1"),
    ("--port", "65536"),
    ("--log-level", "LOUD"),
    ("--log-level", "LOUD\nER"),
    ("--retention-days", "long"),
    ("--retention-days", "inf"),
    ("--retention-days", "nan"),
    ("--retention-days", "1e20"),
    ("--retention-days", "30"),
    ("--retention-days", "30.04"),
    ("--retention-days", "7"),
    ("--horizon-days", "0"),
    ("--horizon-days", "90"),
    ("--horizon-days", "89.99"),
    ("--open", "yes"),
]


@pytest.mark.parametrize("by", ["flag", "variable"])
@pytest.mark.parametrize(("flag", "value"), BAD)
def test_what_makes_no_sense_is_refused_on_one_line_by_its_names(
    flag: str, value: str, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    variable = {
        "--port": "EVENKEEL_PORT",
        "--log-level": "EVENKEEL_LOG_LEVEL",
        "--retention-days": "EVENKEEL_RETENTION_DAYS",
        "--horizon-days": "EVENKEEL_HORIZON_DAYS",
        "--open": "EVENKEEL_OPEN",
    }[flag]
    argv, environ = ([f"{flag}={value}"], {}) if by == "flag" else ([], {variable: value})
    with pytest.raises(SystemExit) as ended:
        parse(argv, environ)
    got = capsys.readouterr()
    assert (ended.value.code, got.out, got.err.count("\n")) == (2, "", 1)
    assert f"{flag} ({variable})" in got.err


def test_what_is_kept_for_long_enough_after_the_last_label_is_taken() -> None:
    got = parse(["--horizon-days=7", f"--retention-days={7 + 1 / 24 + 1e-6}"], {})
    assert got.retention_s - got.horizon_s == 3600
