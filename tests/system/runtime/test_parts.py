"""Is a large file read in parts, only where they are of one object, and never a mixed one, whatever the server does?"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import logging
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path

import pytest

from evenkeel_runtime import config
from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch import parts, transfer, web
from evenkeel_runtime.fetch.fetch import fetch
from tests.system.runtime.test_folders import digest, read_back
from tests.system.runtime.webserver import Reply, Site, web_server

PART = 1 << 16
COUNT = 20
DATA = random.Random(0).randbytes(COUNT * PART - 100)
PATH = "/models/large.bin"


@pytest.fixture
def site(certificates: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server that says that it has ranges; a file of two small parts counts as a large one."""
    authority, certificate = certificates
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    monkeypatch.setattr(parts, "LEAST_BYTES", PART)
    with web_server(certificate) as found:
        found.files[PATH] = DATA
        found.headers["Accept-Ranges"] = "bytes"
        yield found


@pytest.fixture
def wanted(told: config.Prepare, site: Site) -> config.Fetch:
    return config.Fetch(site.url(PATH), config.Model("Auto", "", False), told.places)


def pinned(wanted: config.Fetch, data: bytes = DATA) -> config.Fetch:
    sha256 = hashlib.sha256(data).hexdigest()
    return dataclasses.replace(wanted, model=dataclasses.replace(wanted.model, sha256=sha256))


def ranges(site: Site) -> list[str]:
    return [asked for _, asked, _ in site.heard if asked is not None]


def left(wanted: config.Fetch) -> list[str]:
    return [path.name for path in wanted.places.model_dir.iterdir()]


def failure_of(wanted: config.Fetch) -> ModelError:
    with pytest.raises(ModelError) as failure:
        fetch(wanted)
    return failure.value


def test_parts_are_read_beside_each_other_and_each_once(site: Site, wanted: config.Fetch) -> None:
    together = threading.Barrier(parts.CONNECTIONS - 1, timeout=60)
    first = [f"bytes={number * PART}-{(number + 1) * PART - 1}" for number in range(1, parts.CONNECTIONS)]

    def answer(path: str, headers: Message) -> Reply | None:
        if headers["Range"] in first:
            together.wait()  # each waits until as many are read at once
        return None

    site.answer = answer
    assert fetch(pinned(wanted)).read_bytes() == DATA
    assert len(set(ranges(site))) == len(ranges(site)) == COUNT - 1  # the first part is of the first answer
    assert left(wanted) == ["large.bin"]


@pytest.mark.parametrize(
    ("change", "data"),
    [
        pytest.param({"headers": {}}, DATA, id="a server that does not say it has ranges"),
        pytest.param({"headers": {"Accept-Ranges": "none"}}, DATA, id="a server that says it has none"),
        pytest.param({"etag": 'W/"{}"'}, DATA, id="a weak ETag, which other bytes may have too"),
        pytest.param({"has_etags": False}, DATA, id="no ETag"),
        pytest.param(
            {
                "has_etags": False,
                "headers": {"Accept-Ranges": "bytes", "Last-Modified": "Fri, 01 May 2026 07:00:00 GMT"},
            },
            DATA,
            id="a time, within whose second there may be two versions",
        ),
        pytest.param({"has_length": False}, DATA, id="no length"),
        pytest.param({}, DATA[:PART], id="a file of one part"),
        pytest.param({}, b"", id="an empty file"),
    ],
)
def test_file_that_is_read_as_one_stream(
    site: Site, wanted: config.Fetch, change: dict[str, object], data: bytes
) -> None:
    site.files[PATH] = data
    for name, value in change.items():
        setattr(site, name, value)
    assert fetch(pinned(wanted, data)).read_bytes() == data
    assert [asked for _, asked, _ in site.heard] == [None]


def test_server_that_answers_a_part_with_the_whole_is_read_as_one_stream(site: Site, wanted: config.Fetch) -> None:
    site.has_ranges = False
    assert fetch(pinned(wanted)).read_bytes() == DATA
    assert site.heard[-1][1] is None
    assert left(wanted) == ["large.bin"]


