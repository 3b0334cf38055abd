"""Is all told that the feedback service takes, in pieces that it takes, whatever it refuses?"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from evenkeel_runtime import config
from evenkeel_runtime.receipts import ID_HEADER, MAX_CLASSES, ONWARD_HEADER, Assignment, Issuer, Origin, opened
from evenkeel_runtime.serve import feedback as way
from evenkeel_runtime.serve import ids, receipts
from evenkeel_runtime.serve.connections import Server
from evenkeel_runtime.serve.feedback import MOST_POST_BYTES, THREADS, WAITING_BYTES, Feedback
from evenkeel_runtime.serve.ids import Ids
from evenkeel_runtime.serve.pairs import Pairs
from evenkeel_runtime.serve.prediction import Prediction
from evenkeel_runtime.serve.receipts import COHORT_S, Receipts

UID = "6f1b54a4-6d1a-4a8e-9d0e-1c2f6f0f5f11"
KEY = b"k" * 32
PATIENCE_S = 60.0
TAKEN_BYTES = 8 << 20
LONG = 8192
"""Rows of a receipt of 44 kB."""
Judge = Callable[[dict[str, Any]], int]


@contextmanager
def service(judge: Judge) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A feedback service that takes pushes as long as the real one does; yields its address and what it has taken."""
    taken: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["content-length"])
            body = json.loads(self.rfile.read(size))
            status = 413 if size > TAKEN_BYTES else judge(body)
            if status == 200:
                taken.append(body)
            self.send_response(status)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", taken
        finally:
            server.shutdown()
            thread.join()


def told(url: str, classes: int = 2) -> tuple[Feedback, Receipts]:
    found = Feedback(config.Feedback(KEY, 1, UID, url))
    values = {class_: class_ for class_ in range(classes)}
    given = Receipts(Issuer(KEY, Origin(1, b"s" * 16, "digits-1", classes)), Prediction(0, classes, values=values))
    found.use(given)
    return found, given


def predict(given: Receipts, name: str | None = None, rows: int = 1) -> None:
    """Predict the classes one after the other, a row each."""
    headers = {} if name is None else {ID_HEADER.encode(): name.encode()}
    given.issue([np.arange(rows) % given.prediction.classes], headers)


def counted(taken: list[dict[str, Any]]) -> int:
    """Return how many predictions the service knows of: the last total of every cohort."""
    totals = {(one["start"], one["assignment"]): one["counts"] for body in taken for one in body["cohorts"]}
    return sum(count for counts in totals.values() for _, count in counts)


def names(taken: list[dict[str, Any]]) -> list[str]:
    return [name for body in taken for name, _ in body["ids"]]


async def test_long_receipts_are_told_in_pieces() -> None:
    with service(lambda body: 200) as (url, taken):
        feedback, given = told(url)
        for number in range(200):
            predict(given, f"order-{number}", LONG)
        await feedback.push()
    assert names(taken) == [f"order-{number}" for number in range(200)]
    assert counted(taken) == 200 * LONG
    assert (len(given.ids), given.ids.dropped) == (0, 0)
    assert len(taken) > 1


async def test_cohorts_of_many_classes_are_told_in_pieces_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    cohorts = 14
    now = time.time() // COHORT_S * COHORT_S
    with service(lambda body: 200) as (url, taken):
        feedback, given = told(url, MAX_CLASSES)
        for number in range(cohorts):
            monkeypatch.setattr(receipts, "time", lambda number=number: now + number * COHORT_S)
            predict(given, rows=MAX_CLASSES)
        await feedback.push()
    starts = [cohort["start"] for body in taken for cohort in body["cohorts"]]
    assert starts == [int(now) + number * COHORT_S for number in range(cohorts)]
    assert counted(taken) == cohorts * MAX_CLASSES


@pytest.mark.parametrize(
    ("onward", "drawn", "want"),
    [
        pytest.param(None, None, Assignment.UNASSIGNED, id="nobody draws"),
        pytest.param("split", None, Assignment.CANARY, id="it was passed on"),
        pytest.param("mirror", None, None, id="it is a copy, which counts nowhere"),
        pytest.param(None, Assignment.STABLE, Assignment.STABLE, id="it drew stable"),
        pytest.param(None, Assignment.CANARY, Assignment.CANARY, id="it drew the canary, which did not answer"),
        pytest.param("split", Assignment.UNASSIGNED, Assignment.UNASSIGNED, id="it says so to a replica that draws"),
    ],
)
async def test_an_answer_counts_as_what_its_request_has_drawn(
    onward: str | None, drawn: Assignment | None, want: Assignment | None
) -> None:
    with service(lambda body: 200) as (url, taken):
        feedback, given = told(url)
        headers = {} if onward is None else {ONWARD_HEADER.encode(): onward.encode()}
        receipt = given.issue([np.zeros(1, np.int64)], headers, drawn)
        await feedback.push()
    assert receipt is not None
    assert opened(receipt.decode(), lambda key_id, subject: KEY).origin.assignment == (
        Assignment.UNASSIGNED if want is None else want
    )
    assert [(one["assignment"], one["counts"]) for body in taken for one in body["cohorts"]] == (
        [] if want is None else [(want, [[0, 1]])]
    )


