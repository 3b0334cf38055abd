"""Does `gs://` work with every kind of account, with cuts and with errors?

Google offers no server of its Cloud Storage to run, so the one here is ours: it answers as the XML API does, which
obstore speaks, checks the signature of a service account's tokens, and fails when it is told to.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from email.message import Message
from urllib.parse import parse_qs, urlsplit

import pytest

from evenkeel_runtime import config
from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch import transfer
from evenkeel_runtime.fetch.fetch import fetch
from evenkeel_runtime.prepare import prepare
from tests.system.runtime.test_folders import digest, fetching, read_back
from tests.system.runtime.test_sources import at, check, reason_of
from tests.system.runtime.webserver import Reply, Site, web_server

URI = "gs://models/v1/digits.pt2"
PATH = "/models/v1/digits.pt2"
ACCOUNT = "reader@project.iam.gserviceaccount.com"
POD_TOKEN = "ya29.of-the-pod"


@pytest.fixture(scope="module")
def key() -> str:
    """A private key, as PEM."""
    made = subprocess.run(["openssl", "genrsa", "2048"], check=True, capture_output=True, text=True)
    return made.stdout


@pytest.fixture(scope="module")
def modulus(key: str) -> int:
    told = ["openssl", "rsa", "-noout", "-modulus"]
    printed = subprocess.run(told, input=key, check=True, capture_output=True, text=True)
    return int(printed.stdout.partition("=")[2], 16)


@pytest.fixture
def account(key: str) -> dict[str, str]:
    """What `gcloud iam service-accounts keys create` writes."""
    return {"type": "service_account", "client_email": ACCOUNT, "private_key_id": "one", "private_key": key}


@pytest.fixture
def site(model: bytes, modulus: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A store with a public bucket `public` and a private one `models`, and the metadata server of a node."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_ROOT", "service-account.json"):
        monkeypatch.delenv(name, raising=False)

    def answer(path: str, headers: Message) -> Reply | None:
        if path.startswith("/computeMetadata/v1/instance/service-accounts/default/token"):
            assert headers["Metadata-Flavor"] == "Google"
            return Reply(200, {}, json.dumps({"access_token": POD_TOKEN, "expires_in": 3600}).encode())
        scheme, _, token = (headers["Authorization"] or "").partition(" ")
        if not path.startswith("/public/"):
            if not token:
                return _error(401, "AuthenticationRequired", "Authentication required.", "Anonymous caller")
            if scheme != "Bearer" or (token != POD_TOKEN and not _is_signed(token, modulus)):
                return _error(
                    403, "AccessDenied", "Access denied.", f"{ACCOUNT} does not have storage.objects.get access"
                )
        if path.partition("?")[0].rstrip("/") in ("/models", "/public"):
            return _page(found, path)
        if path.replace("%2F", "/").replace("%2E", ".") not in found.files:
            return _error(404, "NoSuchKey", "The specified key does not exist.", "No such object")
        return None

    with web_server(None) as found:
        found.headers = {"Last-Modified": "Tue, 24 Nov 2026 03:27:46 GMT", "x-goog-generation": "1790000000000000"}
        found.files[PATH] = found.files["/public/v1/digits.pt2"] = model
        found.answer = answer
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"localhost:{found.port}")
        yield found


def _page(site: Site, path: str) -> Reply:
    """One object of a listing, and the mark of the next, as the XML API answers."""
    parts = urlsplit(path)
    asked, base = parse_qs(parts.query), parts.path.rstrip("/") + "/"
    keys = sorted(name.removeprefix(base) for name in site.files if name.startswith(base + asked["prefix"][0]))
    at = int(asked.get("continuation-token", ["0"])[0])
    rows = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-11-24T03:27:46.000Z</LastModified>"
        f'<ETag>"one"</ETag><Size>{len(site.files[base + key])}</Size></Contents>'
        for key in keys[at : at + 1]
    )
    more = f"<NextContinuationToken>{at + 1}</NextContinuationToken>" if at + 1 < len(keys) else ""
    return Reply(
        200, {"Content-Type": "application/xml"}, f"<ListBucketResult>{rows}{more}</ListBucketResult>".encode()
    )


def _error(status: int, code: str, message: str, details: str) -> Reply:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message><Details>{details}</Details></Error>"
    return Reply(status, {"Content-Type": "application/xml"}, f"<?xml version='1.0' encoding='UTF-8'?>{body}".encode())


def _is_signed(token: str, modulus: int) -> bool:
    """Whether the token is the account's, signed with its key: RSA with SHA-256, padded as PKCS #1 v1.5 says."""
    head, claims, signature = token.split(".")
    digest = hashlib.sha256(f"{head}.{claims}".encode()).digest()
    marked = bytes.fromhex("3031300d060960864801650304020105000420") + digest
    padded = b"\0\1" + b"\xff" * (256 - len(marked) - 3) + b"\0" + marked
    opened = pow(int.from_bytes(_decoded(signature)), 65537, modulus)
    return json.loads(_decoded(claims))["iss"] == ACCOUNT and opened.to_bytes(256) == padded


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


