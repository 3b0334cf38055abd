"""Does a file that is read straight into memory arrive as it is, and is it seen when it changes meanwhile?"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import re
from pathlib import Path

import pytest

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.local import INTO_BYTES, LocalFile
from evenkeel_runtime.fetch.source import Chunk
from evenkeel_runtime.fetch.transfer import Memory, transfer


def _placed(folder: Path, content: bytes) -> tuple[LocalFile, Memory]:
    (folder / "model").write_bytes(content)
    memory = Memory()
    return LocalFile("file://model", folder, "model", memory.room), memory


@pytest.mark.parametrize("size", [0, 1, INTO_BYTES, 2 * INTO_BYTES + 3])
def test_what_was_hashed_is_what_lies_in_memory(tmp_path: Path, size: int) -> None:
    content = hashlib.shake_128(b"weights").digest(size)
    place, memory = _placed(tmp_path, content)
    arrived = transfer(place, memory)
    assert bytes(memory.buffer) == content
    assert (arrived.sha256, arrived.size_bytes) == (hashlib.sha256(content).hexdigest(), size)


class _Changing(Memory):
    """Changes the file when its first bytes have arrived."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__()
        self._path, self._size = path, size

    def write(self, chunk: Chunk) -> None:
        super().write(chunk)
        with self._path.open("r+b") as file:
            file.truncate(self._size)


@pytest.mark.parametrize("size", [INTO_BYTES, 2 * INTO_BYTES + 1], ids=["shorter", "longer"])
def test_a_file_that_changes_its_size_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    (tmp_path / "model").write_bytes(bytes(2 * INTO_BYTES))
    memory = _Changing(tmp_path / "model", size)
    with pytest.raises(ModelError) as failure:
        transfer(LocalFile("file://model", tmp_path, "model", memory.room), memory)
    assert failure.value.reason == Reason.MODEL_CHANGED


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="a kernel without large pages")
def test_memory_is_to_have_large_pages() -> None:
    memory = Memory()
    memory.room(8 << 20)
    assert isinstance(memory.buffer, mmap.mmap)
    assert "hg" in _flags(ctypes.addressof(ctypes.c_char.from_buffer(memory.buffer)))


def _flags(address: int) -> list[str]:
    """Return the flags of the mapping that holds an address (proc(5), smaps)."""
    holds = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if place := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
            holds = int(place[1], 16) <= address < int(place[2], 16)
        elif holds and line.startswith("VmFlags:"):
            return line.split()[1:]
    return []
