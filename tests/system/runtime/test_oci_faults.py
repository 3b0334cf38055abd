"""What does a registry have to do to fail an `oci://` address? What a real one does not do when it is told to: another
speaks its protocol here, over TLS, on a loopback address that counts as somewhere else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from evenkeel_runtime import config
from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch import transfer
from evenkeel_runtime.prepare import prepare
from tests.system.runtime.dockerregistry import INDEX, MANIFEST
from tests.system.runtime.test_sources import at, check, reason_of
from tests.system.runtime.webserver import Reply, Site, web_server

ADDRESS = "127.0.0.2"
BLOBS = "/v2/models/digits.pt2/blobs/"
MANIFESTS = "/v2/models/digits.pt2/manifests/"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class FakeRegistry:
    """One artifact under any tag. `challenge` is sent to whoever has no Authorization of `accepted`."""

    def __init__(self, site: Site, model: bytes) -> None:
        self.site = site
        self.blob = BLOBS + digest_of(model)
        self.manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "layers": [{"mediaType": "application/octet-stream", "digest": digest_of(model), "size": len(model)}],
        }
        self.challenge: list[str] = []
        self.accepted: set[str] = set()
        self.token_reply = Reply(200, {}, b'{"access_token": "t0ken"}')
        site.files[self.blob] = model
        site.answer = self.answer

    @property
    def uri(self) -> str:
        return f"oci://{ADDRESS}:{self.site.port}/models/digits.pt2:v1"

    def answer(self, path: str, headers: Message) -> Reply | None:
        if path.startswith("/token"):
            return self.token_reply
        if self.challenge and headers["Authorization"] not in self.accepted:
            return Reply(401, {"WWW-Authenticate": self.challenge[0]})
        if path.startswith(MANIFESTS):
            assert MANIFEST in headers["Accept"]
            return Reply(200, {"Content-Type": self.manifest["mediaType"]}, json.dumps(self.manifest).encode())
        return None


@pytest.fixture
def registry(certificates: tuple[Path, Path], model: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRegistry]:
    authority, certificate = certificates
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    for name in ("username", "password", ".dockerconfigjson", "OCI_PLAIN_HTTP"):
        monkeypatch.delenv(name, raising=False)
    with web_server(certificate, ADDRESS) as site:
        yield FakeRegistry(site, model)


def test_registry_elsewhere_is_read_over_tls(registry: FakeRegistry, told: config.Prepare, model: bytes) -> None:
    check(prepare(at(told, registry.uri)), model)


def test_registry_elsewhere_without_tls(told: config.Prepare, model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server(None, ADDRESS) as site:
        found = FakeRegistry(site, model)
        with pytest.raises(ModelError, match=r"does not speak TLS.*OCI_PLAIN_HTTP") as failure:
            prepare(at(told, found.uri))
        assert failure.value.reason == Reason.SOURCE_UNAVAILABLE
        assert site.heard == []
        monkeypatch.setenv("OCI_PLAIN_HTTP", "true")
        check(prepare(at(told, found.uri)), model)


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(["", "cut"], id="an end at half"),
        pytest.param(["", "reset", "reset"], id="resets"),
        pytest.param([429, 503], id="errors before the manifest"),
        pytest.param(["", 429, "", 500], id="errors before the blob"),
        pytest.param(["", "cut", 503, "cut", 502], id="both"),
    ],
)
def test_transient_failures_are_outlived(
    registry: FakeRegistry, told: config.Prepare, model: bytes, faults: list[int | str]
) -> None:
    registry.site.faults = list(faults)
    check(prepare(at(told, registry.uri)), model)
    if "cut" in faults:
        assert any(heard[1] for heard in registry.site.heard)  # resumed, not begun again


def test_versions_are_never_mixed(registry: FakeRegistry, told: config.Prepare) -> None:
    registry.site.faults = ["", "swap"]
    assert reason_of(at(told, registry.uri)) == Reason.CHECKSUM_MISMATCH


@pytest.mark.parametrize("before", [pytest.param([], id="manifest"), pytest.param([""], id="blob")])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (403, Reason.ACCESS_DENIED),
        (404, Reason.MODEL_NOT_FOUND),
        (400, Reason.SOURCE_UNAVAILABLE),
    ],
)
def test_final_answers_are_not_asked_again(
    registry: FakeRegistry, told: config.Prepare, before: list[int | str], fault: int, reason: Reason
) -> None:
    registry.site.faults = [*before, fault]
    with pytest.raises(ModelError, match=rf"{ADDRESS}:{registry.site.port} answered {fault}") as failure:
        prepare(at(told, registry.uri))
    assert failure.value.reason == reason
    assert len(registry.site.heard) == len(before) + 1


@pytest.mark.parametrize("status", [429, 503])
def test_registry_that_never_recovers(registry: FakeRegistry, told: config.Prepare, status: int) -> None:
    registry.site.faults = [status] * 50
    assert reason_of(at(told, registry.uri)) == Reason.SOURCE_UNAVAILABLE
    assert len(registry.site.heard) == transfer.Patience().attempts


def test_manifest_of_another_digest(registry: FakeRegistry, told: config.Prepare) -> None:
    promised = f"sha256:{'ab' * 32}"
    with pytest.raises(ModelError, match=f"stored as {promised}") as failure:
        prepare(at(told, f"{registry.uri}@{promised}"))
    assert failure.value.reason == Reason.CHECKSUM_MISMATCH


@pytest.mark.parametrize(
    ("manifest", "reason", "words"),
    [
        pytest.param([], Reason.SOURCE_UNAVAILABLE, "no manifest", id="a list"),
        pytest.param({"layers": [{"digest": "sha512:00"}]}, Reason.INVALID, "no sha256", id="another digest"),
        pytest.param({"layers": [{"digest": "sha256:../x"}]}, Reason.INVALID, "no sha256", id="a path as a digest"),
        pytest.param({"layers": "all"}, Reason.INVALID, "no files at all", id="layers that are none"),
        pytest.param({"fsLayers": []}, Reason.INVALID, "no files at all", id="the first version of the format"),
        pytest.param({"x": "x" * (5 << 20)}, Reason.SOURCE_UNAVAILABLE, "more than", id="a manifest without end"),
    ],
)
def test_manifest_that_makes_no_sense(
    registry: FakeRegistry, told: config.Prepare, manifest: Any, reason: Reason, words: str
) -> None:
    registry.site.answer = lambda path, headers: Reply(200, {}, json.dumps(manifest).encode())
    with pytest.raises(ModelError, match=words) as failure:
        prepare(at(told, registry.uri))
    assert failure.value.reason == reason


def test_index_of_an_index(registry: FakeRegistry, told: config.Prepare) -> None:
    registry.manifest = {"mediaType": INDEX, "manifests": []}
    inner = json.dumps(registry.manifest).encode()
    outer = {"mediaType": INDEX, "manifests": [{"mediaType": MANIFEST, "digest": digest_of(inner)}]}
    registry.site.answer = lambda path, headers: Reply(
        200, {}, inner if "sha256:" in path else json.dumps(outer).encode()
    )
    with pytest.raises(ModelError, match="index of an index"):
        prepare(at(told, registry.uri))


def bearer(registry: FakeRegistry, path: str = "/token", scheme: str = "https") -> str:
    return f'Bearer realm="{scheme}://{ADDRESS}:{registry.site.port}{path}", service=plain'


def test_token_without_a_password(registry: FakeRegistry, told: config.Prepare, model: bytes) -> None:
    """As Docker Hub does for public repositories; the scope is ours where the registry names none."""
    registry.challenge, registry.accepted = [bearer(registry)], {"Bearer t0ken"}
    check(prepare(at(told, registry.uri)), model)
    asked = [heard for heard in registry.site.heard if heard[0].startswith("/token")]
    assert [(urlsplit(path).query, authorization) for path, _, authorization in asked] == [
        ("scope=repository%3Amodels%2Fdigits.pt2%3Apull&service=plain", None)
    ]


def test_token_that_ends_before_the_blob_does(registry: FakeRegistry, told: config.Prepare, model: bytes) -> None:
    registry.challenge, registry.accepted = [bearer(registry)], {"Bearer t0ken"}
    plain = registry.answer

    def answer(path: str, headers: Message) -> Reply | None:
        if headers["Range"] and "Bearer t0ken" in registry.accepted:
            registry.accepted = {"Bearer another"}
            registry.token_reply = Reply(200, {}, b'{"token": "another"}')
        return plain(path, headers)

    registry.site.answer = answer
    registry.site.faults = ["", "", "", "cut"]  # 401, token, manifest, blob
    check(prepare(at(told, registry.uri)), model)
    assert len([heard for heard in registry.site.heard if heard[0].startswith("/token")]) == 2


@pytest.mark.parametrize(
    ("challenge", "token", "reason", "words"),
    [
        pytest.param("BEARER", b"{}", Reason.SOURCE_UNAVAILABLE, "without a token", id="an answer without a token"),
        pytest.param("BEARER", b"<p>", Reason.SOURCE_UNAVAILABLE, "without a token", id="an answer that is no JSON"),
        pytest.param("BEARER", b'{"token": "x"}', Reason.ACCESS_DENIED, "repository's name", id="a token of no use"),
        pytest.param("PLAIN", b"", Reason.SOURCE_UNAVAILABLE, "not encrypted", id="a token from an open connection"),
        pytest.param("Bearer", b"", Reason.SOURCE_UNAVAILABLE, "from nowhere", id="a token from nowhere"),
        pytest.param("Negotiate", b"", Reason.ACCESS_DENIED, "Negotiate", id="another way to log in"),
    ],
)
def test_challenge_that_leads_nowhere(
    registry: FakeRegistry,
    told: config.Prepare,
    monkeypatch: pytest.MonkeyPatch,
    challenge: str,
    token: bytes,
    reason: Reason,
    words: str,
) -> None:
    monkeypatch.setenv("username", "ann")
    known = {"BEARER": bearer(registry), "PLAIN": bearer(registry, scheme="http")}
    registry.challenge, registry.accepted = [known.get(challenge, challenge)], {"Bearer t0ken"}
    registry.token_reply = Reply(200, {}, token)
    with pytest.raises(ModelError, match=words) as failure:
        prepare(at(told, registry.uri))
    assert failure.value.reason == reason
