"""How are files read from the Hugging Face Hub, or from a mirror that speaks as it does?

A branch or tag is resolved to its commit once, and only that commit is read from then on: a push in between changes
nothing. Where the hub states the file's sha256 (all large files), what arrives is held against it.
"""

from __future__ import annotations

import json
import re
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch import web
from evenkeel_runtime.fetch.source import Entry, Opened, access_denied, not_found

ENDPOINT = "https://huggingface.co"
REVISION = "main"

_REPOSITORY = r"[A-Za-z0-9][-\w.]{0,95}"
_ADDRESS = re.compile(
    rf"(?P<repository>{_REPOSITORY}/{_REPOSITORY})(?:@(?P<revision>[^/@]+))?(?:/(?P<path>.*))?", re.ASCII
)
_LISTING_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository; `revision` is a branch, a tag or a commit, and `token` may be empty."""

    uri: str
    endpoint: str
    repository: str
    revision: str
    path: str
    token: str = field(repr=False)

    @property
    def file(self) -> str:
        return self.path.rpartition("/")[2]

    def open(self, start: int, stop: int | None, version: str | None) -> Opened:
        commit, sha256 = (version, None) if version is not None else self._resolved()
        request = web.request(self._url(commit), self.authorization, start, stop)
        response = web.ask(self.uri, request, self.meaning)
        return replace(web.opened(response, start, stop, commit), sha256=sha256)

    def _resolved(self) -> tuple[str, str | None]:
        """Return the commit of the revision, and the file's sha256 where the hub states it.

        The headers are the hub's own: it states both on the redirect to its content servers.
        """
        request = web.request(self._url(self.revision), self.authorization, method="HEAD")
        headers = web.headers(self.uri, request, self.meaning)
        commit = headers.get("X-Repo-Commit", "")
        if not commit:
            raise self.no_commit()
        linked = headers.get("X-Linked-Etag", "").strip('"')
        return commit, linked if re.fullmatch(r"[0-9a-f]{64}", linked) else None

    def no_commit(self) -> ModelError:
        return ModelError(
            Reason.SOURCE_UNAVAILABLE,
            f"{self.uri}: {self.endpoint} does not say which commit {self.revision} is, as the Hugging Face Hub "
            "and its mirrors do; correct HF_ENDPOINT",
        )

    @property
    def authorization(self) -> str:
        return f"Bearer {self.token}" if self.token else ""

    def _url(self, revision: str) -> str:
        return f"{self.endpoint}/{self.repository}/resolve/{quote(revision, safe='')}/{quote(self.path)}"

    def meaning(self, uri: str, error: urllib.error.HTTPError) -> Exception:
        """Return what the hub means: it says so in a header, and with a 401 also where there is no such repository."""
        detail = error.headers.get("X-Error-Message", "")[:500] or web.said(error)
        match error.headers.get("X-Error-Code", ""):
            case "GatedRepo":
                return access_denied(
                    uri,
                    f"the repository is gated ({detail})",
                    f"ask for access on {self.endpoint}/{self.repository}, and put a token of the account that has it "
                    "into the Secret named by spec.model.secretName, as HF_TOKEN",
                )
            case "RepoNotFound":
                who = "the token of HF_TOKEN" if self.token else "a reader without a token"
                return not_found(
                    uri,
                    f"there is no repository that {who} may see ({detail}); a private one needs the token of somebody "
                    "who may, as HF_TOKEN in the Secret named by spec.model.secretName",
                )
            case "RevisionNotFound" | "EntryNotFound":
                return not_found(uri, detail)
        if error.code in (401, 403):
            return access_denied(
                uri, detail, "check HF_TOKEN in the Secret named by spec.model.secretName: it may be wrong or expired"
            )
        return web.meaning_of(uri, error.code, detail)


@dataclass(frozen=True, slots=True)
class HubFolder:
    """The files of a repository below `prefix`, all of one commit; `at` is how the repository is asked."""

    uri: str
    prefix: str
    at: HubFile

    @property
    def file(self) -> str:
        return self.prefix.rstrip("/").rpartition("/")[2] or self.at.repository.rpartition("/")[2]

    def entries(self) -> list[Entry]:
        at = self.at
        url = f"{at.endpoint}/api/models/{at.repository}/revision/{quote(at.revision, safe='')}"
        response = web.ask(self.uri, web.request(url, at.authorization), at.meaning)
        try:
            told = json.loads(web.small_body(self.uri, response, _LISTING_BYTES))
            commit, names = str(told["sha"]), [str(file["rfilename"]) for file in told["siblings"]]
        except (ValueError, TypeError, LookupError) as error:
            raise at.no_commit() from error
        return [
            Entry(
                name.removeprefix(self.prefix),
                replace(at, uri=f"{self.uri.rstrip('/')}/{name.removeprefix(self.prefix)}", revision=commit, path=name),
            )
            for name in names
            if name.startswith(self.prefix)
        ]


def hub_file(uri: str, rest: str, environ: Mapping[str, str]) -> HubFile | None:
    """Return the file at `ORG/REPO[@REVISION]/PATH`, or None where this is none. Without a path it is the repository.

    `HF_ENDPOINT` names a mirror, and `HF_TOKEN` the token, as they do for the hub's own client; a Secret may have it as
    `token`.
    """
    found = _ADDRESS.fullmatch(rest)
    if found is None:
        return None
    return HubFile(
        uri,
        (environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/"),
        found["repository"],
        unquote(found["revision"] or REVISION),
        found["path"] or "",
        (environ.get("HF_TOKEN") or environ.get("token") or "").strip(),
    )
