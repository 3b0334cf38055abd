"""Does `hf://` read files of one commit, with tokens, redirects to content servers, cuts and errors?

The Hugging Face Hub cannot be reached from a test that has to pass anywhere, and offers no server to run, so the two
here are ours: one answers as the hub does (the commit and the sha256 in the headers of a redirect, the kind of an error
in `X-Error-Code`), one as its content servers do, and both fail when they are told to.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from email.message import Message
from urllib.parse import unquote

import pytest

from evenkeel_runtime import config
from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch import transfer
from evenkeel_runtime.fetch.fetch import fetch
from evenkeel_runtime.prepare import prepare
from tests.system.runtime.test_folders import digest, fetching
from tests.system.runtime.test_sources import at, check, reason_of
from tests.system.runtime.webserver import Reply, Site, web_server

URI = "hf://ann/digits/v1/digits.pt2"
TOKEN = "hf_of_ann"
ONE, TWO = "1" * 40, "2" * 40


@dataclass
class Hub:
    """The hub at `api`, its content server at `content`; `files` holds (commit, path) of the repository ann/digits."""

    api: Site
    content: Site
    revisions: dict[str, str] = field(default_factory=lambda: {"main": ONE, ONE: ONE, TWO: TWO})
    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    is_private: bool = False
    is_gated: bool = False
    readers: tuple[str, ...] = (TOKEN,)
    wrong_sha256: str = ""
    is_stored_in_git: bool = False

    def put(self, commit: str, path: str, data: bytes) -> None:
        self.files[commit, path] = data
        self.content.files[f"/{hashlib.sha256(data).hexdigest()}"] = data

    def answer(self, path: str, headers: Message) -> Reply | None:
        asked = re.fullmatch(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", path)
        listing = re.fullmatch(r"/api/models/(?P<repository>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)", path)
        asked = asked or listing
        if asked is None:
            return None  # a redirect's target
        token = (headers["Authorization"] or "").removeprefix("Bearer ")
        if token and token not in self.readers and token != "hf_of_bob":
            return _refused(401, "", "Invalid credentials in Authorization header")
        if asked["repository"] != "ann/digits" or (self.is_private and token not in self.readers):
            return _refused(404 if token else 401, "RepoNotFound", "Repository not found")
        if self.is_gated and token not in self.readers:
            return _refused(403 if token else 401, "GatedRepo", "Access to model ann/digits is restricted.")
        commit = self.revisions.get(unquote(asked["revision"]))
        if commit is None:
            return _refused(404, "RevisionNotFound", f"Invalid rev id: {asked['revision']}")
        if listing is not None:
            names = [{"rfilename": name} for of, name in self.files if of == commit]
            return Reply(200, {}, json.dumps({"sha": commit, "siblings": names}).encode())
        data = self.files.get((commit, unquote(asked["path"])))
        if data is None:
            return _refused(404, "EntryNotFound", "Entry not found")
        stated = {"X-Repo-Commit": commit}
        if self.is_stored_in_git:
            return Reply(200, stated | {"ETag": '"0123456789abcdef0123456789abcdef01234567"'}, data)
        sha256 = hashlib.sha256(data).hexdigest()
        linked = {"X-Linked-Etag": f'"{self.wrong_sha256 or sha256}"', "X-Linked-Size": str(len(data))}
        place = self.content.url(f"/{sha256}?Signature=abc", host="127.0.0.1")
        return Reply(302, stated | linked | {"Location": place})


def _refused(status: int, code: str, message: str) -> Reply:
    return Reply(status, {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {}))


@pytest.fixture
def hub(model: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "token"):
        monkeypatch.delenv(name, raising=False)
    with ExitStack() as servers:
        found = Hub(servers.enter_context(web_server(None)), servers.enter_context(web_server(None)))
        found.api.answer = found.answer
        found.put(ONE, "v1/digits.pt2", model)
        monkeypatch.setenv("HF_ENDPOINT", found.api.url("/").rstrip("/"))
        yield found


@pytest.mark.parametrize("whole_bytes", [1 << 30, 1000], ids=["fetched whole", "hashed, then read by range"])
def test_public_file(hub: Hub, told: config.Prepare, model: bytes, whole_bytes: int) -> None:
    check(prepare(at(told, URI, hashlib.sha256(model).hexdigest(), whole_bytes)), model)
    assert (len(hub.content.heard) > 1) == (whole_bytes == 1000)
    revisions = [heard[0].split("/")[4] for heard in hub.api.heard]
    assert revisions == ["main", *[ONE] * (len(revisions) - 1)]  # resolved once, and read by its commit


def test_small_file_that_lies_in_git_itself(hub: Hub, told: config.Prepare, model: bytes) -> None:
    hub.is_stored_in_git = True
    check(prepare(at(told, URI)), model)
    assert hub.content.heard == []


@pytest.mark.parametrize("variable", ["HF_TOKEN", "token"])
def test_token_is_for_the_hub_alone(
    hub: Hub, told: config.Prepare, model: bytes, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    hub.is_private = hub.is_gated = True
    monkeypatch.setenv(variable, f"{TOKEN}\n")  # as it is in a file that an editor wrote
    check(prepare(at(told, URI)), model)
    assert [heard[2] for heard in hub.api.heard] == [f"Bearer {TOKEN}"] * 2
    assert [heard[2] for heard in hub.content.heard] == [None]


def test_renamed_repository_gets_the_token_again(
    hub: Hub, told: config.Prepare, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.is_private = True
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    def answer(path: str, headers: Message) -> Reply | None:
        if path.startswith("/ann/numbers/"):
            return Reply(307, {"Location": path.replace("numbers", "digits")})
        return hub.answer(path, headers)

    hub.api.answer = answer
    check(prepare(at(told, URI.replace("ann/digits", "ann/numbers"))), model)


@pytest.mark.parametrize(
    ("revision", "path"),
    [
        pytest.param("@v1.0", "v1/digits.pt2", id="a tag"),
        pytest.param(f"@{TWO}", "v1/digits.pt2", id="a commit"),
        pytest.param("@refs%2Fpr%2F7", "v1/digits.pt2", id="a branch with slashes"),
        pytest.param("@v1.0", "für alle/digits.pt2", id="a path that needs quoting"),
    ],
)
def test_revisions(hub: Hub, told: config.Prepare, model: bytes, revision: str, path: str) -> None:
    hub.revisions |= {"v1.0": TWO, "refs/pr/7": TWO}
    hub.put(TWO, path, model)
    hub.files[ONE, "v1/digits.pt2"] = b"of the main branch"
    check(prepare(at(told, f"hf://ann/digits{revision}/{path}")), model)


@pytest.mark.parametrize(
    ("where", "faults"),
    [
        pytest.param("content", ["cut"], id="an end at half"),
        pytest.param("content", ["cut"] * 7, id="more cuts than attempts, each after progress"),
        pytest.param("content", ["reset", "reset"], id="resets"),
        pytest.param("content", ["cut", 503, "cut", 429], id="errors of the content server"),
        pytest.param("api", [503, 429, 500], id="errors of the hub"),
    ],
)
def test_transient_failures_are_outlived(
    hub: Hub, told: config.Prepare, model: bytes, where: str, faults: list[int | str]
) -> None:
    (hub.content if where == "content" else hub.api).faults = list(faults)
    check(prepare(at(told, URI)), model)
    if "cut" in faults:
        assert any(heard[1] for heard in hub.content.heard)  # resumed, not begun again


def test_branch_that_moves_while_it_is_read(hub: Hub, told: config.Prepare, model: bytes) -> None:
    def push(path: str, headers: Message) -> None:
        hub.put(TWO, "v1/digits.pt2", bytes(reversed(model)))
        hub.revisions["main"] = TWO

    hub.content.answer = push
    hub.content.faults = ["cut"]
    check(prepare(at(told, URI)), model)
    assert len(hub.content.heard) == 2, "it was cut"


def test_content_that_changes_while_it_is_read(hub: Hub, told: config.Prepare) -> None:
    """The hub states the sha256: two versions put together have another one."""
    hub.content.faults = ["swap"]
    assert reason_of(at(told, URI)) == Reason.CHECKSUM_MISMATCH


def test_content_of_another_size(hub: Hub, told: config.Prepare, model: bytes) -> None:
    def shrink(path: str, headers: Message) -> None:
        if headers["Range"]:
            hub.content.files[path.partition("?")[0]] = model + b"more"

    hub.content.answer = shrink
    hub.content.faults = ["cut"]
    assert reason_of(at(told, URI)) == Reason.MODEL_CHANGED


def test_bytes_that_are_not_those_of_the_hub(hub: Hub, told: config.Prepare, model: bytes) -> None:
    hub.wrong_sha256 = "ab" * 32
    with pytest.raises(ModelError, match="stored as sha256:abab") as failure:
        prepare(at(told, URI))
    assert failure.value.reason == Reason.CHECKSUM_MISMATCH
    assert hashlib.sha256(model).hexdigest() in failure.value.message


@pytest.mark.parametrize(
    ("uri", "token", "reason", "words"),
    [
        pytest.param("hf://ann/none/x.pt2", "", Reason.MODEL_NOT_FOUND, "HF_TOKEN", id="no such repository"),
        pytest.param("hf://ann/none/x.pt2", TOKEN, Reason.MODEL_NOT_FOUND, "HF_TOKEN", id="none for the token either"),
        pytest.param(URI.replace("/v1", "@v9/v1"), "", Reason.MODEL_NOT_FOUND, "Invalid rev id: v9", id="no such tag"),
        pytest.param("hf://ann/digits/x.pt2", "", Reason.MODEL_NOT_FOUND, "Entry not found", id="no such file"),
        pytest.param(URI, "hf_old", Reason.ACCESS_DENIED, "wrong or expired", id="a token that is not known"),
    ],
)
def test_what_is_not_there(
    hub: Hub,
    told: config.Prepare,
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
    token: str,
    reason: Reason,
    words: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ModelError, match=words) as failure:
        prepare(at(told, uri))
    assert failure.value.reason == reason
    assert len(hub.api.heard) == (2 if reason == Reason.MODEL_NOT_FOUND else 1)  # as a file, and then as a folder


@pytest.mark.parametrize("token", [pytest.param("", id="401"), pytest.param("hf_of_bob", id="403")])
def test_gated_repository(hub: Hub, told: config.Prepare, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    hub.is_gated = True
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(
        ModelError, match=rf"gated.*ask for access on {hub.api.url('/ann/digits')}.*HF_TOKEN"
    ) as failure:
        prepare(at(told, URI))
    assert failure.value.reason == Reason.ACCESS_DENIED


@pytest.mark.parametrize(
    ("where", "fault", "reason"),
    [
        ("api", 401, Reason.ACCESS_DENIED),
        ("api", 403, Reason.ACCESS_DENIED),
        ("api", 404, Reason.MODEL_NOT_FOUND),
        ("api", 400, Reason.SOURCE_UNAVAILABLE),
        ("content", 403, Reason.ACCESS_DENIED),
        ("content", 404, Reason.MODEL_NOT_FOUND),
    ],
)
def test_final_answers_name_their_server(
    hub: Hub, told: config.Prepare, where: str, fault: int, reason: Reason
) -> None:
    site = hub.api if where == "api" else hub.content
    site.faults = [fault]
    with pytest.raises(ModelError, match=rf":{site.port} answered {fault}") as failure:
        prepare(at(told, URI))
    assert failure.value.reason == reason
    assert len([heard for heard in site.heard if not heard[0].startswith("/api/")]) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_hub_that_never_recovers(hub: Hub, told: config.Prepare, status: int) -> None:
    hub.api.faults = [status] * 50
    assert reason_of(at(told, URI)) == Reason.SOURCE_UNAVAILABLE
    assert len(hub.api.heard) == transfer.Patience().attempts


def test_endpoint_that_is_no_hub(hub: Hub, told: config.Prepare, model: bytes) -> None:
    hub.api.answer = lambda path, headers: Reply(200, {}, b"welcome")
    with pytest.raises(ModelError, match="correct HF_ENDPOINT") as failure:
        prepare(dataclasses.replace(told, uri=URI))
    assert failure.value.reason == Reason.SOURCE_UNAVAILABLE


@pytest.mark.parametrize(
    ("uri", "name", "want"),
    [
        pytest.param("hf://ann/digits", "digits/", ["config.json", "v1/digits.pt2"], id="the repository"),
        pytest.param("hf://ann/digits@main/", "digits/", ["config.json", "v1/digits.pt2"], id="of a branch"),
        pytest.param("hf://ann/digits/v1", "v1/", ["digits.pt2"], id="a folder in it"),
        pytest.param("hf://ann/digits/v1/", "v1/", ["digits.pt2"], id="a folder that says so"),
    ],
)
def test_folder_of_one_commit(
    hub: Hub, told: config.Prepare, model: bytes, uri: str, name: str, want: list[str]
) -> None:
    hub.put(ONE, "config.json", b"{}")
    hub.put(TWO, "v1/digits.pt2", b"retrained")
    found = prepare(dataclasses.replace(at(told, uri), inspect=False))
    files = {"config.json": b"{}", "v1/digits.pt2": model, "digits.pt2": model}
    assert found.digest == digest({path: files[path] for path in want})
    assert found.file == name
    hub.revisions["main"] = TWO
    with pytest.raises(ModelError, match=r"digits\.pt2 changed") as failure:
        fetch(fetching(told, uri, found))
    assert failure.value.reason == Reason.MODEL_CHANGED
