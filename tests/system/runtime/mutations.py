"""How does a valid request become one that nobody has thought of?"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

_NUMBER = re.compile(rb"-?\d+(\.\d+)?")
_NUMBERS = (
    b"0", b"-1", b"1", b"00", b"+3", b"0x10", b"1e309", b"NaN", b"null", b"true", b'"7"', b"[]", b"{}",
    b"2147483648", b"18446744073709551616", b"99999999999999999999999999", b"1.5", b"1e-400", b"",
)  # fmt: skip
_TOKENS = (
    b"\r\n", b"\n", b"\r", b"\0", b": ", b",", b'"', b"[", b"]", b"{", b"}", b"\\u0000", b"\xff\xfe", b"%00", b"%2e%2e",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n",
    b"Upgrade: h2c\r\nConnection: Upgrade\r\n", b"Inference-Header-Content-Length: 7\r\n",
    b"Content-Encoding: gzip\r\n",
    b"HTTP/1.0", b"HTTP/2.0", b"POST ", b"BYTES", b"BF16", b"FP64", b'"data":', b'"shape":', b'"parameters":',
)  # fmt: skip


def mutated(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """Return one of the seeds after one to four changes."""
    found = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, 4)):
        _CHANGES[chance.randrange(len(_CHANGES))](found, seeds, chance)
    return bytes(found)


def _flip(found: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    if found:
        found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)


def _cut(found: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    start = chance.randrange(len(found) + 1)
    del found[start : start + chance.choice((1, 2, 8, 64))]


def _repeat(found: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    start = chance.randrange(len(found) + 1)
    found[start:start] = found[start : start + chance.choice((1, 4, 32, 256))] * chance.choice((1, 2, 50))


def _insert(found: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    start = chance.randrange(len(found) + 1)
    found[start:start] = chance.choice(_TOKENS) if chance.random() < 0.8 else chance.randbytes(chance.randint(1, 40))


def _number(found: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    numbers = list(_NUMBER.finditer(found))
    if numbers:
        start, stop = chance.choice(numbers).span()
        found[start:stop] = chance.choice(_NUMBERS)


def _splice(found: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    other = chance.choice(seeds)
    found[chance.randrange(len(found) + 1) :] = other[chance.randrange(len(other)) :]


def _end(found: bytearray, seeds: Sequence[bytes], chance: random.Random) -> None:
    del found[chance.randrange(len(found) + 1) :]


_CHANGES = (_flip, _flip, _cut, _repeat, _insert, _insert, _number, _number, _splice, _end)
