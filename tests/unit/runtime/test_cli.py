"""Does `evenkeel check` say what the runtime would do with a file?"""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestRegressor

from evenkeel_runtime import cli, report
from evenkeel_runtime.config import Serve
from evenkeel_runtime.serve import server
from tests.unit.runtime import keras_files, models, skops_files
from tests.unit.runtime.hostile import HOSTILE
from tests.unit.runtime.test_dimensions import LENGTH, both


@pytest.fixture
def perceptron(tmp_path: Path) -> Path:
    path = tmp_path / "perceptron.pt2"
    path.write_bytes(models.perceptron())
    return path


def test_a_good_file_is_described(perceptron: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sha256 = hashlib.sha256(perceptron.read_bytes()).hexdigest()
    assert cli.check([str(perceptron), "--sha256", sha256.upper()]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "format   TorchExport"
    assert lines[2] == f"sha256   {sha256}"
    assert lines[3:5] == ["input    image  FP32 [any, 12]", "output   linear_1  FP32 [any, 3]"]
    assert lines[5] == "batches  a request may share a call with others"


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        (["--sha256", "0" * 64], "ChecksumMismatch"),
        (["--format", "TorchScript"], "FormatRefused: the file is TorchExport, spec.model.format says TorchScript"),
    ],
)
def test_what_the_spec_would_not_allow_is_refused(
    perceptron: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], want: str
) -> None:
    assert cli.check([str(perceptron), *arguments]) == 1
    assert want in capsys.readouterr().err


def test_a_skops_file_is_described_once_its_types_are_trusted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "forest.skops"
    path.write_bytes(skops_files.dumped(RandomForestRegressor(2).fit(skops_files.ROWS, skops_files.TARGET)))
    assert cli.check([str(path)]) == 1
    assert "not trusted by themselves: sklearn.tree._tree.Tree" in capsys.readouterr().err
    assert cli.check([str(path), "--trusted-type", "sklearn.tree._tree.Tree"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "format   Sklearn"
    assert lines[3:5] == ["input    input  FP64 [any, 6]", "output   prediction  FP64 [any]"]


def test_a_keras_file_is_described_and_one_with_a_lambda_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    canary, path = tmp_path / "canary", tmp_path / "m.keras"
    path.write_bytes(keras_files.good())
    assert cli.check([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "format   Keras"
    assert lines[3:5] == ["input    row  FP32 [any, 6]", "output   answer  FP32 [any, 3]"]
    path.write_bytes(keras_files.HOSTILE["a Lambda layer"].build(keras_files.good(), canary))
    assert cli.check([str(path)]) == 1
    assert "holds a Lambda, which runs code of the file's author" in capsys.readouterr().err
    assert not canary.exists()


def test_a_precision_that_the_format_is_not_computed_in_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.keras"
    path.write_bytes(keras_files.good())
    assert cli.check([str(path), "--precision", "BF16"]) == 0
    assert cli.check([str(path), "--precision", "INT8"]) == 1
    assert "or BF16, not in INT8; correct spec.runtime.precision" in capsys.readouterr().err


def test_a_hostile_file_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    canary, path = tmp_path / "canary", tmp_path / "model.pkl"
    path.write_bytes(HOSTILE["a raw pickle"].build(models.perceptron(), canary))
    assert cli.check([str(path)]) == 1
    assert "FormatRefused: the file is a pickle" in capsys.readouterr().err
    assert not canary.exists()


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        (["absent.pt2"], "there is no file and no folder absent.pt2"),
        ([__file__, "--sha256", "abc"], "--sha256 has to be 64 hex"),
    ],
)
def test_words_that_make_no_sense(capsys: pytest.CaptureFixture[str], arguments: list[str], want: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.check(arguments)
    assert ended.value.code == 2
    assert want in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        pytest.param(["--port", "8080", "--grpc-port", "8080"], "--port and --grpc-port are both 8080", id="one twice"),
        pytest.param(["--port", "65536"], "--port: '65536' is no port", id="beyond the last"),
        pytest.param(["--grpc-port", "-1"], "--grpc-port: '-1' is no port", id="before the first"),
        pytest.param(["--port", "http"], "--port: 'http' is no port", id="a word"),
        pytest.param(["--engines", "0"], "--engines: '0' is not a number of engines from 1 to 64", id="no engine"),
        pytest.param(["--engines", "65"], "--engines: '65' is not a number of engines from 1 to 64", id="too many"),
    ],
)
def test_numbers_that_cannot_be_are_named(
    perceptron: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], want: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.serve([str(perceptron), *arguments])
    assert ended.value.code == 2
    assert want in capsys.readouterr().err


@given(st.integers(1, 65535), st.none() | st.integers(1, 65535))
@example(8080, 8081)
@example(8080, 8082)
@example(65535, 65534)
@example(1, 3)
def test_the_admin_port_is_one_of_its_own(port: int, grpc_port: int | None) -> None:
    got = cli.admin_port_of(port, grpc_port)
    assert 1 <= got <= 65535
    assert got not in (port, grpc_port)


@pytest.mark.parametrize("address", ["file://{}", "file:{}", "file://localhost{}"])
def test_a_file_may_be_told_by_its_address(perceptron: Path, capsys: pytest.CaptureFixture[str], address: str) -> None:
    spaced = perceptron.rename(perceptron.with_name("two words.pt2"))
    assert cli.check([address.format(str(spaced).replace(" ", "%20"))]) == 0
    assert capsys.readouterr().out.startswith("format   TorchExport")


def test_the_sizes_that_a_request_is_held_to_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.pt2"
    path.write_bytes(both(2 * LENGTH + 1))
    assert cli.check([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    symbol = lines[5].split()[1]
    assert lines[3:6] == [
        f"input    x  FP32 [any, {symbol}]",
        f"input    mask  FP32 [any, 2*{symbol}+1]",
        f"size     {symbol}  from 3 up to 16",
    ]


def test_a_model_of_one_row_is_told_how_to_take_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.pt2"
    path.write_bytes(models.exported(models.Case(models.Perceptron, lambda rows: (torch.ones(1, 12),), None)))
    assert cli.check([str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "batches  a request is a call of its own; the model was exported for exactly 1 row a request; to let it take "
        'any number, export it with dynamic_shapes=({0: torch.export.Dim("batch")},)'
    )


def test_a_port_that_is_taken_is_named(
    perceptron: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(report.TERMINATION_LOG_ENV, "/dev/null")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.serve([str(perceptron), "--port", str(port)]) == 1
    want = (
        f"Invalid: cannot listen on port {port} of 127.0.0.1: Address already in use; free it, or choose another with"
    )
    assert want in capsys.readouterr().err


def test_serving_heeds_the_limits_of_the_environment(perceptron: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Serve] = []

    def keep(told: Serve) -> int:
        seen.append(told)
        return 0

    monkeypatch.setattr(server, "serve", keep)
    for name, value in (
        (report.TERMINATION_LOG_ENV, "/dev/null"),
        ("EVENKEEL_MAX_BODY_BYTES", "77"),
        ("EVENKEEL_PROFILE", "true"),
    ):
        monkeypatch.setenv(name, value)
    assert cli.serve([str(perceptron)]) == 0
    assert (seen[0].limits.body_bytes, seen[0].takes_profiles) == (77, True)
