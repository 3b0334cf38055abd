"""Is what is cut out of the network what said nothing, and does the table have every version's figures?"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from examples.optimise import optimise
from tests.system.examples.recognised import recognised


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> optimise.Reader:
    monkeypatch.setattr(optimise, "EPOCHS", 4)
    monkeypatch.setattr(optimise, "TUNING_EPOCHS", 2)
    monkeypatch.setattr(optimise, "UNITS", 64)
    torch.manual_seed(0)
    return optimise.Reader(64, 64)


def test_the_smaller_network_answers_as_the_masked_one(small: optimise.Reader) -> None:
    for layer in (small.first, small.second):
        optimise.mask(layer)
    rows = torch.rand(5, 64)
    with torch.no_grad():
        want = small(rows)["logits"]
        smaller = optimise.cut(small)
        got = smaller(rows)["logits"]
    assert (smaller.first.out_features, smaller.second.out_features) == (16, 16)
    torch.testing.assert_close(got, want)


def test_units_that_are_masked_stay_so_while_the_rest_learns(small: optimise.Reader) -> None:
    for layer in (small.first, small.second):
        optimise.mask(layer)
    optimise.fit(small, optimise.load(), 1)
    assert int((small.first.weight != 0).any(1).sum()) == 16
    assert int((small.second.bias != 0).sum()) <= 16


def test_a_run_prints_a_row_for_every_version_and_leaves_both_files(
    small: optimise.Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    optimise.main(["--out", str(tmp_path)])
    _, *rows = capsys.readouterr().out.splitlines()
    got = {tuple(row.split()[:2]): [float(figure) for figure in row.split()[2:]] for row in rows}
    assert list(got) == [(name, word) for name in ("digits", "pruned") for word in ("FP32", "BF16", "INT8")]
    sizes = {name: (tmp_path / f"{name}.pt2").stat().st_size / 1e3 for name in ("digits", "pruned")}
    for (name, word), (file_kb, alone_us, shared_us, accuracy, *change) in got.items():
        assert file_kb == pytest.approx(sizes[name], abs=0.6)
        assert alone_us > 0 < shared_us
        assert accuracy > 0.6
        assert [0 < apart < 1 for apart in change] == ([] if word == "FP32" else [True])
    assert sizes["pruned"] < sizes["digits"]
    for name in sizes:
        assert recognised(tmp_path / f"{name}.pt2") == "TorchExport"
        sha256 = hashlib.sha256((tmp_path / f"{name}.pt2").read_bytes()).hexdigest()
        assert (tmp_path / f"{name}.pt2.sha256").read_text() == f"{sha256}  {name}.pt2\n"


def test_a_file_is_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        optimise.main(["--out", __file__])
    assert "error: --out" in capsys.readouterr().err