async def test_what_a_replica_answers_is_told_though_it_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary that has copies alone counts none, and the service may have lost what it was told."""
    with service(lambda body: 200) as (url, taken):
        feedback, _ = told(url, classes=4)
        for _ in range(3):
            await feedback.push()
        assert [(body["classes"], body["cohorts"]) for body in taken] == [(4, [])]
        monkeypatch.setattr(way, "INTRODUCED_S", 0.0)
        await feedback.push()
    assert [(body["classes"], body["cohorts"]) for body in taken] == [(4, [])] * 2


async def test_what_the_service_refuses_does_not_hold_up_the_rest() -> None:
    with service(lambda body: 400 if any(name == "bad" for name, _ in body["ids"]) else 200) as (url, taken):
        feedback, given = told(url)
        for name in ("bad", *(f"order-{number}" for number in range(1500))):
            predict(given, name)
        await feedback.push()
    assert names(taken) == [f"order-{number}" for number in range(999, 1500)]
    assert given.ids.dropped == 1000
    assert counted(taken) == 1501


async def test_refused_pairs_do_not_hold_up_the_rest() -> None:
    with service(lambda body: 400 if body["pairs"] else 200) as (url, taken):
        feedback, given = told(url)
        feedback.pairs = Pairs(KEY)
        stable, canary = (Issuer(KEY, Origin(1, b"s" * 16, name, 2)) for name in ("digits-1", "digits-2"))
        heads = [
            b"HTTP/1.1 200 OK\r\nevenkeel-receipt: %s\r\n" % one.one(1_800_000_000_000, 1, 1)
            for one in (stable, canary)
        ]
        feedback.pairs.add(*heads)
        predict(given)
        await feedback.push()
    assert counted(taken) == 1
    assert (feedback.pairs.first(9), feedback.pairs.dropped) == ([], 1)


async def test_ids_are_kept_while_it_is_the_counts_that_are_refused() -> None:
    status = 400
    with service(lambda body: status) as (url, taken):
        feedback, given = told(url)
        predict(given, "order-1")
        await feedback.push()
        assert (taken, len(given.ids), given.ids.dropped) == ([], 1, 0)
        status = 200
        await feedback.push()
    assert names(taken) == ["order-1"]
    assert counted(taken) == 1


@pytest.mark.parametrize(
    ("size", "want"),
    [
        pytest.param(150, ids.KEPT, id="short receipts, by their number"),
        pytest.param(44_000, ids.KEPT_BYTES // (44_000 + 8), id="long receipts, by their bytes"),
    ],
)
def test_ids_that_wait_are_bounded(size: int, want: int) -> None:
    kept, receipt = Ids(), "r" * size
    for number in range(ids.KEPT + 5):
        kept.add(f"{number:08}", receipt)
    assert (len(kept), kept.dropped) == (want, ids.KEPT + 5 - want)
    (oldest,) = kept.first(1, 0)
    assert oldest == (f"{ids.KEPT + 5 - want:08}", receipt)


@asynccontextmanager
async def hesitant() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A feedback service that answers pushes at once, and posts only when it is told to."""
    may_answer = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        if head.startswith(b"POST /v1/feedback"):
            await may_answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", may_answer


@asynccontextmanager
async def passing_on(feedback: Feedback) -> AsyncIterator[Callable[[int], asyncio.Task[bytes]]]:
    """A replica's port; yields what posts so many bytes there, and returns the answer."""
    server = Server(feedback.pass_on, config.Limits())
    listener = await asyncio.get_running_loop().create_server(server.connection, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]

    async def post(size: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = b"POST /v1/feedback HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % size
        writer.write(head + bytes(size))
        answer = await reader.read()
        writer.close()
        return answer

    async with listener:
        yield lambda size: asyncio.ensure_future(post(size))


async def test_posts_that_wait_hold_bounded_memory_and_hold_up_no_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(way, "TIMEOUT_S", PATIENCE_S)
    size = WAITING_BYTES // THREADS - 1
    async with hesitant() as (url, may_answer), asyncio.timeout(PATIENCE_S):
        feedback, given = told(url)
        async with passing_on(feedback) as post:
            posts = [post(size) for _ in range(THREADS + 1)]
            refused, waiting = await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED)
            assert [answer.result()[:12] for answer in refused] == [b"HTTP/1.1 503"]
            predict(given)
            await feedback.push()
            assert given.changed(1) == ({}, True)
            may_answer.set()
            assert [answer[:12] for answer in await asyncio.gather(*waiting)] == [b"HTTP/1.1 200"] * THREADS
            assert (await post(size))[:12] == b"HTTP/1.1 200"


async def test_a_post_that_the_service_would_not_take_is_not_passed_on() -> None:
    async with hesitant() as (url, may_answer), asyncio.timeout(PATIENCE_S):
        feedback, _ = told(url)
        async with passing_on(feedback) as post:
            assert (await post(MOST_POST_BYTES + 1))[:12] == b"HTTP/1.1 413"
            may_answer.set()
            assert (await post(MOST_POST_BYTES))[:12] == b"HTTP/1.1 200"
