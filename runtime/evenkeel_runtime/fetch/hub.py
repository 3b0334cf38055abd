"""How is a file read from the Hugging Face Hub, or from a mirror that speaks as it does?

A branch or tag is resolved to its commit once, and only that commit is read from then on: a push in between changes
nothing. Where the hub states the file's sha256 (all large files), what arrives is held against it.
"""

from __future__ import annotations

import re
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch import web
from evenkeel_runtime.fetch.source import Opened, access_denied, not_found

ENDPOINT = "https://huggingface.co"
REVISION = "main"

_REPOSITORY = r"[A-Za-z0-9][-\w.]{0,95}"
_ADDRESS = re.compile(rf"(?P<repository>{_REPOSITORY}/{_REPOSITORY})(?:@(?P<revision>[^/@]+))?/(?P<path>.+)", re.ASCII)


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
        request = web.request(self._url(commit), self._authorization, start, stop)
        response = web.ask(self.uri, request, self._meaning)
        return replace(web.opened(response, start, stop, commit), sha256=sha256)

    def _resolved(self) -> tuple[str, str | None]:
        """Return the commit of the revision, and the file's sha256 where the hub states it.

        The headers are the hub's own: it states both on the redirect to its content servers.
        """
        request = web.request(self._url(self.revision), self._authorization, method="HEAD")
        headers = web.headers(self.uri, request, self._meaning)
        commit = headers.get("X-Repo-Commit", "")
        if not commit:
            raise ModelError(
                Reason.SOURCE_UNAVAILABLE,
                f"{self.uri}: {self.endpoint} does not say which commit {self.revision} is, as the Hugging Face Hub "
                "and its mirrors do; correct HF_ENDPOINT",
            )
        linked = headers.get("X-Linked-Etag", "").strip('"')
        return commit, linked if re.fullmatch(r"[0-9a-f]{64}", linked) else None

    @property
    def _authorization(self) -> str:
        return f"Bearer {self.token}" if self.token else ""

    def _url(self, revision: str) -> str:
        return f"{self.endpoint}/{self.repository}/resolve/{quote(revision, safe='')}/{quote(self.path)}"

    def _meaning(self, uri: str, error: urllib.error.HTTPError) -> Exception:
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


def hub_file(uri: str, rest: str, environ: Mapping[str, str]) -> HubFile | None:
    """Return the file at `ORG/REPO[@REVISION]/PATH`, or None where this is none.

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
        found["path"],
        (environ.get("HF_TOKEN") or environ.get("token") or "").strip(),
    )
