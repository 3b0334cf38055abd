"""How is a container registry asked? By the OCI distribution API, with what it challenges for.

The first request goes without credentials. A registry that wants some answers 401 and says how: by Basic, or by a token
that another server gives out for this repository. What was agreed on serves until the next 401: tokens last minutes.
"""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch import web
from evenkeel_runtime.fetch.credentials import DOCKER_HUB
from evenkeel_runtime.fetch.source import Interrupted, access_denied

PLAIN_HTTP_ENV = "OCI_PLAIN_HTTP"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_TOKEN_BYTES = 1 << 20
_BODY_BYTES = 64 << 10
_IF_DENIED = (
    "check the repository's name and the Secret named by spec.model.secretName: it needs username and password, or is "
    "of the type kubernetes.io/dockerconfigjson with an entry for this registry"
)


class _Challenged(Exception):
    """The registry wants credentials; `wanted` are its WWW-Authenticate headers."""

    def __init__(self, wanted: list[str]) -> None:
        super().__init__(", ".join(wanted))
        self.wanted = wanted


class Registry:
    """One repository of a registry, and what was last agreed on with it."""

    def __init__(self, uri: str, host: str, repository: str, credentials: str, environ: Mapping[str, str]) -> None:
        is_plain = urlsplit(f"//{host}").hostname in _LOOPBACK or environ.get(PLAIN_HTTP_ENV) == "true"
        self._uri = uri
        self._scheme = "http" if is_plain else "https"
        self._host = "registry-1.docker.io" if host in DOCKER_HUB else host
        self._repository = repository
        self._credentials = credentials
        self._authorization = ""

    def ask(self, path: str, start: int = 0, stop: int | None = None, accept: str = "*/*") -> http.client.HTTPResponse:
        """Return the answer to a GET of `path` below the repository."""
        try:
            return self._ask(path, start, stop, accept, _challenge_or_meaning)
        except _Challenged as challenged:
            self._authorization = self._answer(challenged.wanted)
        return self._ask(path, start, stop, accept, _meaning)

    def _ask(
        self, path: str, start: int, stop: int | None, accept: str, meaning: web.Meaning
    ) -> http.client.HTTPResponse:
        url = f"{self._scheme}://{self._host}/v2/{self._repository}/{path}"
        request = web.request(url, self._authorization, start, stop)
        request.add_header("Accept", accept)
        try:
            return web.ask(self._uri, request, meaning)
        except Interrupted as error:
            if "WRONG_VERSION_NUMBER" not in str(error):  # OpenSSL's words for an answer that is not TLS
                raise
            raise ModelError(
                Reason.SOURCE_UNAVAILABLE,
                f"{self._uri}: {self._host} does not speak TLS; where that is meant to be, put {PLAIN_HTTP_ENV} "
                'with the value "true" into the Secret named by spec.model.secretName',
            ) from error

    def _answer(self, wanted: list[str]) -> str:
        """Return the Authorization header that answers the first challenge of a kind that is known here."""
        for challenge in wanted:
            scheme, _, rest = challenge.partition(" ")
            if scheme.lower() == "bearer":
                parameters = {
                    name.lower(): a or b for name, a, b in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,"]+))', rest)
                }
                return f"Bearer {self._token(parameters)}"
            if scheme.lower() == "basic":
                if not self._credentials:
                    raise access_denied(self._uri, f"{self._host} wants a user name and a password", _IF_DENIED)
                return self._credentials
        how = ", ".join(wanted) or "it does not say how"
        raise access_denied(
            self._uri,
            f"{self._host} wants credentials in a way that is not known here ({how})",
            "use a registry that takes Basic or Bearer credentials",
        )

    def _token(self, parameters: dict[str, str]) -> str:
        """Return a token for reading the repository, from the server that the challenge names."""
        realm = urlsplit(parameters.get("realm", ""))
        if realm.scheme != "https" and (realm.scheme, self._scheme) != ("http", "http"):
            raise ModelError(
                Reason.SOURCE_UNAVAILABLE,
                f"{self._uri}: {self._host} wants a token from {realm.geturl() or 'nowhere'}, which is not encrypted",
            )
        query = {"scope": parameters.get("scope", f"repository:{self._repository}:pull")}
        if service := parameters.get("service"):
            query["service"] = service
        url = realm._replace(query="&".join(filter(None, (realm.query, urlencode(query))))).geturl()
        answer = web.ask(self._uri, web.request(url, self._credentials), _meaning)
        body = web.small_body(self._uri, answer, _TOKEN_BYTES)
        try:
            told = json.loads(body)
            token = told.get("token") or told["access_token"]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(
                Reason.SOURCE_UNAVAILABLE, f"{self._uri}: {realm.netloc} answered without a token when asked for one"
            ) from error
        return str(token)


def _challenge_or_meaning(uri: str, error: urllib.error.HTTPError) -> Exception:
    if error.code == 401:
        return _Challenged(error.headers.get_all("WWW-Authenticate", []))
    return _meaning(uri, error)


def _meaning(uri: str, error: urllib.error.HTTPError) -> Exception:
    """Return what an answer means, in the registry's own words where it has some."""
    detail = web.said(error)
    try:
        first = json.loads(error.read(_BODY_BYTES))["errors"][0]
        detail += f" ({first['code']}: {first.get('message', '')})"
    except (OSError, http.client.HTTPException, ValueError, TypeError, LookupError, AttributeError):
        pass  # no words
    if error.code in (401, 403):
        return access_denied(uri, detail, _IF_DENIED)
    return web.meaning_of(uri, error.code, detail)