@pytest.mark.parametrize(
    ("status", "etag", "size"),
    [
        pytest.param(206, '"another"', str(len(DATA)), id="another ETag, of the next server behind the address"),
        pytest.param(206, None, str(len(DATA)), id="no ETag"),
        pytest.param(206, '"one"', "*", id="no size of the whole"),
        pytest.param(412, None, "*", id="that there is no such version"),
    ],
)
def test_server_that_says_of_a_part_what_is_not_true_of_the_whole_is_read_as_one_stream(
    site: Site, wanted: config.Fetch, status: int, etag: str | None, size: str
) -> None:
    def answer(path: str, headers: Message) -> Reply | None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", headers["Range"] or "")
        if asked is None:
            return None
        start, stop = int(asked[1]), int(asked[2]) + 1
        said = {"Content-Range": f"bytes {start}-{stop - 1}/{size}", **({} if etag is None else {"ETag": etag})}
        return Reply(status, said, DATA[start:stop])

    site.answer = answer
    assert fetch(pinned(wanted)).read_bytes() == DATA
    assert [asked for _, asked, _ in site.heard].count(None) == 2
    assert left(wanted) == ["large.bin"]


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(["", "cut", "cut", "cut"], id="ends at half"),
        pytest.param(["cut"] * 30, id="more cuts than attempts, each after progress"),
        pytest.param(["", "reset", "", "reset"], id="resets"),
        pytest.param(["", 503, 429, 500, 503, 503], id="errors that pass"),
        pytest.param([503, "cut", 503, "cut", 502], id="all of them"),
    ],
)
def test_transient_failures_are_outlived(site: Site, wanted: config.Fetch, faults: list[int | str]) -> None:
    site.faults = faults
    assert fetch(pinned(wanted)).read_bytes() == DATA
    assert not site.faults


