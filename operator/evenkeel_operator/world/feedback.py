"""How is the feedback service asked what it has counted? By the operator signed, by a person with their own token.

The operator has the master key, so it signs with the key of the ModelDeployment in question: it needs no right in the
cluster for this, and no token of its own goes anywhere.
"""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Mapping

import aiohttp

from evenkeel_operator.decide.quality.counted import Counted, read
from evenkeel_operator.decide.snapshot import Feedback
from evenkeel_runtime import receipts

TIMEOUT_S = 20.0
MOST_BYTES = 64 << 20


class Unanswered(Exception):
    """The feedback service does not answer, or answers something else."""


class Labels:
    """The connections to the feedback service."""

    def __init__(self, feedback: Feedback) -> None:
        self._feedback = feedback
        self._session: aiohttp.ClientSession | None = None

    async def counted(self, namespace: str, name: str, uid: str, since_s: int) -> Counted:
        """Return what is counted of a ModelDeployment since a moment (Unix seconds); raises Unanswered."""
        path = _path(namespace, name, since_s)
        return await _asked(self._opened(), self._feedback.url.rstrip("/") + path, self._signed(uid, path))

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def _signed(self, uid: str, path: str) -> dict[str, str]:
        feedback, subject = self._feedback, receipts.subject_of(uid)
        key = receipts.derived_key(feedback.master_key, feedback.key_id, subject)
        moment = str(int(time.time() * 1000))
        return {
            receipts.SUBJECT_HEADER: uid,
            receipts.KEY_ID_HEADER: str(feedback.key_id),
            receipts.TIME_HEADER: moment,
            receipts.SIGNATURE_HEADER: receipts.signature(key, receipts.QUALITY, moment.encode(), path.encode()),
        }

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = _session()
        return self._session


async def counted(url: str, namespace: str, name: str, since_s: int, token: str | None) -> Counted:
    """Return what the service at `url` tells the user whose bearer token this is; raises Unanswered."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with _session() as session:
        return await _asked(session, url.rstrip("/") + _path(namespace, name, since_s), headers)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=5),
        headers={"User-Agent": "evenkeel"},
    )


def _path(namespace: str, name: str, since_s: int) -> str:
    return f"/v1/quality/{urllib.parse.quote(namespace)}/{urllib.parse.quote(name)}?since={since_s}"


async def _asked(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> Counted:
    try:
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            body = await response.content.read(MOST_BYTES + 1)
            while not response.content.at_eof() and len(body) <= MOST_BYTES:
                body += await response.content.read(MOST_BYTES + 1)
            if response.status != 200:
                raise Unanswered(f"{response.status}: {body[:200].decode(errors='replace')}")
            if len(body) > MOST_BYTES:
                raise Unanswered(f"the answer has more than {MOST_BYTES} bytes")
        return read(body)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as e:
        raise Unanswered(f"{type(e).__name__}: {e}"[:300]) from e
