"""Does `oci://` work against a real registry, as anybody, by password and by token, redirected and damaged?"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import subprocess
import time
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from evenkeel_runtime import config
from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch import address
from evenkeel_runtime.fetch.fetch import fetch
from evenkeel_runtime.fetch.web import basic
from evenkeel_runtime.prepare import prepare
from tests.system.runtime.dockerregistry import Registry, docker_registry
from tests.system.runtime.test_bucket import CuttingProxy
from tests.system.runtime.test_folders import digest, fetching, read_back
from tests.system.runtime.test_sources import at, check, reason_of
from tests.system.runtime.webserver import Reply, Site, web_server

REPOSITORY = "team/digits.pt2"
USER, PASSWORD = "ann", "s3cret"
HTPASSWD = "ann:$2y$05$K7q1VnX0m2tQ9sLw3eRz5u/Nr6.uWloQeY1NYNjaT/4xH6jDaZpr2\n"
"""`htpasswd -nbB ann s3cret`"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registries")


@pytest.fixture(scope="module")
def registry(work: Path, model: bytes) -> Iterator[Registry]:
    """Asks for nothing; the others below are over the same blobs."""
    with docker_registry(work / "blobs", work) as found:
        weights = found.layer(REPOSITORY, model, "digits.pt2")
        found.push(REPOSITORY, "v1", weights)
        found.push(REPOSITORY, "latest", weights)
        card = found.layer(REPOSITORY, b"# Digits", "docs/README.md")
        found.push(REPOSITORY, "several", weights, card)
        found.push(REPOSITORY, "untitled", found.layer(REPOSITORY, b"a layer"), found.layer(REPOSITORY, b"another"))
        folder = found.layer(REPOSITORY, b"tar", "models", **{"io.deis.oras.content.unpack": "true"})
        found.push(REPOSITORY, "folder", folder)
        found.push(REPOSITORY, "empty")
        one, two = found.push(REPOSITORY, "one", weights), found.push(REPOSITORY, "two", card)
        found.push_index(REPOSITORY, "index", one)
        found.push_index(REPOSITORY, "indexes", one, two)
        yield found


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("username", "password", ".dockerconfigjson", "OCI_PLAIN_HTTP"):
        monkeypatch.delenv(name, raising=False)


def uri(registry: Registry, rest: str = ":v1") -> str:
    return f"oci://{registry.host}/{REPOSITORY}{rest}"


def failure_of(told: config.Prepare) -> ModelError:
    with pytest.raises(ModelError) as failure:
        prepare(told)
    return failure.value


@pytest.mark.parametrize("whole_bytes", [1 << 30, 1000], ids=["fetched whole", "hashed, then read by range"])
def test_artifact(registry: Registry, told: config.Prepare, model: bytes, whole_bytes: int) -> None:
    check(prepare(at(told, uri(registry), hashlib.sha256(model).hexdigest(), whole_bytes)), model)


@pytest.mark.parametrize(
    "rest", ["", ":v1", "@DIGEST", ":gone@DIGEST", ":index", ":v1#digits.pt2", ":several#digits.pt2"]
)
def test_ways_to_name_it(registry: Registry, told: config.Prepare, model: bytes, rest: str) -> None:
    digest = registry.push(REPOSITORY, "again", registry.layer(REPOSITORY, model, "digits.pt2"))
    check(prepare(at(told, uri(registry, rest.replace("DIGEST", digest)))), model)


def test_docker_image_of_one_layer(registry: Registry, told: config.Prepare, model: bytes) -> None:
    docker = "application/vnd.docker"
    layer = registry.layer(REPOSITORY, model, media_type=f"{docker}.image.rootfs.diff.tar.gzip")
    image = registry.layer(REPOSITORY, b"{}", media_type=f"{docker}.container.image.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": f"{docker}.distribution.manifest.v2+json"}
    registry.push_manifest(REPOSITORY, "docker", manifest | {"config": image, "layers": [layer]})
    check(prepare(at(told, uri(registry, ":docker"))), model)


