"""Is the example's model as good as it says, and is its folder served as transformers answers?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from evenkeel_runtime.config import Model
from evenkeel_runtime.models.recognised import recognised_folder
from examples.transformers_languages import train
from tests.system.examples.recognised import recognised
from tests.unit.runtime.pretrained_folders import files_of, texts
from tests.unit.runtime.statedicts import bundle


def test_a_run_leaves_a_folder_that_answers_as_transformers_does_and_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "EPOCHS", 1)
    monkeypatch.setattr(train, "ACCURACY_FLOOR", 0.0)
    out = tmp_path / "out"
    train.main(["--out", str(out)])
    first, second, _ = capsys.readouterr().out.splitlines()
    trained, heldout = (int(word) for word in first.split() if word.isdigit())
    assert trained > 2000
    assert heldout > 200
    assert float(second.split()[-1]) > 1.5 / len(train.LANGUAGES)

    assert recognised(out / "languages") == "Transformers"
    loaded = recognised_folder(bundle(files_of(out / "languages")), Model("Transformers", "", False)).load("cpu")
    assert loaded.signature.classes == train.LANGUAGES
    (tensor,) = json.loads((out / "request.json").read_text(encoding="utf-8"))["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("text", "BYTES", [len(train.LANGUAGES)])
    expected = json.loads((out / "expected.json").read_text())
    assert expected["truth"] == list(train.LANGUAGES)
    given: torch.Tensor = texts(*tensor["data"])  # type: ignore[assignment]  # as `Call` says of BYTES
    with torch.no_grad():
        label, _, logits = loaded.call(given)
    assert [name.decode() for name in label.tolist()] == expected["label"]
    np.testing.assert_allclose(logits.numpy(), expected["logits"], atol=1e-5)


def test_no_held_out_message_was_seen_in_any_language() -> None:
    split = train.load()
    assert not {sentence.text for sentence in split.train} & {sentence.text for sentence in split.heldout}
    assert {sentence.language for sentence in split.heldout} == set(range(len(train.LANGUAGES)))


def test_a_model_below_the_floor_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "EPOCHS", 1)
    monkeypatch.setattr(train, "ACCURACY_FLOOR", 1.01)
    with pytest.raises(SystemExit, match="nothing was written"):
        train.main(["--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--out", __file__])
    assert "error: --out" in capsys.readouterr().err
