"""Does the example put sentences of one subject near each other, and is its folder served as transformers answers?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from evenkeel_runtime.config import Model
from evenkeel_runtime.models.recognised import recognised_folder
from examples.transformers_docstrings import train
from tests.system.examples.recognised import recognised
from tests.unit.runtime.pretrained_folders import files_of, texts
from tests.unit.runtime.statedicts import bundle


@pytest.mark.usefixtures("one_thread")
def test_a_run_leaves_a_folder_that_answers_as_transformers_does_and_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "EPOCHS", 2)
    monkeypatch.setattr(train, "SCORE_FLOOR", 0.0)
    out = tmp_path / "out"
    train.main(["--out", str(out)])
    first, second, _ = capsys.readouterr().out.splitlines()
    trained, heldout = (int(word) for word in first.split() if word.isdigit())
    assert trained > 2000
    assert heldout > 500
    assert float(second.split()[-1]) > 0.4

    assert recognised(out / "docstrings") == "Transformers"
    loaded = recognised_folder(bundle(files_of(out / "docstrings")), Model("Transformers", "", False)).load("cpu")
    (tensor,) = json.loads((out / "request.json").read_text())["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("text", "BYTES", [len(train.SUBJECTS)])
    expected = json.loads((out / "expected.json").read_text())
    assert expected["truth"] == list(train.SUBJECTS)
    given: torch.Tensor = texts(*tensor["data"])  # type: ignore[assignment]  # as `Call` says of BYTES
    with torch.no_grad():
        (embedding,) = loaded.call(given)
    np.testing.assert_allclose(embedding.numpy(), expected["embedding"], atol=1e-5)


def test_no_held_out_sentence_was_seen_and_every_subject_has_some() -> None:
    split = train.load()
    assert not {sentence.text for sentence in split.train} & {sentence.text for sentence in split.heldout}
    assert {sentence.subject for sentence in split.heldout} == set(range(len(train.SUBJECTS)))


def test_the_loss_falls_where_sentences_of_one_subject_point_one_way() -> None:
    subjects = torch.tensor([0, 0, 1, 1])
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    apart = train.loss(torch.stack([east, east, north, north]), subjects)
    mixed = train.loss(torch.stack([east, north, east, north]), subjects)
    # one sentence of the own subject and two others: ln(1 + 2 e^(∓1 / 0.1)) apart, and 10 + ln(1 + 2 e^-10) mixed
    torch.testing.assert_close(apart, torch.tensor(2 * torch.e**-10), atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed, torch.tensor(10 + 2 * torch.e**-10), atol=1e-5, rtol=0)


def test_a_model_below_the_floor_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "EPOCHS", 1)
    monkeypatch.setattr(train, "SCORE_FLOOR", 1.01)
    with pytest.raises(SystemExit, match="nothing was written"):
        train.main(["--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--out", __file__])
    assert "error: --out" in capsys.readouterr().err