@pytest.mark.parametrize("rest", [":several", ":several@DIGEST", "/"])
def test_artifact_of_several_files_is_a_folder(
    registry: Registry, told: config.Prepare, model: bytes, rest: str
) -> None:
    files = {"digits.pt2": model, "docs/README.md": b"# Digits"}
    layers = [registry.layer(REPOSITORY, data, path) for path, data in files.items()]
    pushed = registry.push(REPOSITORY, "several", *layers)
    registry.push(REPOSITORY, "latest", *layers)
    address = uri(registry, rest.replace("DIGEST", pushed))
    try:
        found = prepare(dataclasses.replace(at(told, address), inspect=False))
        assert (found.digest, found.file) == (digest(files), "digits.pt2/")
        assert read_back(fetch(fetching(told, address, found))) == files
    finally:
        registry.push(REPOSITORY, "latest", registry.layer(REPOSITORY, model, "digits.pt2"))


def test_folder_of_an_artifact(registry: Registry, told: config.Prepare) -> None:
    address = uri(registry, ":several#docs/")
    found = prepare(dataclasses.replace(at(told, address), inspect=False))
    assert (found.digest, found.file) == (digest({"README.md": b"# Digits"}), "docs/")


def test_artifact_whose_files_lead_out_of_the_folder(registry: Registry, told: config.Prepare) -> None:
    layers = [registry.layer(REPOSITORY, title.encode(), title) for title in ("config.json", "../../etc/cron.d/x")]
    registry.push(REPOSITORY, "climbing", *layers)
    failure = failure_of(at(told, uri(registry, ":climbing")))
    assert failure.reason == Reason.INVALID
    assert "leads elsewhere" in failure.message


@pytest.mark.parametrize(
    ("rest", "reason", "words"),
    [
        pytest.param(":several", Reason.FORMAT_REFUSED, "digits.pt2, docs/README.md; .* name it", id="several files"),
        pytest.param(":several#x", Reason.MODEL_NOT_FOUND, "digits.pt2, docs/README.md", id="another file"),
        pytest.param(":untitled", Reason.INVALID, "without a title", id="several files without names"),
        pytest.param(":folder", Reason.INVALID, "models is a folder", id="a folder"),
        pytest.param(":empty", Reason.INVALID, "no files at all", id="no layers"),
        pytest.param(":indexes", Reason.INVALID, "index of 2 manifests.*@DIGEST: sha256:", id="an index of several"),
        pytest.param(":v9", Reason.MODEL_NOT_FOUND, "MANIFEST_UNKNOWN", id="no such tag"),
        pytest.param(f"@sha256:{'0' * 64}", Reason.MODEL_NOT_FOUND, "MANIFEST_UNKNOWN", id="no such digest"),
        pytest.param("/none:v1", Reason.MODEL_NOT_FOUND, "UNKNOWN", id="no such repository"),
    ],
)
def test_what_is_not_one_model(registry: Registry, told: config.Prepare, rest: str, reason: Reason, words: str) -> None:
    with pytest.raises(ModelError, match=words) as failure:
        prepare(at(told, uri(registry, rest)))
    assert failure.value.reason == reason


