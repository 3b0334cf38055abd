"""What may a replica be told, and is it the operator who tells it?

A directive is JSON: `generation`, and what is to change. `latencyTargetSeconds` moves an edge of a histogram, so
anybody who reaches the admin port may say it. `canary` moves users' requests: it has to be signed, with the key that
receipts are signed with, which only the operator and the pods of this ModelDeployment have.

The signature covers the body, which names the process it is for, and a time, which has to be later than that of the
last one that was followed. So nothing that was overheard can be said again, to anybody, and no clocks are compared: the
time is the operator's alone, and what a directive allows ends so many seconds after it has arrived.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evenkeel_runtime import contract, receipts
from evenkeel_runtime.contract import Canary

LEAST_TARGET_S, MOST_TARGET_S = 0.001, 600.0
GENERATIONS = 1 << 53
"""Generations are below this: every reader of JSON takes such a number for what it is, and the signals can tell it."""

_SIGNATURE, _TIME = receipts.SIGNATURE_HEADER.encode(), receipts.TIME_HEADER.encode()
_REVISION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}")
_FIELDS = frozenset(("revision", "mode", "share", "addresses", "expiresSeconds", "affinityHeader"))
_OPTIONAL = frozenset(("affinityHeader",))


class BadDirective(Exception):
    """A directive that is not followed: `status` is the HTTP status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Place:
    """Where a replica of the canary listens."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Directive:
    """What a replica is told. `moment_ms` is the time of the signature, None where there is none.

    `says_canary` tells that there is a canary, or is none, from directives that do not speak of it.
    """

    generation: int
    target_s: float | None = None
    moment_ms: int | None = None
    says_canary: bool = False
    canary: Canary | None = None

    @property
    def is_signed(self) -> bool:
        return self.moment_ms is not None


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told: its process, its key (None: it has none) and the time of the signature that it followed last."""

    process: str
    key: bytes | None
    moment_ms: int = 0


def read(body: bytes, headers: Mapping[bytes, bytes], listener: Listener) -> Directive:
    """Return what a directive says; raises BadDirective where it makes no sense, or is not the operator's."""
    moment_ms = _moment(body, headers, listener) if _SIGNATURE in headers else None
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise BadDirective(400, "a directive is JSON") from None
    generation = found.get("generation") if isinstance(found, dict) else None
    if not isinstance(generation, int) or isinstance(generation, bool) or not 0 <= generation < GENERATIONS:
        raise BadDirective(400, f"generation has to be a whole number from 0 to {GENERATIONS - 1}")
    target_s = _number(found, "latencyTargetSeconds", LEAST_TARGET_S, MOST_TARGET_S)
    if "canary" not in found:
        return Directive(generation, target_s, moment_ms)
    if moment_ms is None:
        raise BadDirective(403, f"canary has to be signed: {receipts.SIGNATURE_HEADER} is missing")
    if found.get("process") != listener.process:
        raise BadDirective(409, f"process has to be the bootId of this replica, {listener.process}")
    canary = None if found["canary"] is None else _canary(found["canary"])
    return Directive(generation, target_s, moment_ms, True, canary)


def place_of(address: str) -> Place:
    """Return host and port of `IP:port`; raises ValueError."""
    host, _, port = address.rpartition(":")
    if host.startswith("[") != host.endswith("]") or host.startswith("[") != (":" in host):
        raise ValueError("IPv6 stands in brackets, and nothing else does")
    ip = ipaddress.ip_address(host.strip("[]"))
    if ip.is_multicast or ip.is_unspecified:
        raise ValueError("nobody listens there")
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 1 << 16):
        raise ValueError("the port is from 1 to 65535")
    return Place(str(ip), int(port))


def _moment(body: bytes, headers: Mapping[bytes, bytes], listener: Listener) -> int:
    """Return the time of the signature; raises BadDirective where it is not the operator's, or not a new one."""
    if listener.key is None:
        raise BadDirective(403, "this replica has no key, so it can tell nobody from the operator")
    moment = headers.get(_TIME, b"")
    want = receipts.signature(listener.key, receipts.DIRECTIVE, moment, body)
    if not hmac.compare_digest(want.encode(), headers[_SIGNATURE]):
        raise BadDirective(403, f"{receipts.SIGNATURE_HEADER} is not that of this ModelDeployment's operator")
    if not moment.isdigit() or len(moment) > 16:
        raise BadDirective(400, f"{receipts.TIME_HEADER} has to be a number of milliseconds")
    if int(moment) <= listener.moment_ms:
        message = f"{receipts.TIME_HEADER} {int(moment)} is not later than {listener.moment_ms}, which is followed"
        raise BadDirective(409, message)
    return int(moment)


def _canary(found: Any) -> Canary:
    if not isinstance(found, dict):
        raise BadDirective(400, "canary has to be an object, or null where there is none")
    if unknown := found.keys() - _FIELDS:
        raise BadDirective(400, f"canary.{min(unknown)[:80]} is not known; there are {', '.join(sorted(_FIELDS))}")
    if missing := _FIELDS - _OPTIONAL - found.keys():
        raise BadDirective(400, f"canary.{min(missing)} is missing")
    revision, mode, header = found["revision"], found["mode"], found.get("affinityHeader")
    if not isinstance(revision, str) or not _REVISION.fullmatch(revision):
        raise BadDirective(400, "canary.revision has to be a revision's name")
    if mode not in (contract.SPLIT, contract.MIRROR):
        raise BadDirective(400, f"canary.mode has to be {contract.SPLIT} or {contract.MIRROR}")
    if header is not None and not (isinstance(header, str) and _HEADER.fullmatch(header)):
        raise BadDirective(400, "canary.affinityHeader has to be a header's name in small letters")
    share = _number(found, "share", 0.0, 1.0, "canary.")
    expires_s = _number(found, "expiresSeconds", 1.0, contract.MOST_CANARY_S, "canary.")
    if share is None or expires_s is None:
        raise BadDirective(400, f"canary.{'share' if share is None else 'expiresSeconds'} has to be a number")
    return Canary(revision, mode, share, _addresses(found["addresses"]), expires_s, header)


def _addresses(found: Any) -> tuple[str, ...]:
    most = contract.MOST_CANARY_ADDRESSES
    if not isinstance(found, list) or not 0 < len(found) <= most:
        raise BadDirective(400, f"canary.addresses has to be a list of 1 to {most} addresses")
    places = set()
    for number, address in enumerate(found):
        try:
            places.add(place_of(address))
        except (ValueError, AttributeError) as error:
            where = f"canary.addresses[{number}]"
            raise BadDirective(400, f"{where} has to be IP:port, it is {str(address)[:80]!r}: {error}") from None
    if len(places) < len(found):
        raise BadDirective(400, "canary.addresses has an address twice")
    return tuple(found)


def _number(found: dict[str, Any], name: str, least: float, most: float, where: str = "") -> float | None:
    """Return a number, None where there is none; raises BadDirective."""
    value = found.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadDirective(400, f"{where}{name} has to be a number")
    if not least <= value <= most:
        raise BadDirective(400, f"{where}{name} has to be from {least:g} to {most:g}")
    return float(value)
