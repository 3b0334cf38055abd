"""How is a CloudEvent posted to the receiver that a ModelDeployment names?

Structured content mode of the HTTP protocol binding 1.0: the whole event is the body. The address is a user's, and the
operator stands in another place of the network than they do. So nothing comes back to them but the status: redirects
are not followed, bodies are not read, and loopback and link-local addresses (side-cars, the cloud's metadata service)
are not asked, whatever name leads there; with a list of hosts, nothing else is asked at all.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import urllib.parse
from collections.abc import Callable
from fnmatch import fnmatchcase

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.decide.alarms import EVENT_CONTENT_TYPE

TIMEOUT_S = 10.0
_TRY_AGAIN = frozenset({408, 425, 429})
_METADATA_SERVICES = frozenset({ipaddress.ip_address("fd00:ec2::254")})
"""The one that has no link-local address; the others' are."""


class Undelivered(Exception):
    """The receiver has not taken the event; `is_final` where trying again cannot help."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class Receivers:
    """The connections to receivers. `hosts` are patterns such as *.svc; empty: every host may be named."""

    def __init__(self, hosts: tuple[str, ...] = (), timeout_s: float = TIMEOUT_S) -> None:
        self._hosts = hosts
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, event: Object) -> None:
        """Post `event`; raises Undelivered unless it is answered with 2xx."""
        self._require_allowed(url)
        try:
            async with self._opened().post(
                url,
                data=json.dumps(event).encode(),
                headers={"Content-Type": EVENT_CONTENT_TYPE},
                allow_redirects=False,
            ) as response:
                status = response.status
        except TimeoutError as e:
            raise Undelivered(f"the receiver has not answered within {self._timeout_s:g} s") from e
        except (aiohttp.ClientError, OSError, ValueError) as e:
            raise Undelivered(f"the receiver is not reached: {type(e).__name__}") from e
        if 300 <= status < 400:
            text = f"the receiver answers {status}, a redirect, which is not followed: name its final address"
            raise Undelivered(text, is_final=True)
        if not 200 <= status < 300:
            is_final = 400 <= status < 500 and status not in _TRY_AGAIN
            raise Undelivered(f"the receiver answers {status}", is_final=is_final)

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def _require_allowed(self, url: str) -> None:
        try:
            host = urllib.parse.urlsplit(url).hostname or ""
        except ValueError as e:
            raise Undelivered("spec.retraining.eventURL is no address", is_final=True) from e
        if self._hosts and not self._names(host):
            raise Undelivered(f"the operator may not post events to {host}: see its --event-hosts", is_final=True)
        if not self._names(host) and not _may_be_asked(host):
            raise Undelivered(f"events are not posted to {host}: it is an address of the node or pod", is_final=True)

    def _names(self, host: str) -> bool:
        return any(fnmatchcase(host, pattern) for pattern in self._hosts)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=_Guarded(self._names), force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                headers={"User-Agent": "evenkeel"},
            )
        return self._session


class _Guarded(AbstractResolver):
    """Resolves names to addresses that may be asked: what is connected to is what was judged."""

    def __init__(self, is_named: Callable[[str], bool]) -> None:
        self._is_named = is_named
        self._resolver = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if self._is_named(host):
            return found
        allowed = [one for one in found if _may_be_asked(one["host"])]
        if not allowed:
            raise OSError(f"{host} leads to an address of the node or pod")
        return allowed

    async def close(self) -> None:
        await self._resolver.close()


def _may_be_asked(host: str) -> bool:
    """Return whether `host` is a name, or an address that is not one of this node, this pod or the cloud's metadata."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return True
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    is_near = address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
    return not is_near and address not in _METADATA_SERVICES