def test_connection_that_is_cut_is_resumed(registry: Registry, told: config.Prepare, model: bytes) -> None:
    """The first connection is the manifest's, and too short to be cut."""
    with CuttingProxy(registry.port, cuts=3, after_bytes=len(model) // 2) as (port, connections):
        check(prepare(at(told, uri(Registry(port, registry.folder)))), model)
        assert len(connections) == 4


def test_tag_that_moves_while_it_is_read(registry: Registry, tmp_path: Path, model: bytes) -> None:
    registry.push(REPOSITORY, "moving", registry.layer(REPOSITORY, model, "digits.pt2"))
    place = address.read(
        uri(registry, ":moving"), tmp_path, lambda place: place, lambda folder, entries: entries[0].source
    )
    begun = place.open(0, None, None)
    first = bytes(next(begun.chunks)[:1000])
    begun.close()
    registry.push(REPOSITORY, "moving", registry.layer(REPOSITORY, bytes(reversed(model)), "digits.pt2"))
    resumed = place.open(1000, None, begun.version)
    assert first + b"".join(resumed.chunks) == model
    resumed.close()


def test_replica_gets_the_bytes_of_its_revision_after_the_tag_has_moved(
    registry: Registry, told: config.Prepare, model: bytes
) -> None:
    registry.push(REPOSITORY, "stable", registry.layer(REPOSITORY, model, "digits.pt2"))
    pinned = prepare(at(told, uri(registry, ":stable"))).digest.removeprefix("sha256:")
    registry.push(REPOSITORY, "stable", registry.layer(REPOSITORY, b"the next version", "digits.pt2"))
    wanted = config.Fetch(uri(registry, ":stable"), config.Model("TorchExport", pinned, False), told.places)
    assert fetch(wanted).read_bytes() == model


def test_blob_that_is_damaged_in_the_registry(registry: Registry, told: config.Prepare, model: bytes) -> None:
    layer = registry.layer(REPOSITORY, model + b"once more", "digits.pt2")
    registry.push(REPOSITORY, "damaged", layer)
    place = registry.place(layer["digest"])
    place.write_bytes(place.read_bytes().replace(b"once more", b"once less"))
    failure = failure_of(at(told, uri(registry, ":damaged")))
    assert failure.reason == Reason.CHECKSUM_MISMATCH
    assert layer["digest"] in failure.message


def test_blob_that_is_gone(registry: Registry, told: config.Prepare) -> None:
    layer = registry.layer(REPOSITORY, b"soon gone", "digits.pt2")
    registry.push(REPOSITORY, "gone", layer)
    registry.place(layer["digest"]).unlink()
    assert reason_of(at(told, uri(registry, ":gone"))) == Reason.MODEL_NOT_FOUND


@pytest.fixture(scope="module")
def guarded(registry: Registry, work: Path) -> Iterator[Registry]:
    """Lets in who knows the password."""
    (work / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "registry", "path": str(work / "htpasswd")}}
    with docker_registry(registry.folder, work, auth=auth) as found:
        yield found


def docker_config(key: str, **entry: str) -> dict[str, str]:
    return {".dockerconfigjson": json.dumps({"auths": {"elsewhere.example": {"auth": "eDp5"}, key: entry}})}


PAIR = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param({"username": USER, "password": PASSWORD}, id="basic-auth"),
        pytest.param(docker_config("HOST", auth=PAIR), id="dockerconfigjson"),
        pytest.param(docker_config("https://HOST/v1/", auth=PAIR), id="an entry by its address"),
        pytest.param(docker_config("HOST/team", username=USER, password=PASSWORD), id="an entry for a path"),
    ],
)
def test_password(
    guarded: Registry, told: config.Prepare, model: bytes, monkeypatch: pytest.MonkeyPatch, secret: dict[str, str]
) -> None:
    for name, value in secret.items():
        monkeypatch.setenv(name, value.replace("HOST", guarded.host))
    check(prepare(at(told, uri(guarded))), model)


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        pytest.param({}, "wants a user name.*username and password.*dockerconfigjson", id="no Secret"),
        pytest.param({"username": USER, "password": "guess"}, "401 Unauthorized", id="a wrong password"),
        pytest.param(docker_config("HOST/others", auth=PAIR), "wants a user name", id="an entry for another path"),
        pytest.param({".dockerconfigjson": "{"}, "no docker configuration", id="no JSON"),
        pytest.param({".dockerconfigjson": "[]"}, "no docker configuration", id="other JSON"),
        pytest.param(docker_config("HOST", auth="?"), "no docker configuration", id="a pair that is none"),
    ],
)
def test_password_that_is_missing_or_wrong(
    guarded: Registry, told: config.Prepare, monkeypatch: pytest.MonkeyPatch, secret: dict[str, str], words: str
) -> None:
    for name, value in secret.items():
        monkeypatch.setenv(name, value.replace("HOST", guarded.host))
    with pytest.raises(ModelError, match=words) as failure:
        prepare(at(told, uri(guarded)))
    assert failure.value.reason == Reason.ACCESS_DENIED
    assert PASSWORD not in failure.value.message


