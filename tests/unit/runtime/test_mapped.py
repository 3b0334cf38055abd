"""Is a fetched model used where it lies, only where nobody writes it and it can stay there, and hashed as it is?"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
from pathlib import Path

import pytest

from evenkeel_runtime import config
from evenkeel_runtime.config import MODEL_DIR_ENV, Model
from evenkeel_runtime.contract import Env, Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.local import LocalFile
from evenkeel_runtime.fetch.manifest import Manifest, Row
from evenkeel_runtime.fetch.mapped import Mapped, has_room
from evenkeel_runtime.fetch.transfer import Memory, transfer
from evenkeel_runtime.serve import loading

GIB = 1 << 30
CONTENT = hashlib.shake_128(b"weights").digest(70_000)


@pytest.mark.parametrize("content", [b"", b"1", CONTENT], ids=["empty", "a byte", "pages and a part of one"])
def test_what_was_hashed_is_the_file_itself(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model").write_bytes(content)
    memory = Mapped()
    arrived = transfer(LocalFile("file://model", tmp_path, "model", mapping=memory.of), memory)
    assert bytes(memory.buffer) == content
    assert (arrived.sha256, arrived.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert _lies_in(memory.buffer) == ("" if not content else str(tmp_path / "model"))


def test_a_weight_that_is_written_to_changes_no_file(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(CONTENT)
    memory = Mapped()
    transfer(LocalFile("file://model", tmp_path, "model", mapping=memory.of), memory)
    memoryview(memory.buffer)[:3] = b"new"
    assert (tmp_path / "model").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("is_fetched", "is_mapped"),
    [
        pytest.param(True, True, id="what fetch wrote is mapped"),
        pytest.param(False, False, id="what others may write is copied"),
    ],
)
@pytest.mark.parametrize("is_folder", [False, True], ids=["a file", "a folder"])
def test_what_a_start_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_fetched: bool, is_mapped: bool, is_folder: bool
) -> None:
    found: list[mmap.mmap | bytearray] = []
    for kind in (Mapped, Memory):
        monkeypatch.setattr(kind, "close", lambda memory: found.append(memory.buffer))
    (tmp_path / "m").mkdir()
    file = tmp_path / "m" / "model.safetensors"
    file.write_bytes(CONTENT)
    (tmp_path / "m" / "notes.txt").write_text("read by nobody")
    path = tmp_path / "m" if is_folder else file
    reading = loading.Reading(path, Model("Auto", "", False), loading.holder(path, is_fetched=is_fetched))
    reading.start()
    rows = [Row(path.name, path.stat().st_size, _sha256(path)) for path in (tmp_path / "m").iterdir()]
    want = Manifest.of(rows).sha256 if is_folder else _sha256(file)
    assert reading.arrived().sha256 == want
    assert [_lies_in(buffer) for buffer in found] == [str(file) if is_mapped else ""]


def test_what_fetch_wrote_is_held_against_its_digest(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(CONTENT)
    reading = loading.Reading(tmp_path / "model", Model("Auto", "0" * 64, False), Mapped)
    reading.start()
    with pytest.raises(ModelError) as failure:
        reading.arrived()
    assert failure.value.reason == Reason.MODEL_CHANGED


@pytest.mark.parametrize(
    ("environment", "want"),
    [
        pytest.param({Env.MODEL_PATH: "/model/m.pt2"}, True, id="where fetch writes"),
        pytest.param({Env.MODEL_PATH: "file:///model/folder"}, True, id="a folder there"),
        pytest.param({Env.MODEL_PATH: "/mnt/model/m.pt2"}, False, id="a claim"),
        pytest.param({Env.MODEL_PATH: "/models/m.pt2"}, False, id="a folder of nearly that name"),
        pytest.param({Env.MODEL_PATH: "/model/../mnt/model/m.pt2"}, False, id="a way out of it"),
        pytest.param({Env.MODEL_PATH: "m.pt2"}, False, id="a laptop's file"),
        pytest.param({Env.MODEL_PATH: "/here/m.pt2", MODEL_DIR_ENV: "/here"}, True, id="where fetch was told to write"),
    ],
)
def test_which_models_were_fetched(environment: dict[str, str], want: bool) -> None:
    assert config.serve(environment).is_fetched == want


@pytest.mark.parametrize(
    ("files", "want"),
    [
        pytest.param({}, True, id="no cgroup file system"),
        pytest.param({"memory.max": "max\n"}, True, id="v2 without a limit"),
        pytest.param({"memory.max": f"{3 * GIB}\n"}, True, id="v2, as much as the model and a GiB"),
        pytest.param({"memory.max": f"{3 * GIB - 1}\n"}, False, id="v2, less"),
        pytest.param({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, True, id="v1 without a limit"),
        pytest.param({"memory/memory.limit_in_bytes": f"{2 * GIB}\n"}, False, id="v1, no more than the model"),
    ],
)
def test_room_for_a_model_of_two_gib(tmp_path: Path, files: dict[str, str], want: bool) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert has_room(2 * GIB, tmp_path) == want


def test_a_model_without_room_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "has_room", lambda size: size < len(CONTENT))
    (tmp_path / "model").write_bytes(CONTENT)
    assert loading.holder(tmp_path / "model", is_fetched=True) is Memory


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _lies_in(buffer: mmap.mmap | bytearray) -> str:
    """Return the file that a buffer's memory is (proc(5), maps); nothing where it is none."""
    if not len(buffer):
        return ""
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= address < last:
            path = line.split(maxsplit=5)[5:]
            return path[0] if path and path[0].startswith("/") and "heap" not in path[0] else ""
    raise AssertionError("the memory is nowhere")