def test_part_that_stalls_is_asked_for_again_alone(
    site: Site, wanted: config.Fetch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(web, "STALLED_S", 2.0)
    site.stalls_s = 20.0
    site.faults = ["", "stall"]
    caplog.set_level(logging.INFO, "evenkeel")
    assert fetch(pinned(wanted)).read_bytes() == DATA
    assert len(ranges(site)) == COUNT
    [line] = [record.getMessage() for record in caplog.records]
    said = re.fullmatch(
        rf"fetched path=\S+/large\.bin size_bytes={len(DATA)} kept_bytes=0 retries=1 seconds=(\S+)", line
    )
    assert said
    assert float(said[1]) < site.stalls_s


def test_server_that_refuses_so_many_connections_is_read_by_fewer(site: Site, wanted: config.Fetch) -> None:
    """Two are answered, but not before the others have been refused as often as they ask."""
    free, all_refused = threading.Semaphore(2), threading.Event()
    refused: list[str] = []
    often = (parts.CONNECTIONS - 2) * transfer.Patience().attempts

    def answer(path: str, headers: Message) -> Reply | None:
        if not headers["Range"]:
            return None
        if not free.acquire(blocking=False):
            refused.append(path)
            if len(refused) == often:
                all_refused.set()
            return Reply(503)
        try:
            assert all_refused.wait(60)
        finally:
            free.release()
        return None

    site.answer = answer
    assert fetch(pinned(wanted)).read_bytes() == DATA


def test_server_that_is_gone_after_the_first_answer(site: Site, wanted: config.Fetch) -> None:
    site.faults = ["", *[503] * 500]
    assert failure_of(wanted).reason == Reason.SOURCE_UNAVAILABLE
    assert len(ranges(site)) <= parts.CONNECTIONS * transfer.Patience().attempts


@pytest.mark.parametrize("before", [1, 2, 9])
def test_versions_are_never_mixed(site: Site, wanted: config.Fetch, before: int) -> None:
    site.faults = [*[""] * before, "swap"]
    failure = failure_of(wanted)
    assert failure.reason == Reason.MODEL_CHANGED
    assert "changed while it was read" in failure.message
    assert left(wanted) == []


def test_part_of_another_range_is_not_taken(site: Site, wanted: config.Fetch) -> None:
    def answer(path: str, headers: Message) -> Reply | None:
        if headers["Range"] != f"bytes={PART}-{2 * PART - 1}":
            return None
        said = {"ETag": '"one"', "Content-Range": f"bytes 0-{PART - 1}/{len(DATA)}"}
        return Reply(206, said, DATA[:PART])

    site.answer = answer
    failure = failure_of(wanted)
    assert failure.reason == Reason.SOURCE_UNAVAILABLE
    assert "answered with bytes 0-" in failure.message


def test_wrong_digest_leaves_nothing(site: Site, wanted: config.Fetch) -> None:
    assert failure_of(pinned(wanted, b"other")).reason == Reason.MODEL_CHANGED
    assert left(wanted) == []


def broken_off(site: Site, wanted: config.Fetch) -> Path:
    """Let the server fail for good when half of the parts are read; return the folder that is left."""
    answered: list[str] = []

    def answer(path: str, headers: Message) -> Reply | None:
        answered.append(path)
        return Reply(503) if len(answered) > COUNT // 2 else None

    site.answer = answer
    assert failure_of(wanted).reason == Reason.SOURCE_UNAVAILABLE
    site.answer = lambda path, headers: None
    site.heard.clear()
    [partial] = wanted.places.model_dir.iterdir()
    return partial


def test_next_process_reads_what_is_missing(site: Site, wanted: config.Fetch, caplog: pytest.LogCaptureFixture) -> None:
    broken_off(site, wanted)
    caplog.set_level(logging.INFO, "evenkeel")
    assert fetch(pinned(wanted)).read_bytes() == DATA
    assert len(ranges(site)) == COUNT - COUNT // 2
    assert f"kept_bytes={COUNT // 2 * PART} " in caplog.text
    assert left(wanted) == ["large.bin"]


def _swapped(site: Site, partial: Path) -> None:
    site.versions[PATH], site.files[PATH] = "two", bytes(reversed(DATA))


def _longer(site: Site, partial: Path) -> None:
    site.files[PATH] = DATA + b"more"


def _torn(site: Site, partial: Path) -> None:
    os.truncate(partial / "data.journal", (partial / "data.journal").stat().st_size - 1)


def _zeros(site: Site, partial: Path) -> None:
    with (partial / "data.journal").open("ab") as journal:
        journal.write(bytes(9))


def _beyond(site: Site, partial: Path) -> None:
    with (partial / "data.journal").open("ab") as journal:
        journal.write(b"%08d\n" % COUNT)


def _no_journal(site: Site, partial: Path) -> None:
    (partial / "data.journal").unlink()


def _shorter(site: Site, partial: Path) -> None:
    os.truncate(partial / "data", PART)


def _no_data(site: Site, partial: Path) -> None:
    (partial / "data").unlink()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_swapped, id="another version"),
        pytest.param(_longer, id="another size under the same ETag"),
        pytest.param(_torn, id="a journal without its last byte"),
        pytest.param(_zeros, id="a journal with zeros, as a crash may leave them"),
        pytest.param(_beyond, id="a part that the file does not have"),
        pytest.param(_no_journal, id="no journal"),
        pytest.param(_shorter, id="data that is shorter"),
        pytest.param(_no_data, id="no data"),
    ],
)
def test_doubt_begins_anew(site: Site, wanted: config.Fetch, change: Callable[[Site, Path], None]) -> None:
    change(site, broken_off(site, wanted))
    assert fetch(wanted).read_bytes() == site.files[PATH]
    assert len(ranges(site)) == -(-len(site.files[PATH]) // PART) - 1


def test_kept_bytes_that_the_disk_has_lost_are_read_anew(site: Site, wanted: config.Fetch) -> None:
    with (broken_off(site, wanted) / "data").open("r+b") as data:
        data.write(bytes(PART))
    assert fetch(pinned(wanted)).read_bytes() == DATA
    assert left(wanted) == ["large.bin"]


def test_one_process_at_a_time(wanted: config.Fetch, site: Site) -> None:
    wanted.places.model_dir.mkdir()
    other = os.open(wanted.places.model_dir, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    try:
        assert "another process is fetching into" in failure_of(wanted).message
        assert site.heard == []
    finally:
        os.close(other)
    assert fetch(wanted).read_bytes() == DATA


def test_want_of_room_is_said_before_anything_is_read(
    site: Site, wanted: config.Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fstatvfs
    monkeypatch.setattr(os, "fstatvfs", lambda data: os.statvfs_result((4096, 4096, 9, 9, 9, *real(data)[5:])))
    failure = failure_of(wanted)
    assert failure.reason == Reason.DISK_FULL
    assert re.search(rf"needs {len(DATA)} bytes more .* and {9 * 4096} are free", failure.message)
    assert ranges(site) == []
    assert left(wanted) == []


FOLDER = {"large.bin": DATA, "parts/second.bin": DATA[::-1], "config.json": b"{}"}


def test_folder_goes_on_file_by_file(
    site: Site, told: config.Prepare, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a complete large file nothing is read again, of a broken one the parts that are missing."""
    monkeypatch.setenv("HF_ENDPOINT", site.url(""))
    commit, answered = "1" * 40, [0]
    for path, data in FOLDER.items():
        site.files[f"/ann/model/resolve/{commit}/{path}"] = data
        site.files[f"/ann/model/resolve/main/{path}"] = data
    site.headers["X-Repo-Commit"] = commit
    names = ", ".join(f'{{"rfilename": "{path}"}}' for path in FOLDER)

    def answer(path: str, headers: Message) -> Reply | None:
        if path.startswith("/api/"):
            return Reply(200, {}, f'{{"sha": "{commit}", "siblings": [{names}]}}'.encode())
        answered[0] += path.endswith(".bin")
        return Reply(503) if most < answered[0] and path.endswith("second.bin") else None

    site.answer = answer
    wanted = config.Fetch(
        "hf://ann/model", config.Model("Auto", digest(FOLDER).removeprefix("sha256:"), False), told.places
    )
    most = COUNT
    assert failure_of(wanted).reason == Reason.SOURCE_UNAVAILABLE
    most = 1 << 30
    site.heard.clear()
    caplog.set_level(logging.INFO, "evenkeel")
    assert read_back(fetch(wanted)) == FOLDER
    kept = int(re.findall(r"kept_bytes=(\d+)", caplog.text)[0])
    assert kept > PART
    assert len(ranges(site)) <= 2 * COUNT - kept // PART
    assert left(wanted) == ["model"]
