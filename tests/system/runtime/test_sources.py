"""Do the bytes arrive whole, verified and of one version, from servers that fail in every way they can?"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from evenkeel_runtime import config
from evenkeel_runtime.contract import Prepared, Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch import transfer
from evenkeel_runtime.fetch.fetch import fetch
from evenkeel_runtime.prepare import prepare
from tests.system.runtime.webserver import Site, web_server


@pytest.fixture
def site(certificates: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, model: bytes) -> Iterator[Site]:
    authority, certificate = certificates
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    for name in ("HTTP_BEARER_TOKEN", "HTTP_USERNAME", "HTTP_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    with web_server(certificate) as found:
        found.files["/models/digits.pt2"] = model
        yield found


def at(told: config.Prepare, uri: str, sha256: str = "", whole_bytes: int = 1 << 30) -> config.Prepare:
    return dataclasses.replace(
        told, uri=uri, model=dataclasses.replace(told.model, sha256=sha256), whole_bytes=whole_bytes
    )


def reason_of(told: config.Prepare) -> Reason:
    with pytest.raises(ModelError) as failure:
        prepare(told)
    assert not list(told.places.scratch_dir.glob("prepare-*"))
    return failure.value.reason


def check(found: Prepared, model: bytes) -> None:
    assert found.digest == f"sha256:{hashlib.sha256(model).hexdigest()}"
    assert (found.file, found.size_bytes, found.format) == ("digits.pt2", len(model), "TorchExport")
    assert found.inputs[0].shape == (-1, 12)


def test_https(site: Site, told: config.Prepare, model: bytes) -> None:
    check(prepare(at(told, site.url("/models/digits.pt2"), hashlib.sha256(model).hexdigest())), model)


def test_query_is_kept_and_not_part_of_the_name(site: Site, told: config.Prepare, model: bytes) -> None:
    check(prepare(at(told, site.url("/models/digits.pt2?signature=abc"))), model)
    assert site.heard[0][0].endswith("?signature=abc")


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(["cut"], id="an end at half"),
        pytest.param(["cut"] * 7, id="more cuts than attempts, each after progress"),
        pytest.param(["reset", "reset"], id="resets"),
        pytest.param([503, 429, 500], id="errors that pass"),
        pytest.param(["cut", 503, "cut", 502], id="both"),
    ],
)
def test_transient_failures_are_outlived(
    site: Site, told: config.Prepare, model: bytes, faults: list[int | str]
) -> None:
    site.faults = faults
    check(prepare(at(told, site.url("/models/digits.pt2"))), model)
    if "cut" in faults:
        assert any(heard[1] for heard in site.heard)  # resumed, not begun again


def test_resume_where_the_server_has_no_ranges(site: Site, told: config.Prepare, model: bytes) -> None:
    site.has_ranges = False
    site.faults = ["cut"]
    check(prepare(at(told, site.url("/models/digits.pt2"))), model)
    assert len(site.heard) == 2, "it was cut"


def test_versions_are_never_mixed(site: Site, told: config.Prepare) -> None:
    site.faults = ["swap"]
    assert reason_of(at(told, site.url("/models/digits.pt2"))) == Reason.MODEL_CHANGED


def test_rest_of_an_unknown_version_is_not_taken(site: Site, told: config.Prepare) -> None:
    site.has_etags = False
    site.faults = ["cut"]
    assert reason_of(at(told, site.url("/models/digits.pt2"))) == Reason.MODEL_CHANGED


def test_unknown_length(site: Site, told: config.Prepare, model: bytes) -> None:
    site.has_length = False
    check(prepare(at(told, site.url("/models/digits.pt2"))), model)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (401, Reason.ACCESS_DENIED),
        (403, Reason.ACCESS_DENIED),
        (404, Reason.MODEL_NOT_FOUND),
        (410, Reason.MODEL_NOT_FOUND),
        (400, Reason.SOURCE_UNAVAILABLE),
    ],
)
def test_final_answers_are_not_asked_again(site: Site, told: config.Prepare, fault: int, reason: Reason) -> None:
    site.faults = [fault]
    assert reason_of(at(told, site.url("/models/digits.pt2"))) == reason
    assert len(site.heard) == 1


def test_server_that_never_recovers(site: Site, told: config.Prepare) -> None:
    site.faults = [503] * 50
    assert reason_of(at(told, site.url("/models/digits.pt2"))) == Reason.SOURCE_UNAVAILABLE
    assert len(site.heard) == transfer.Patience().attempts


def test_nobody_listens(site: Site, told: config.Prepare) -> None:
    assert reason_of(at(told, "https://localhost:1/digits.pt2")) == Reason.SOURCE_UNAVAILABLE


def test_certificate_of_an_unknown_authority(site: Site, told: config.Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ModelError, match="SSL_CERT_FILE"):
        prepare(at(told, site.url("/models/digits.pt2")))


@pytest.mark.parametrize(
    ("environment", "want"),
    [
        ({"HTTP_BEARER_TOKEN": "t0ken"}, "Bearer t0ken"),
        ({"HTTP_USERNAME": "ann", "HTTP_PASSWORD": "s3cret"}, "Basic YW5uOnMzY3JldA=="),
    ],
)
def test_credentials(
    site: Site,
    told: config.Prepare,
    model: bytes,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    want: str,
) -> None:
    site.authorization = want
    assert reason_of(at(told, site.url("/models/digits.pt2"))) == Reason.ACCESS_DENIED
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    check(prepare(at(told, site.url("/models/digits.pt2"))), model)


def test_credentials_do_not_follow_a_redirect(
    site: Site, told: config.Prepare, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_BEARER_TOKEN", "t0ken")
    site.redirects["/latest.pt2"] = site.url("/models/digits.pt2", host="127.0.0.1")
    prepare(at(told, site.url("/latest.pt2")))
    assert [heard[2] for heard in site.heard] == ["Bearer t0ken", None]


def test_credentials_follow_a_redirect_on_the_same_server(
    site: Site, told: config.Prepare, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_BEARER_TOKEN", "t0ken")
    site.authorization = "Bearer t0ken"
    site.redirects["/latest.pt2"] = "/models/digits.pt2"
    prepare(at(told, site.url("/latest.pt2")))
    assert [heard[2] for heard in site.heard] == ["Bearer t0ken"] * 2


def test_redirect_out_of_encryption_is_not_followed(site: Site, told: config.Prepare) -> None:
    site.redirects["/latest.pt2"] = f"http://localhost:{site.port}/models/digits.pt2"
    with pytest.raises(ModelError, match=rf"answered 302 Found, to http://localhost:{site.port}"):
        prepare(at(told, site.url("/latest.pt2")))


def test_wrong_checksum_names_both(site: Site, told: config.Prepare, model: bytes) -> None:
    wrong = "ab" * 32
    with pytest.raises(ModelError) as failure:
        prepare(at(told, site.url("/models/digits.pt2"), wrong))
    assert failure.value.reason == Reason.CHECKSUM_MISMATCH
    assert wrong in failure.value.message
    assert hashlib.sha256(model).hexdigest() in failure.value.message


def test_large_model_is_hashed_whole_and_inspected_by_range(site: Site, told: config.Prepare, model: bytes) -> None:
    site.faults = ["cut"]
    check(prepare(at(told, site.url("/models/digits.pt2"), whole_bytes=1000)), model)
    ranges = [heard[1] for heard in site.heard if heard[1]]
    assert len(ranges) > 3
    assert not list(told.places.scratch_dir.glob("prepare-*"))


def test_large_model_that_changes_after_it_was_hashed(site: Site, told: config.Prepare) -> None:
    site.has_etags = False
    assert reason_of(at(told, site.url("/models/digits.pt2"), whole_bytes=1000)) == Reason.MODEL_CHANGED


def test_fetch_appears_whole_or_not_at_all(site: Site, told: config.Prepare, model: bytes) -> None:
    url, target = site.url("/models/digits.pt2"), told.places.model_dir / "digits.pt2"
    right, wrong = hashlib.sha256(model).hexdigest(), "cd" * 32
    with pytest.raises(ModelError) as failure:
        fetch(config.Fetch(url, config.Model("TorchExport", wrong, False), told.places))
    assert failure.value.reason == Reason.MODEL_CHANGED
    assert list(told.places.model_dir.iterdir()) == []
    site.faults = ["cut"]
    assert fetch(config.Fetch(url, config.Model("TorchExport", right, False), told.places)) == target
    assert target.read_bytes() == model
    assert fetch(config.Fetch(url, config.Model("TorchExport", right, False), told.places)) == target  # restarted


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_claim_that_may_not_be_read(told: config.Prepare, model: bytes) -> None:
    told.places.claim_dir.mkdir()
    path = told.places.claim_dir / "digits.pt2"
    path.write_bytes(model)
    path.chmod(0)
    assert reason_of(at(told, "pvc://claim/digits.pt2")) == Reason.ACCESS_DENIED


def test_claim(told: config.Prepare, model: bytes, tmp_path: Path) -> None:
    claim = told.places.claim_dir
    (claim / "v1").mkdir(parents=True)
    (claim / "v1" / "digits.pt2").write_bytes(model)
    (claim / "current").symlink_to("v1")
    (tmp_path / "outside.pt2").write_bytes(model)
    (claim / "escape.pt2").symlink_to(tmp_path / "outside.pt2")
    check(prepare(at(told, "pvc://claim/v1/digits.pt2")), model)
    check(prepare(at(told, "pvc://claim/current/digits.pt2")), model)
    check(prepare(at(told, "pvc://claim/v1/digits.pt2", whole_bytes=10)), model)
    assert reason_of(at(told, "pvc://claim/v2/digits.pt2")) == Reason.MODEL_NOT_FOUND
    assert reason_of(at(told, "pvc://claim/v1")) == Reason.FORMAT_REFUSED  # a folder, in which one file is the model
    assert reason_of(at(told, "pvc://claim/escape.pt2")) == Reason.INVALID
    with pytest.raises(ModelError, match=r"holds digits\.pt2"):
        prepare(at(told, "pvc://claim/v1/digit.pt2"))


def test_foreign_image_gets_a_digest_and_no_opinion(told: config.Prepare) -> None:
    told.places.claim_dir.mkdir()
    (told.places.claim_dir / "model.gguf").write_bytes(b"GGUF whatever")
    found = prepare(dataclasses.replace(at(told, "pvc://claim/model.gguf"), inspect=False))
    assert found.digest == f"sha256:{hashlib.sha256(b'GGUF whatever').hexdigest()}"
    assert found.inputs == ()
