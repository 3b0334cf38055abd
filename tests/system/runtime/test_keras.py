"""Is a .keras file described as what it is, and refused by the name of what it must not hold?"""

from __future__ import annotations

from pathlib import Path

from evenkeel_runtime.contract import Failed, Prepared, Reason, Tensor
from tests.system.runtime.test_commands import run
from tests.unit.runtime.keras_files import HOSTILE, good


def test_prepare_describes_a_good_file_and_names_what_a_bad_one_holds(tmp_path: Path) -> None:
    (tmp_path / "claim").mkdir()
    path, canary = tmp_path / "claim" / "m.keras", tmp_path / "canary"
    told = {"EVENKEEL_MODEL_URI": "pvc://c/m.keras", "EVENKEEL_MODEL_FORMAT": "Keras"}
    path.write_bytes(good())
    status, found, log = run("prepare", tmp_path, told)
    assert status == 0, log
    assert isinstance(found, Prepared)
    assert found.format == "Keras"
    assert found.inputs == (Tensor("row", "FP32", (-1, 6)),)
    assert found.outputs == (Tensor("answer", "FP32", (-1, 3)),)

    path.write_bytes(HOSTILE["a Lambda layer"].build(good(), canary))
    status, failed, _ = run("prepare", tmp_path, told)
    assert status == 1
    assert isinstance(failed, Failed)
    assert failed.reason == Reason.FORMAT_REFUSED
    assert "Lambda" in failed.message
    assert not canary.exists()
