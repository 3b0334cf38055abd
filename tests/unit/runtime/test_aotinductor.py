"""Is compiled code loaded only where the spec trusts it, beside its program, and left alone where it does not fit?"""

from __future__ import annotations

import io
import json
import platform
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from evenkeel_runtime.config import Model
from evenkeel_runtime.engine.calibrate import calibrate
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.models import aotinductor
from evenkeel_runtime.models.inspect import recognise
from evenkeel_runtime.models.loaded import Loaded
from tests.unit.runtime import models
from tests.unit.runtime.inspected import inspect

TRUSTED = Model("Auto", "ab" * 32, True)
ISA = "AVX2" if platform.machine() == "x86_64" else "ASIMD"
HERE = {"AOTI_DEVICE_KEY": "cpu", "AOTI_PLATFORM": "linux", "AOTI_MACHINE": platform.machine(), "AOTI_CPU_ISA": ISA}
FOLDER = "data/aotinductor/model"

Members = dict[str, bytes]

perceptron = cache(models.perceptron)


def compiled(change: Callable[[Members], None] = lambda members: None, **metadata: str) -> bytes:
    """Return a perceptron with what is no compiled code beside it: a loader that took it would fail."""
    with zipfile.ZipFile(io.BytesIO(perceptron())) as archive:
        root = archive.namelist()[0].partition("/")[0]
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    members[f"{FOLDER}/a.wrapper_metadata.json"] = json.dumps({**HERE, **metadata}).encode()
    members[f"{FOLDER}/a.wrapper.cpp"] = b"// nothing"
    members[f"{FOLDER}/a.wrapper.so"] = b"\x7fELF, but no more"
    change(members)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(f"{root}/{name}", content)
    return made.getvalue()


def loaded(data: bytes) -> Loaded:
    found, archive = recognise(io.BytesIO(data), len(data))
    return found.load(archive, memoryview(bytearray(data)), "cpu", frozenset())


def test_it_is_described_as_the_program_that_was_compiled() -> None:
    data, plain = compiled(), perceptron()
    found, got = inspect(io.BytesIO(data), len(data), TRUSTED)
    _, want = inspect(io.BytesIO(plain), len(plain), TRUSTED)
    assert found.name == "AOTInductor"
    assert got == want


@pytest.mark.parametrize(
    ("model", "want"),
    [
        pytest.param(Model("Auto", "ab" * 32, False), "spec.model.allowNativeCode", id="not allowed"),
        pytest.param(Model("Auto", "", True), "needs spec.model.sha256", id="not pinned"),
        pytest.param(Model("TorchExport", "ab" * 32, True), "the file is AOTInductor", id="taken for another format"),
    ],
)
def test_native_code_needs_trust(model: Model, want: str) -> None:
    data = compiled()
    with pytest.raises(ModelError, match=want):
        inspect(io.BytesIO(data), len(data), model)


def _without_program(members: Members) -> None:
    for name in [name for name in members if not name.startswith(("data/aotinductor/", "archive_"))]:
        del members[name]


def _another_name(members: Members) -> None:
    members["data/aotinductor/second/a.wrapper.so"] = b""


def _no_metadata(members: Members) -> None:
    del members[f"{FOLDER}/a.wrapper_metadata.json"]


def _metadata(content: bytes) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        members[f"{FOLDER}/a.wrapper_metadata.json"] = content

    return change


@pytest.mark.parametrize(
    ("change", "want"),
    [
        pytest.param(
            _without_program, r"without the program .*package_pt2\(", id="code alone, as packages are by default"
        ),
        pytest.param(_another_name, "other names than 'model'", id="two programs"),
        pytest.param(_no_metadata, "0 descriptions", id="code for nobody knows which machine"),
        pytest.param(_metadata(b"\x80\x04."), "not what torch writes", id="a description that is no JSON"),
        pytest.param(_metadata(b"{}"), "not what torch writes", id="a description of nothing"),
        pytest.param(_metadata(b"[]"), "not what torch writes", id="a description that is a list"),
    ],
)
def test_what_does_not_say_what_it_is_is_refused(change: Callable[[Members], None], want: str) -> None:
    data = compiled(change)
    with pytest.raises(ModelError, match=want):
        inspect(io.BytesIO(data), len(data), TRUSTED)


def _exported_by(version: str) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        program: dict[str, Any] = json.loads(members["models/model.json"])
        program["torch_version"] = version
        members["models/model.json"] = json.dumps(program).encode()

    return change


@pytest.mark.parametrize(
    ("version", "metadata", "want"),
    [
        pytest.param("2.12.1", {}, "compiled by torch 2.12.1", id="another torch"),
        pytest.param(torch.__version__, {"AOTI_DEVICE_KEY": "cuda"}, "compiled for cuda, this is cpu", id="a GPU"),
        pytest.param(torch.__version__, {"AOTI_MACHINE": "s390x"}, "for linux s390x", id="another machine"),
        pytest.param(torch.__version__, {"AOTI_PLATFORM": "win32"}, "for win32", id="another system"),
        pytest.param(torch.__version__, {"AOTI_CPU_ISA": "AVX4096"}, "AVX4096", id="a processor that is yet to come"),
        pytest.param(torch.__version__, {}, "RuntimeError", id="code that is none"),
    ],
)
def test_code_that_does_not_run_here_is_left_alone_and_the_program_answers(
    version: str, metadata: dict[str, str], want: str
) -> None:
    model = loaded(compiled(_exported_by(version), **metadata))
    assert model.compiled is None
    assert want in str(model.parameters["compiled_code_not_used"])
    rows = torch.rand(3, 12)
    plain = loaded(perceptron())
    with torch.inference_mode():
        torch.testing.assert_close(model.call(rows)[0], plain.call(rows)[0])


@pytest.mark.parametrize(
    ("words", "flags", "want"),
    [
        pytest.param("AVX2", "avx2 fma sse", "", id="just that"),
        pytest.param("AVX2", "sse", "lacks avx2, fma", id="an older one"),
        pytest.param("AVX512 AVX512_VNNI", "avx512f avx512dq avx512vl avx512bw fma", "avx512_vnni", id="half of it"),
        pytest.param("ASIMD", "fp asimd", "", id="of Arm"),
        pytest.param("INVALID_VEC_ISA", "avx2", "not known", id="compiled for no one"),
    ],
)
def test_processors(words: str, flags: str, want: str) -> None:
    got = aotinductor._unfit_processor(words.split(), frozenset(flags.split()))
    assert want in got
    assert bool(got) == bool(want)


def test_compiled_code_that_answers_otherwise_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    model = loaded(perceptron())

    def zeros(rows: torch.Tensor) -> list[torch.Tensor]:
        return [torch.zeros(len(rows), 3)]

    found = calibrate(replace(model, compiled=zeros), 1, 8)
    assert found.path != "aotinductor"
    assert found.call is not zeros
    assert "its answers differ" in caplog.text


def test_compiled_code_that_answers_the_same_faster_is_used() -> None:
    model = loaded(perceptron())
    slow = torch.ones(1 << 22)

    def call(rows: torch.Tensor) -> Any:
        slow.mul_(1.0)  # what the program takes longer
        return model.call(rows)

    found = calibrate(replace(model, call=call, traceable=False, compiled=model.call), 1, 8)
    assert found.path == "aotinductor"
    assert found.call is model.call
