"""Does every acknowledged label count exactly once, whoever is killed at whatever moment?"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster import packages
from tests.system.feedback.databases import Postgres
from tests.system.feedback.load import BATCH, Load, batches
from tests.system.feedback.server import PATIENCE_S, Deployment, Service

KILLS = 3
POSTS = 60


def killed_under_load(service: Service, kill: Callable[[], None], kills: int, seed: int) -> tuple[int, int]:
    """Kill at random moments while labels come in; return how many were acknowledged and how many are counted."""
    chance = random.Random(seed)
    model = Deployment()
    sent = 0
    for _ in range(kills):
        bodies = batches(model, POSTS)
        sent += len(bodies) * BATCH
        load = Load(service, bodies)
        time.sleep(chance.uniform(0.01, 0.5))
        kill()
        load.wait()
        assert load.outcomes.keys() <= {"accepted", "duplicate"}, load.outcomes
        assert load.outcomes.total() == len(bodies) * BATCH
    return sent, service.labels(model)


def test_a_killed_service_loses_and_doubles_no_label(database: tuple[str, ...], start: Callable[..., Service]) -> None:
    service = start(*database)

    def kill() -> None:
        service.kill()
        service.start()

    sent, counted = killed_under_load(service, kill, KILLS, seed=1)
    assert counted == sent


def test_a_killed_database_loses_and_doubles_no_label(postgres: Postgres, start: Callable[..., Service]) -> None:
    service = start("--dsn", postgres.create("killed"))

    def kill() -> None:
        postgres.kill()
        postgres.start()

    sent, counted = killed_under_load(service, kill, KILLS, seed=2)
    assert counted == sent


_EVENT = re.compile(
    r"(?P<received>recv\w*\(.*POST /v1/feedback)"
    r"|(?P<synced>f(data)?sync\(\d+<[^>]*-wal>.*= 0|f(data)?sync resumed.*= 0)"
    r"|(?P<answered>(send\w*|write\w*)\(.*HTTP/1\.1 200)"
)


def test_each_acknowledgement_follows_the_sync_of_its_commit(tmp_path: Path, start: Callable[..., Service]) -> None:
    """One client, one post at a time: between a post that came in and its answer, the log was on the disk."""
    trace = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,recvfrom,recvmsg,read,sendto,sendmsg,write,writev"
    # -D: the process that is started is the service, which can so be told to end.
    wrapper = (packages.program("strace"), "-D", "-f", "-y", "-s", "64", "-o", str(trace), "-e", calls)
    service, model = start("--path", str(tmp_path / "feedback.db"), wrapper=wrapper), Deployment()
    posts = 20
    for n in range(posts):
        assert service.post({"receipt": model.receipt(), "label": n % 10})["outcome"] == "accepted"
    assert service.stop() == 0
    until = time.monotonic() + PATIENCE_S
    while "+++ exited with 0 +++" not in trace.read_text(errors="replace"):
        assert time.monotonic() < until
        time.sleep(0.05)
    order = "".join(
        kind[0]
        for line in trace.read_text(errors="replace").splitlines()
        if (found := _EVENT.search(line))
        for kind, text in found.groupdict().items()
        if text
    )
    order = order[order.index("r") :]
    assert re.fullmatch("(rs+a)+s*", order), order
    assert order.count("a") == posts
