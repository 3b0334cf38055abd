"""Is a folder of weights described and held to its pinned files, and does a server of a program import none of that?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evenkeel_runtime.contract import Failed, Prepared, Reason
from tests.system.runtime.test_commands import run
from tests.unit.runtime.statedicts import CLASSES, timm_folder, timm_module


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("statedict")
    (folder / "claim" / "m").mkdir(parents=True)
    timm_folder(timm_module(), folder / "claim" / "m")
    return folder


@pytest.fixture(scope="module")
def prepared(home: Path) -> Prepared:
    status, found, log = run("prepare", home, {"EVENKEEL_MODEL_URI": "pvc://c/m"})
    assert status == 0, log
    assert isinstance(found, Prepared)
    return found


def test_prepare_describes_the_folder(prepared: Prepared) -> None:
    assert (prepared.format, prepared.file) == ("StateDict", "m/")
    assert [tensor.shape for tensor in prepared.inputs] == [(-1, 3, 160, 160)]
    assert [tensor.shape for tensor in prepared.outputs] == [(-1, CLASSES)]


def test_folder_that_changed_is_not_served_and_the_file_is_named(
    home: Path, prepared: Prepared, tmp_path: Path
) -> None:
    (tmp_path / "m").mkdir()
    for path in (home / "claim" / "m").iterdir():
        (tmp_path / "m" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "m" / "config.json").write_text("{}")
    status, found, _ = run(
        "",
        tmp_path,
        {
            "EVENKEEL_MODEL_PATH": str(tmp_path / "m"),
            "EVENKEEL_HTTP_PORT": "0",
            "EVENKEEL_MODEL_SHA256": prepared.digest.removeprefix("sha256:"),
            "EVENKEEL_MODEL_MARKS": prepared.marks,
        },
    )
    assert status == 1
    assert isinstance(found, Failed)
    assert found.reason == Reason.MODEL_CHANGED
    assert "config.json changed" in found.message


def test_server_of_an_exported_program_imports_no_library_of_architectures(model_dir: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from evenkeel_runtime.config import Model\n"
        "from evenkeel_runtime.serve import loading, server\n"
        f"loading.load(Path({str(model_dir / 'perceptron.pt2')!r}), Model('Auto', '', False), 8)\n"
        "print([name for name in ('torchvision', 'timm', 'transformers', 'safetensors') if name in sys.modules])"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert got.stdout == "[]\n"