def test_redirect_to_a_store_does_not_see_the_password(
    registry: Registry, work: Path, told: config.Prepare, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("username", USER)
    monkeypatch.setenv("password", PASSWORD)
    (work / "htpasswd").write_text(HTPASSWD)
    with web_server(None) as store:
        path = registry.place(f"sha256:{hashlib.sha256(model).hexdigest()}").relative_to(registry.folder)
        store.files[f"/{path}"] = model
        store.faults = ["cut"]
        options = {
            "auth": {"htpasswd": {"realm": "registry", "path": str(work / "htpasswd")}},
            "middleware": {"storage": [{"name": "redirect", "options": {"baseurl": store.url("/")}}]},
        }
        with docker_registry(registry.folder, work, **options) as found:
            check(prepare(at(told, uri(found))), model)
        assert [heard[2] for heard in store.heard] == [None, None]
        assert store.heard[1][1]  # resumed, not begun again


class Tokens:
    """Gives out tokens for what is asked, signed with the key that the registry trusts, to who has the password."""

    def __init__(self, site: Site, work: Path) -> None:
        self._site, self._work = site, work
        self.certificate, self._key = work / "tokens.pem", work / "tokens.key"
        subject = ("-subj", "/CN=tokens", "-days", "2", "-nodes")
        places = ("-keyout", str(self._key), "-out", str(self.certificate))
        made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", *subject, *places]
        subprocess.run(made, check=True, capture_output=True)
        site.answer = self.answer

    def answer(self, path: str, headers: Message) -> Reply | None:
        if headers["Authorization"] != basic(USER, PASSWORD):
            return Reply(401)
        asked = parse_qs(urlsplit(path).query)
        (scope,), (service,) = asked["scope"], asked["service"]
        kind, name, actions = scope.split(":")
        now = int(time.time())
        lines = self.certificate.read_text().splitlines()
        head = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(line for line in lines if not line.startswith("-"))]}
        claims = {
            **{"iss": "tokens", "sub": USER, "aud": service, "jti": str(now)},
            **{"iat": now, "nbf": now - 60, "exp": now + 300},
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }
        unsigned = ".".join(_encoded(json.dumps(part).encode()) for part in (head, claims))
        sign = ["openssl", "dgst", "-sha256", "-sign", str(self._key)]
        signature = subprocess.run(sign, input=unsigned.encode(), check=True, capture_output=True).stdout
        return Reply(200, {}, json.dumps({"token": f"{unsigned}.{_encoded(signature)}"}).encode())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture
def tokens(work: Path) -> Iterator[Site]:
    with web_server(None) as site:
        yield site


@pytest.fixture
def by_token(registry: Registry, tokens: Site, work: Path) -> Iterator[Registry]:
    """Lets in who has a token for the repository."""
    server = Tokens(tokens, work)
    told = {"realm": tokens.url("/token?account=x"), "service": "registry", "issuer": "tokens"}
    auth = {"token": told | {"rootcertbundle": str(server.certificate)}}
    with docker_registry(registry.folder, work, auth=auth) as found:
        yield found


def test_token(
    by_token: Registry, tokens: Site, told: config.Prepare, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("username", USER)
    monkeypatch.setenv("password", PASSWORD)
    tokens.faults = [503]
    check(prepare(at(told, uri(by_token))), model)
    asked = parse_qs(urlsplit(tokens.heard[-1][0]).query)
    assert asked == {"account": ["x"], "service": ["registry"], "scope": [f"repository:{REPOSITORY}:pull"]}
    assert len(tokens.heard) == 2  # one token is for the manifest and for the blob


def test_token_is_refused(by_token: Registry, tokens: Site, told: config.Prepare) -> None:
    with pytest.raises(ModelError, match=rf":{tokens.port} answered 401.*spec\.model\.secretName") as failure:
        prepare(at(told, uri(by_token)))
    assert failure.value.reason == Reason.ACCESS_DENIED