@pytest.fixture
def with_account(site: Site, account: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("service-account.json", json.dumps(account))


@pytest.mark.parametrize("whole_bytes", [1 << 30, 1000], ids=["fetched whole", "hashed, then read by range"])
@pytest.mark.usefixtures("with_account")
def test_service_account(site: Site, told: config.Prepare, model: bytes, whole_bytes: int) -> None:
    check(prepare(at(told, URI, hashlib.sha256(model).hexdigest(), whole_bytes)), model)
    assert (len(site.heard) > 1) == (whole_bytes == 1000)


def test_public_bucket_without_an_account(site: Site, told: config.Prepare, model: bytes) -> None:
    check(prepare(at(told, "gs://public/v1/digits.pt2")), model)
    assert [heard[2] for heard in site.heard] == [None]


def test_account_of_the_pod(site: Site, told: config.Prepare, model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", f"localhost:{site.port}")
    check(prepare(at(told, URI)), model)
    assert site.heard[-1][2] == f"Bearer {POD_TOKEN}"


def test_pod_without_an_account(site: Site, told: config.Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both names of the metadata server are asked."""
    for name in ("GCE_METADATA_HOST", "GCE_METADATA_IP"):
        monkeypatch.setenv(name, f"localhost:{site.port}")
    site.faults = [404, 404]
    with pytest.raises(ModelError, match="workload identity") as failure:
        prepare(at(told, URI))
    assert failure.value.reason == Reason.ACCESS_DENIED


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(["cut"], id="an end at half"),
        pytest.param(["reset", "reset"], id="resets"),
        pytest.param([503, 429, 500], id="errors that pass"),
        pytest.param(["cut", 503, "cut", 502], id="both"),
    ],
)
@pytest.mark.usefixtures("with_account")
def test_transient_failures_are_outlived(
    site: Site, told: config.Prepare, model: bytes, faults: list[int | str]
) -> None:
    site.faults = list(faults)
    check(prepare(at(told, URI)), model)
    assert len(site.heard) == len(faults) + 1


@pytest.mark.usefixtures("with_account")
def test_reading_is_resumed_where_it_broke_off(site: Site, told: config.Prepare) -> None:
    """Of more than one chunk: what has arrived of a chunk is lost with it."""
    large = site.files[PATH] = os.urandom(5 << 20)
    site.faults = ["cut"]
    found = prepare(dataclasses.replace(at(told, URI), inspect=False))
    assert found.digest == f"sha256:{hashlib.sha256(large).hexdigest()}"
    resumed = re.fullmatch(r"bytes=(\d+)-\d*", site.heard[-1][1] or "")
    assert resumed
    assert int(resumed[1]) >= 1 << 20


@pytest.mark.usefixtures("with_account")
def test_versions_are_never_mixed(site: Site, told: config.Prepare) -> None:
    site.faults = ["swap"]
    assert reason_of(at(told, URI)) == Reason.MODEL_CHANGED


@pytest.mark.usefixtures("with_account")
def test_store_that_never_recovers(site: Site, told: config.Prepare) -> None:
    site.faults = [503] * 50
    assert reason_of(at(told, URI)) == Reason.SOURCE_UNAVAILABLE
    assert len(site.heard) == transfer.Patience().attempts


@pytest.mark.parametrize("uri", ["gs://models/whole", "gs://models/whole/"])
@pytest.mark.usefixtures("with_account")
def test_folder_whose_listing_has_several_pages(site: Site, told: config.Prepare, uri: str) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"weights" * 5000, "parts/one.txt": b"x"}
    site.files |= {f"/models/whole/{path}": data for path, data in files.items()}
    site.files["/models/whole-not/config.json"] = b"a sibling whose name begins alike"
    found = prepare(dataclasses.replace(at(told, uri), inspect=False))
    assert (found.digest, found.file) == (digest(files), "whole/")
    assert read_back(fetch(fetching(told, uri, found))) == files


@pytest.mark.usefixtures("with_account")
def test_no_such_object(site: Site, told: config.Prepare) -> None:
    with pytest.raises(ModelError, match="No such object") as failure:
        prepare(at(told, "gs://models/v2/digits.pt2"))
    assert failure.value.reason == Reason.MODEL_NOT_FOUND
    assert len(site.heard) == 2  # as a file, and then as a folder


def test_private_bucket_without_an_account(site: Site, told: config.Prepare) -> None:
    with pytest.raises(ModelError, match=r"Anonymous caller.*Storage Object Viewer.*service-account\.json") as failure:
        prepare(at(told, URI))
    assert failure.value.reason == Reason.ACCESS_DENIED
    assert len(site.heard) == 1


def test_account_that_may_not(
    site: Site, told: config.Prepare, account: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("service-account.json", json.dumps(account | {"client_email": "somebody@else"}))
    with pytest.raises(ModelError, match=r"does not have storage\.objects\.get access") as failure:
        prepare(at(told, URI))
    assert failure.value.reason == Reason.ACCESS_DENIED


@pytest.mark.parametrize(
    ("text", "word"),
    [
        pytest.param("/var/key.json", "no key of a service account", id="a path"),
        pytest.param("[]", "no key of a service account", id="other JSON"),
        pytest.param('{"type": "authorized_user"}', "'authorized_user'", id="a person's login"),
        pytest.param('{"type": "service_account"}', "without client_email, private_key", id="an account without a key"),
    ],
)
def test_secret_that_holds_no_account(
    site: Site, told: config.Prepare, monkeypatch: pytest.MonkeyPatch, text: str, word: str
) -> None:
    monkeypatch.setenv("service-account.json", text)
    with pytest.raises(ModelError, match=word) as failure:
        prepare(at(told, URI))
    assert failure.value.reason == Reason.ACCESS_DENIED
    assert site.heard == []


def test_secret_with_a_key_that_is_none(
    site: Site, told: config.Prepare, account: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "not to be told"
    monkeypatch.setenv("service-account.json", json.dumps(account | {"private_key": secret}))
    with pytest.raises(ModelError, match="reading gs://") as failure:
        prepare(at(told, URI))
    assert failure.value.reason == Reason.ACCESS_DENIED
    assert secret not in failure.value.message


def test_nobody_listens(site: Site, told: config.Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    assert reason_of(dataclasses.replace(told, uri=URI)) == Reason.SOURCE_UNAVAILABLE
