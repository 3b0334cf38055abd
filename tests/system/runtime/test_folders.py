"""Does a whole folder arrive, verified and the same one each time, or is it said which file is not?"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from evenkeel_runtime import config, contract
from evenkeel_runtime.contract import Prepared, Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch import folder
from evenkeel_runtime.fetch.fetch import fetch
from evenkeel_runtime.fetch.manifest import FILES
from evenkeel_runtime.fetch.source import Entry, Interrupted, Opened
from evenkeel_runtime.fetch.transfer import Memory, transfer
from evenkeel_runtime.prepare import prepare

URI = "pvc://claim/model"
CONTENT = {"config.json": b"{}", "model.safetensors": b"weights" * 1000, "parts/one/vocab.txt": b"a\nb\n", "empty": b""}


def digest(files: dict[str, bytes]) -> str:
    """Return the pinned digest of these files, as the manifest's definition has it."""
    rows = [
        {"path": path, "sha256": hashlib.sha256(files[path]).hexdigest(), "size": len(files[path])}
        for path in sorted(files, key=str.encode)
    ]
    text = json.dumps({"files": rows}, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def fetching(told: config.Prepare, uri: str, found: Prepared) -> config.Fetch:
    """Return what the init container of a replica of this revision is told."""
    sha256 = found.digest.removeprefix("sha256:")
    return config.Fetch(uri, config.Model(found.format, sha256, False, marks=found.marks), told.places)


def read_back(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.fixture
def told(told: config.Prepare) -> config.Prepare:
    """The folder is one that some other server reads: it gets a digest, and no opinion."""
    for path, data in CONTENT.items():
        (told.places.claim_dir / "model" / path).parent.mkdir(parents=True, exist_ok=True)
        (told.places.claim_dir / "model" / path).write_bytes(data)
    return dataclasses.replace(told, uri=URI, inspect=False)


@pytest.fixture
def home(told: config.Prepare) -> Path:
    return told.places.claim_dir / "model"


def failure_of(told: config.Prepare) -> ModelError:
    with pytest.raises(ModelError) as failure:
        prepare(told)
    return failure.value


@pytest.mark.parametrize("uri", [URI, f"{URI}/"])
@pytest.mark.parametrize("whole_bytes", [1 << 30, 1000, 0], ids=["stored", "stored in part", "hashed only"])
def test_folder_is_pinned_by_the_digest_of_its_manifest(told: config.Prepare, uri: str, whole_bytes: int) -> None:
    found = prepare(dataclasses.replace(told, uri=uri, whole_bytes=whole_bytes))
    assert found.digest == digest(CONTENT)
    assert (found.file, found.size_bytes) == ("model/", sum(map(len, CONTENT.values())))
    assert contract.decode(contract.encode(found)) == found
    assert not list(told.places.scratch_dir.glob("prepare-*"))


def test_folder_is_fetched_whole_and_again(told: config.Prepare) -> None:
    wanted = fetching(told, URI, prepare(told))
    for _ in range(2):  # an init container may be restarted
        assert fetch(wanted) == told.places.model_dir / "model"
        assert read_back(told.places.model_dir / "model") == CONTENT
    assert [path.name for path in told.places.model_dir.iterdir()] == ["model"]


def test_digest_of_the_spec(told: config.Prepare) -> None:
    right = digest(CONTENT).removeprefix("sha256:")
    assert prepare(dataclasses.replace(told, model=dataclasses.replace(told.model, sha256=right))).size_bytes > 0
    failure = failure_of(dataclasses.replace(told, model=dataclasses.replace(told.model, sha256="ab" * 32)))
    assert failure.reason == Reason.CHECKSUM_MISMATCH
    assert right in failure.message
    assert "manifest" in failure.message


def _changed(home: Path) -> None:
    (home / "model.safetensors").write_bytes(b"Weights" * 1000)


def _more(home: Path) -> None:
    (home / "parts" / "two").write_bytes(b"")


def _renamed(home: Path) -> None:
    (home / "config.json").rename(home / "configuration.json")


def _gone(home: Path) -> None:
    (home / "empty").unlink()


@pytest.mark.parametrize(
    ("change", "want"),
    [
        pytest.param(_changed, r"model\.safetensors changed", id="other bytes of the same length"),
        pytest.param(_more, "parts/two changed or came to it", id="a file more"),
        pytest.param(_renamed, r"configuration\.json changed or came to it", id="another name"),
        pytest.param(_gone, "1 of its files are gone", id="a file less"),
    ],
)
def test_folder_that_changed_is_not_served_and_the_file_is_named(
    told: config.Prepare, home: Path, change: Callable[[Path], None], want: str
) -> None:
    wanted = fetching(told, URI, prepare(told))
    change(home)
    with pytest.raises(ModelError, match=want) as failure:
        fetch(wanted)
    assert failure.value.reason == Reason.MODEL_CHANGED
    assert list(told.places.model_dir.iterdir()) == []


def test_largest_folder_fits_a_termination_message(told: config.Prepare, home: Path) -> None:
    for number in range(FILES - len(CONTENT)):
        (home / f"{number:04}-{'x' * 200}").write_bytes(b"")
    found = prepare(told)
    assert found.marks == ""
    assert len(contract.encode(found).encode()) < 4096
    (home / "one too many").write_bytes(b"")
    assert f"more than {FILES} files" in failure_of(told).message


def test_most_named_files_fit_a_termination_message(told: config.Prepare, home: Path) -> None:
    for number in range(100):
        (home / f"{number:04}-{'x' * 200}").write_bytes(b"")
    found = prepare(told)
    assert len(contract.encode(found).encode()) < 4096
    (home / "0007").write_bytes(b"new")
    with pytest.raises(ModelError, match="0007 changed or came to it"):
        fetch(fetching(told, URI, found))


def _link(home: Path) -> None:
    (home / "link").symlink_to("config.json")


def _link_out(home: Path) -> None:
    (home / "parts" / "link").symlink_to("/etc")


def _pipe(home: Path) -> None:
    os.mkfifo(home / "pipe")


def _deep(home: Path) -> None:
    path = home.joinpath(*["d"] * 30)
    path.mkdir(parents=True)
    (path / "x").write_bytes(b"")


def _control(home: Path) -> None:
    (home / "a\nb").write_bytes(b"")


def _backslash(home: Path) -> None:
    (home / "..\\b").write_bytes(b"")


@pytest.mark.parametrize(
    ("change", "want"),
    [
        pytest.param(_link, "model/link is a symbolic link", id="a link to a file beside it"),
        pytest.param(_link_out, "parts/link is a symbolic link", id="a link to a folder elsewhere"),
        pytest.param(_pipe, "pipe is a symbolic link or a special file", id="a pipe, which nobody writes to"),
        pytest.param(_deep, "within each other", id="folders without end"),
        pytest.param(_control, "cannot be written", id="a line break in a name"),
        pytest.param(_backslash, "leads elsewhere", id="a backslash"),
    ],
)
def test_folder_that_cannot_be_one_is_refused(
    told: config.Prepare, home: Path, change: Callable[[Path], None], want: str
) -> None:
    change(home)
    failure = failure_of(told)
    assert failure.reason == Reason.INVALID
    assert want in failure.message


def test_folder_without_files(told: config.Prepare) -> None:
    (told.places.claim_dir / "none" / "below").mkdir(parents=True)
    failure = failure_of(dataclasses.replace(told, uri="pvc://claim/none"))
    assert failure.reason == Reason.MODEL_NOT_FOUND
    assert "no files below it" in failure.message


def test_web_server_names_single_files(told: config.Prepare) -> None:
    failure = failure_of(dataclasses.replace(told, uri="https://models.example/digits/"))
    assert failure.reason == Reason.INVALID
    assert "https:// names one" in failure.message


class _Files:
    """A folder in memory, whose files are read as `reading` says."""

    uri, file = "memory://model", "model"

    def __init__(self, reading: Callable[[str, int], bytes], count: int) -> None:
        self.reading, self.count = reading, count

    def entries(self) -> list[Entry]:
        return [Entry(f"{number}", _InMemory(f"{number}", self.reading)) for number in range(self.count)]


@dataclasses.dataclass(frozen=True)
class _InMemory:
    file: str
    reading: Callable[[str, int], bytes]

    @property
    def uri(self) -> str:
        return f"memory://model/{self.file}"

    def open(self, start: int, stop: int | None, version: str | None) -> Opened:
        return Opened(8, "one", iter([self.reading(self.file, start)]), lambda: None)


def test_files_are_read_beside_each_other() -> None:
    together = threading.Barrier(folder.STREAMS, timeout=60)

    def reading(name: str, start: int) -> bytes:
        together.wait()  # each waits until as many are read at once
        return name.encode() * 8

    files = _Files(reading, 2 * folder.STREAMS)
    sinks = {entry.path: Memory() for entry in files.entries()}
    arrived = folder.transfer_all(files, files.entries(), lambda entry: transfer(entry.source, sinks[entry.path]))
    assert {path: one.sha256 for path, one in arrived.items()} == {
        path: hashlib.sha256(path.encode() * 8).hexdigest() for path in sinks
    }


@pytest.mark.usefixtures("told")
def test_file_that_is_cut_is_resumed_alone() -> None:
    asked: list[tuple[str, int]] = []

    def reading(name: str, start: int) -> bytes:
        asked.append((name, start))
        if name == "2" and start == 0:
            return b"half"
        return (b"half" + b"rest" if name == "2" else name.encode() * 8)[start:]

    files = _Files(reading, 5)
    sinks = {entry.path: Memory() for entry in files.entries()}
    folder.transfer_all(files, files.entries(), lambda entry: transfer(entry.source, sinks[entry.path]))
    assert bytes(sinks["2"].buffer) == b"halfrest"
    assert sorted(asked) == [("0", 0), ("1", 0), ("2", 0), ("2", 4), ("3", 0), ("4", 0)]


@pytest.mark.usefixtures("told")
def test_first_file_that_fails_names_itself_and_ends_the_others() -> None:
    asked: set[str] = set()

    def reading(name: str, start: int) -> bytes:
        asked.add(name)
        if name == "1":
            raise Interrupted("the store is gone")
        return name.encode() * 8

    files = _Files(reading, 200)
    with pytest.raises(ModelError, match="memory://model/1 does not answer") as failure:
        folder.transfer_all(files, files.entries(), lambda entry: transfer(entry.source, Memory()))
    assert failure.value.reason == Reason.SOURCE_UNAVAILABLE
