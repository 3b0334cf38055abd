"""Is compiled code served only where it is trusted, held to its shapes, and described as what it was compiled for?

The example compiles it, which takes a C++ compiler and its time. That it answers what the network answers is held by
`test_formats.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from evenkeel_runtime.contract import Failed, Prepared, Reason, Tensor
from tests.system.runtime.replica import Replica
from tests.system.runtime.saved import compiled
from tests.system.runtime.test_commands import run

ROWS = np.random.default_rng(0).random((5, 12), np.float32)


@pytest.fixture(scope="module")
def file(shared: Path) -> Path:
    return compiled(shared)


@pytest.fixture(scope="module")
def trusted(file: Path) -> dict[str, str]:
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert file.with_name("m.pt2.sha256").read_text() == f"{sha256}  m.pt2\n"
    return {"EVENKEEL_ALLOW_NATIVE_CODE": "true", "EVENKEEL_MODEL_SHA256": sha256}


@pytest.fixture(scope="module")
def served(file: Path, trusted: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    replica = Replica(file, tmp_path_factory.mktemp("compiled") / "termination", trusted)
    try:
        replica.await_ready()
        yield replica
    finally:
        replica.kill()


def test_rows_of_another_length_never_reach_the_code(served: Replica) -> None:
    assert served.rows(ROWS[:, :11].copy()).status == 400


def test_metadata_say_what_the_code_was_compiled_for(served: Replica) -> None:
    found = served.ask("GET", "/v2/models/m").json
    assert found["platform"] == "pytorch_aotinductor"
    assert found["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 12]}]
    assert found["parameters"]["compiled_for"]
    assert "compiled_code_not_used" not in found["parameters"]


def test_prepare_takes_it_where_it_is_trusted_only(file: Path, trusted: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "claim").mkdir()
    (tmp_path / "claim" / "m.pt2").write_bytes(file.read_bytes())
    told = {"EVENKEEL_MODEL_URI": "pvc://c/m.pt2", "EVENKEEL_MODEL_FORMAT": "AOTInductor"}
    status, found, log = run("prepare", tmp_path, {**told, **trusted})
    assert status == 0, log
    assert isinstance(found, Prepared)
    assert found.inputs == (Tensor("image", "FP32", (-1, 12)),)
    status, failed, _ = run("prepare", tmp_path, told)
    assert status == 1
    assert isinstance(failed, Failed)
    assert failed.reason == Reason.FORMAT_REFUSED
    assert "spec.model.allowNativeCode" in failed.message
