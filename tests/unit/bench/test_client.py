"""Does the client of the benchmarks know where an answer ends, however it comes?"""

from __future__ import annotations

import pytest

from tests.bench.runtime.client import Answer

SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab\r\n0\r\n0\r\n\r\n"


@pytest.mark.parametrize("whole", [pytest.param(SIZED, id="sized"), pytest.param(CHUNKED, id="in chunks")])
@pytest.mark.parametrize("cut", [None, -1, -3])
def test_an_answer_ends_once(whole: bytes, cut: int | None) -> None:
    answer = Answer()
    for _ in range(3):
        pieces = [whole] if cut is None else [whole[:cut], whole[cut:]]
        assert [answer.is_complete_with(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]


@pytest.mark.parametrize("data", [b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"?"])
def test_what_is_no_answer_ends_the_load(data: bytes) -> None:
    with pytest.raises(SystemExit, match="not an answer"):
        Answer().is_complete_with(data)
