"""Does `evenkeel report` write the page with whatever the caller may read, and say what it could not have?"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from evenkeel_operator.report.command import TOKEN, report
from tests.builders import NAME, NAMESPACE, UID
from tests.reports import STABLE, Story, deployment, samples
from tests.system.feedback.server import Deployment, Service
from tests.system.operator.fakeapi.server import FakeApi
from tests.system.operator.harness import kubeconfig

QUALITY = "modeldeployments.evenkeel.dev/quality"
NOWHERE = "http://127.0.0.1:9"

Run = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    """Yield an API server with a ModelDeployment that alice may look at, and bob may not."""
    async with FakeApi() as found:
        found.reviews.users = {"token-of-alice": "alice", "token-of-bob": "bob"}
        found.reviews.granted = {
            ("alice", verb, resource, f"{NAMESPACE}/{NAME}")
            for verb, resource in (("get", QUALITY), ("create", "modeldeployments.evenkeel.dev/feedback"))
        }
        found.store.create(deployment(Story()))
        found.store.create(samples(Story()))
        yield found


@pytest.fixture
async def service(api: FakeApi, tmp_path: Path) -> AsyncIterator[Service]:
    """Yield a feedback service that has counted three labels of the stable revision."""
    flags = ("--path", str(tmp_path / "feedback.db"), "--kubeconfig", str(kubeconfig(tmp_path, api.url)))
    found = await asyncio.to_thread(Service, tmp_path, *flags, is_open=False)
    model = Deployment(STABLE, uid=UID)
    items = [{"receipt": model.receipt(class_), "label": class_} for class_ in (3, 4, 5)]
    alice = {"authorization": "Bearer token-of-alice"}
    told = await asyncio.to_thread(found.post, items, **alice)
    assert [item["outcome"] for item in told["results"]] == ["accepted"] * 3
    yield found
    found.kill()


@pytest.fixture
def run(api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs the command in an empty folder, as alice where no token is given."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv(TOKEN, raising=False)
    config = kubeconfig(tmp_path, api.url)

    async def command(*argv: str, token: str | None = "token-of-alice") -> tuple[int, str, str]:
        known = json.loads(config.read_text())
        known["users"][0]["user"] = {} if token is None else {"token": token}
        (tmp_path / "of-user").write_text(json.dumps(known))
        code = await asyncio.to_thread(report, [*argv, "--kubeconfig", str(tmp_path / "of-user")])
        told = capsys.readouterr()
        return code, told.out, told.err

    return command


def words(path: Path | str) -> str:
    text = path.read_text() if isinstance(path, Path) else path
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", text.partition("</head>")[2]))


async def test_the_counts_come_with_the_token_of_the_kubeconfig(service: Service, run: Run, tmp_path: Path) -> None:
    assert await run(f"mdep/{NAME}", "--feedback-url", service.url) == (0, f"{NAME}.html\n", "")
    got = words(tmp_path / "here" / f"{NAME}.html")
    assert f"{STABLE} Stable 4 of 4 0 3 " in got
    assert "3 labels are of predictions younger than the horizon (1h)" in got
    assert "the evidence is of labels alone" not in got, "the samples were read too"


async def test_the_counts_come_with_a_token_of_its_own(
    service: Service, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "token-of-alice")
    code, out, err = await run(NAME, "-o", "-", "--feedback-url", service.url, token=None)
    assert (code, err) == (0, "")
    assert f"{STABLE} Stable 4 of 4 0 3 " in words(out)


async def test_without_the_service_the_page_has_the_rest(run: Run, tmp_path: Path) -> None:
    code, out, err = await run(f"modeldeployments.evenkeel.dev/{NAME}", "-n", NAMESPACE, "-o", "page.html")
    assert (code, out) == (0, "page.html\n")
    assert "port-forward and name it by --feedback-url; evenkeel report --help says how" in err
    got = words(tmp_path / "here" / "page.html")
    assert "the page has no counts of labels" in got
    assert "0.9488" in got, "what the operator has said"


@pytest.mark.parametrize(
    ("given", "own", "want"),
    [
        pytest.param("token-of-bob", None, "asked with the kubeconfig's token, did not tell its counts: 403", id="bob"),
        pytest.param("token-of-alice", "stolen", f"asked with the token in {TOKEN}, did not tell its counts: 401",
                     id="a token that nobody knows"),
        pytest.param(None, None, "the kubeconfig has none: put one into EVENKEEL_TOKEN, from kubectl create token",
                     id="a client certificate"),
    ],
)  # fmt: skip
async def test_who_may_not_read_the_counts_is_told_and_gets_the_rest(
    given: str | None, own: str | None, want: str, service: Service, run: Run, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if own is not None:
        monkeypatch.setenv(TOKEN, own)
    code, _, err = await run(NAME, "--feedback-url", service.url, token=given)
    assert (code, err.startswith(f"error: the feedback service at {service.url}")) == (1, True)
    assert want in err
    assert own is None or own not in err
    assert "did not tell its counts" in words(tmp_path / "here" / f"{NAME}.html")


async def test_the_kubeconfigs_token_goes_nowhere_where_others_read_it(run: Run) -> None:
    code, _, err = await run(NAME, "--feedback-url", "http://feedback.invalid")
    assert (code, "without a token, as its URL is neither https nor of this machine" in err) == (1, True)


@pytest.mark.parametrize("url", [NOWHERE, "feedback", "ftp://127.0.0.1/"])
async def test_a_service_that_is_not_there(url: str, run: Run, tmp_path: Path) -> None:
    code, out, err = await run(NAME, "--feedback-url", url)
    assert (code, out) == (1, f"{NAME}.html\n")
    assert f"the feedback service at {url}" in err
    assert (tmp_path / "here" / f"{NAME}.html").exists()


async def test_samples_that_may_not_be_read_are_missed(api: FakeApi, run: Run) -> None:
    api.faults.add("GET", "/configmaps/", 403, message="you may not", reason="Forbidden")
    code, out, err = await run(NAME, "-o", "-")
    assert code == 0
    assert "that needs get on configmaps: you may not" in err
    assert "that needs get on configmaps: you may not" in words(out)


@pytest.mark.parametrize(
    ("argv", "want"),
    [
        pytest.param(("nobody",), "there is no ModelDeployment nobody in namespace team-a", id="another name"),
        pytest.param((NAME, "-o", "no/such/folder"), "--output no/such/folder: cannot be written", id="no folder"),
    ],
)
async def test_complaints_say_what_is_wrong(argv: tuple[str, ...], want: str, run: Run) -> None:
    code, out, err = await run(*argv)
    assert (code, out) == (1, "")
    assert want in err


@pytest.mark.parametrize(
    ("argv", "want"),
    [
        pytest.param(("pod/digits",), "'pod/digits' is no ModelDeployment: say NAME or mdep/NAME", id="another kind"),
        pytest.param((NAME, "--days", "0"), "0: must be more than 0 and at most 366, such as 14", id="no days"),
        pytest.param((NAME, "--days", "nan"), "nan: must be more than 0", id="no number of days"),
    ],
)
def test_bad_arguments(argv: tuple[str, ...], want: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        report(argv)
    assert want in capsys.readouterr().err


async def test_an_object_that_this_version_cannot_read(api: FakeApi, run: Run) -> None:
    found = api.store.get("modeldeployments", NAMESPACE, NAME)
    found["status"]["canary"]["state"] = "Dancing"
    api.store.replace(found)
    code, _, err = await run(NAME)
    assert (code, "evenkeel reads it: canary.state: Input should be 'Pending'" in err, err.count("\n")) == (1, True, 1)
