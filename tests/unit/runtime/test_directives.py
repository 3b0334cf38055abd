"""Is a directive that speaks of a canary followed only where the operator says it, now, to this process, in full?"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel_runtime import contract, receipts
from evenkeel_runtime.contract import MIRROR, SPLIT, Canary
from evenkeel_runtime.serve.directives import BadDirective, Directive, Listener, Place, place_of, read

KEY = b"k" * 32
LISTENER = Listener("boot-1", KEY, 1000)
CANARY = Canary("digits-91cc", SPLIT, 0.1, ("10.0.0.7:8080", "[fd00::7]:8080"), 300.0, "x-user")


def signed(body: bytes, moment: bytes = b"1001", key: bytes = KEY) -> dict[bytes, bytes]:
    """Return the headers that an operator sends with a directive."""
    text = receipts.signature(key, receipts.DIRECTIVE, moment, body)
    return {receipts.TIME_HEADER.encode(): moment, receipts.SIGNATURE_HEADER.encode(): text.encode()}


def document(**changes: Any) -> dict[str, Any]:
    """Return a directive with changes of its canary; a field that is changed to ... is left out."""
    found: dict[str, Any] = json.loads(contract.directive(7, 0.2, "boot-1", CANARY))
    found["canary"] = {name: value for name, value in (found["canary"] | changes).items() if value is not ...}
    return found


@given(
    st.builds(
        Canary,
        st.from_regex(r"[a-z0-9]{1,30}-[0-9a-f]{8}", fullmatch=True),
        st.sampled_from((SPLIT, MIRROR)),
        st.floats(0, 1),
        st.sets(
            st.builds("{}:{}".format, st.ip_addresses(v=4, network="10.0.0.0/8"), st.integers(1, 65535)), min_size=1
        )
        .map(sorted)
        .map(lambda found: tuple(found[: contract.MOST_CANARY_ADDRESSES])),
        st.floats(1, contract.MOST_CANARY_S),
        st.none() | st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True),
    )
)
def test_what_is_written_is_read(canary: Canary) -> None:
    body = contract.directive(3, 0.25, "boot-1", canary)
    assert read(body, signed(body), LISTENER) == Directive(3, 0.25, 1001, True, canary)


@pytest.mark.parametrize(
    ("body", "headers", "want"),
    [
        pytest.param(contract.directive(3), {}, Directive(3), id="a generation alone"),
        pytest.param(contract.directive(3, 0.5), {}, Directive(3, 0.5), id="a target, by anybody"),
        pytest.param(
            contract.directive(3, 0.5),
            signed(contract.directive(3, 0.5)),
            Directive(3, 0.5, 1001),
            id="a signed target",
        ),
        pytest.param(
            contract.directive(3, None, "boot-1"),
            signed(contract.directive(3, None, "boot-1")),
            Directive(3, None, 1001, True),
            id="no canary",
        ),
    ],
)
def test_a_directive_says(body: bytes, headers: dict[bytes, bytes], want: Directive) -> None:
    assert read(body, headers, LISTENER) == want


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        pytest.param({"revision": ...}, "canary.revision is missing", id="no revision"),
        pytest.param({"revision": ""}, "canary.revision", id="an empty revision"),
        pytest.param({"revision": "a b"}, "canary.revision", id="a revision with a space"),
        pytest.param({"revision": 'a",x="'}, "canary.revision", id="a revision that ends a label"),
        pytest.param({"revision": 7}, "canary.revision", id="a revision that is a number"),
        pytest.param({"mode": ...}, "canary.mode is missing", id="no mode"),
        pytest.param({"mode": "split"}, "canary.mode", id="a mode in small letters"),
        pytest.param({"mode": None}, "canary.mode", id="a mode of null"),
        pytest.param({"mode": ["Split"]}, "canary.mode", id="a list of modes"),
        pytest.param({"share": ...}, "canary.share is missing", id="no share"),
        pytest.param({"share": None}, "canary.share", id="a share of null"),
        pytest.param({"share": "10%"}, "canary.share", id="a share in words"),
        pytest.param({"share": True}, "canary.share", id="a share that is no number"),
        pytest.param({"share": float("nan")}, "canary.share", id="a share of NaN"),
        pytest.param({"share": 1.01}, "canary.share", id="more than all"),
        pytest.param({"share": -0.01}, "canary.share", id="less than nothing"),
        pytest.param({"addresses": ...}, "canary.addresses is missing", id="no addresses"),
        pytest.param({"addresses": []}, "canary.addresses", id="an empty list"),
        pytest.param({"addresses": "10.0.0.7:8080"}, "canary.addresses", id="an address without a list"),
        pytest.param({"addresses": [7]}, "canary.addresses[0]", id="an address that is a number"),
        pytest.param({"addresses": ["canary:8080"]}, "canary.addresses[0]", id="a name"),
        pytest.param({"addresses": ["10.0.0.7"]}, "canary.addresses[0]", id="no port"),
        pytest.param({"addresses": ["10.0.0.7:0"]}, "canary.addresses[0]", id="port zero"),
        pytest.param({"addresses": ["10.0.0.7:65536"]}, "canary.addresses[0]", id="a port too high"),
        pytest.param({"addresses": ["10.0.0.7:8o80"]}, "canary.addresses[0]", id="a port in letters"),
        pytest.param({"addresses": ["fd00::7:8080"]}, "canary.addresses[0]", id="IPv6 without brackets"),
        pytest.param({"addresses": ["[10.0.0.7]:8080"]}, "canary.addresses[0]", id="IPv4 with brackets"),
        pytest.param({"addresses": ["10.0.0.7:1", "224.0.0.1:1"]}, "canary.addresses[1]", id="a group"),
        pytest.param({"addresses": ["0.0.0.0:8080"]}, "canary.addresses[0]", id="no address in particular"),
        pytest.param({"addresses": ["10.0.0.7:1"] * 2}, "canary.addresses has an address twice", id="one twice"),
        pytest.param(
            {"addresses": ["[::1]:1", "[0::1]:1"]}, "canary.addresses has an address twice", id="two spellings"
        ),
        pytest.param({"addresses": [f"10.0.0.7:{n}" for n in range(1, 66)]}, "canary.addresses", id="too many"),
        pytest.param({"expiresSeconds": ...}, "canary.expiresSeconds is missing", id="no end"),
        pytest.param({"expiresSeconds": None}, "canary.expiresSeconds", id="an end of null"),
        pytest.param({"expiresSeconds": 0}, "canary.expiresSeconds", id="an end at once"),
        pytest.param({"expiresSeconds": 86400}, "canary.expiresSeconds", id="an end tomorrow"),
        pytest.param({"affinityHeader": "X-User"}, "canary.affinityHeader", id="a header in large letters"),
        pytest.param({"affinityHeader": "x user"}, "canary.affinityHeader", id="a header with a space"),
        pytest.param({"affinityHeader": 1}, "canary.affinityHeader", id="a header that is a number"),
        pytest.param({"weight": 10}, "canary.weight is not known", id="a field that is not known"),
    ],
)
def test_bad_input_is_refused_by_name(changes: dict[str, Any], field: str) -> None:
    body = json.dumps(document(**changes)).encode()
    with pytest.raises(BadDirective) as refused:
        read(body, signed(body), LISTENER)
    assert refused.value.status == 400
    assert refused.value.message.startswith(field)


GOOD = json.dumps(document()).encode()


@pytest.mark.parametrize(
    ("body", "headers", "listener", "status", "word"),
    [
        pytest.param(GOOD, {}, LISTENER, 403, "has to be signed", id="not signed"),
        pytest.param(GOOD, signed(GOOD, key=b"x" * 32), LISTENER, 403, "is not that of", id="another key"),
        pytest.param(GOOD.replace(b"0.1", b"1.0"), signed(GOOD), LISTENER, 403, "is not that of", id="another body"),
        pytest.param(
            GOOD, signed(GOOD) | {b"evenkeel-time": b"1002"}, LISTENER, 403, "is not that of", id="another time"
        ),
        pytest.param(GOOD, {b"evenkeel-signature": b"\xff"}, LISTENER, 403, "is not that of", id="no signature at all"),
        pytest.param(GOOD, signed(GOOD, b"1000"), LISTENER, 409, "not later than 1000", id="said again"),
        pytest.param(GOOD, signed(GOOD, b"999"), LISTENER, 409, "not later than 1000", id="an older one"),
        pytest.param(GOOD, signed(GOOD, b""), LISTENER, 400, "evenkeel-time", id="a signature without a time"),
        pytest.param(GOOD, signed(GOOD, b"9" * 20), LISTENER, 400, "evenkeel-time", id="a time beyond all others"),
        pytest.param(GOOD, signed(GOOD), replace(LISTENER, key=None), 403, "has no key", id="no key here"),
        pytest.param(GOOD, signed(GOOD), replace(LISTENER, process="boot-2"), 409, "boot-2", id="for another process"),
        pytest.param(b"[", signed(b"["), LISTENER, 400, "JSON", id="no JSON"),
        pytest.param(b"[" * 60000, {}, LISTENER, 400, "JSON", id="JSON without a bottom"),
        pytest.param(
            b'{"generation": 1, "process": "boot-1", "canary": 1}',
            signed(b'{"generation": 1, "process": "boot-1", "canary": 1}'),
            LISTENER,
            400,
            "canary has to be an object",
            id="a canary that is a number",
        ),
    ],
)
def test_only_the_operator_is_followed(
    body: bytes, headers: dict[bytes, bytes], listener: Listener, status: int, word: str
) -> None:
    with pytest.raises(BadDirective) as refused:
        read(body, headers, listener)
    assert refused.value.status == status
    assert word in refused.value.message


@pytest.mark.parametrize(
    ("address", "want"),
    [
        pytest.param("10.0.0.7:8080", Place("10.0.0.7", 8080), id="IPv4"),
        pytest.param("[fd00::7]:1", Place("fd00::7", 1), id="IPv6"),
    ],
)
def test_an_address_is(address: str, want: Place) -> None:
    assert place_of(address) == want
