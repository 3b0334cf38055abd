"""How is a server kept busy by a closed loop of connections, without the client being the limit?

A program of its own, so that it has a core of its own: `client HOST PORT REQUEST_FILE CONNECTIONS SECONDS`.
Every connection sends the same bytes again as soon as its answer is complete. Of an answer only the status and the
length are looked at, or where the last of its chunks is. `busy` in what it prints is the part of the time that it had
work: below 1, the server was waited for.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time
from pathlib import Path

_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


def main() -> None:
    host, port, path, connections, seconds = (
        sys.argv[1],
        int(sys.argv[2]),
        sys.argv[3],
        int(sys.argv[4]),
        float(sys.argv[5]),
    )
    request = Path(path).read_bytes()
    sockets: dict[int, socket.socket] = {}
    for _ in range(connections):
        found = socket.create_connection((host, port))
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[found.fileno()] = found
    poll = select.epoll()
    answers = {number: Answer() for number in sockets}
    sent = dict.fromkeys(sockets, 0.0)
    latencies: list[float] = []
    clock = time.perf_counter
    for number, found in sockets.items():
        poll.register(number, select.EPOLLIN)
        sent[number] = clock()
        found.sendall(request)
    start, busy = clock(), time.process_time()
    until = start + seconds
    while (now := clock()) < until:
        for number, _ in poll.poll(1.0):
            data = sockets[number].recv(1 << 16)
            if answers[number].is_complete_with(data):
                latencies.append(clock() - sent[number])
                sent[number] = clock()
                sockets[number].sendall(request)
    latencies.sort()
    count = len(latencies)
    print(
        json.dumps(
            {
                "requests": count,
                "seconds": now - start,
                "busy": (time.process_time() - busy) / (now - start),
                "p50_ms": latencies[count // 2] * 1e3,
                "p99_ms": latencies[count * 99 // 100] * 1e3,
            }
        )
    )


class Answer:
    """An answer that is on its way, one after the other."""

    def __init__(self) -> None:
        self._left = 0
        self._is_chunked = False
        self._tail = b""

    def is_complete_with(self, data: bytes) -> bool:
        """Take in what has come, and return whether the answer ends with it. Exits where it is none."""
        if not self._left and not self._tail:
            self._begin(data)
        if not self._is_chunked:
            self._left -= len(data)
            return not self._left
        self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
        if self._tail != _LAST_CHUNK:
            return False
        self._tail = b""
        return True

    def _begin(self, data: bytes) -> None:
        end = data.find(b"\r\n\r\n")
        found = _LENGTH.search(data, 0, max(0, end + 2))
        self._is_chunked = _CHUNKED.search(data, 0, max(0, end + 2)) is not None
        if not data.startswith(b"HTTP/1.1 200") or (found is None and not self._is_chunked):
            raise SystemExit(f"not an answer: {data[:300]!r}")
        self._left = 0 if found is None else end + 4 + int(found[1])


if __name__ == "__main__":
    main()
