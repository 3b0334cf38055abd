"""How many labels a second does the feedback service take, how soon does it answer, and does it lose or double one?

The real process over loopback, with requests that are checked and committed one by one as in production; its clients
take their share of the same cores. Each figure is that of batches of a hundred labels, on a file and on PostgreSQL:

    labels_per_s_*   as fast as eight clients can
    p99_ms           at half of the rate that is asked for, from the moment a post was due, the worse of the two
    lost, double     service and database killed at random moments under load: labels that were acknowledged and are
                     not counted, and labels counted more often than they were given
    quality_ms       the slowest of some answers of GET /v1/quality with that many labels stored, to their last byte,
                     the worse of the two; the first is asked for as soon as the service listens

The last line is one JSON object. A bar that is missed makes the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from evenkeel_operator.feedback.postgres import PostgresStore
from evenkeel_operator.feedback.records import COHORT_S, Label, Source
from evenkeel_operator.feedback.sqlite import SqliteStore
from evenkeel_operator.feedback.store import Store
from tests.system.feedback.databases import Postgres
from tests.system.feedback.load import BATCH, Load, batches
from tests.system.feedback.server import Deployment, Service

POSTS_PER_KILL = 40
ASKED = 10
CLASSES = 10
WEEK_S = 7 * 86400
STORED_AT_ONCE = 20_000


@dataclass(frozen=True)
class Result:
    """What counts, and is printed as the last line."""

    labels_per_s_sqlite: float
    labels_per_s_postgres: float
    p99_ms: float
    lost: int
    double: int
    quality_ms: float


BARS = Result(5000, 5000, 50, 0, 0, 100)


def rate(service: Service, seconds: float) -> float:
    """Return the labels per second that clients get through who never wait."""
    warm, bodies = batches(Deployment(), 20), batches(Deployment(), int(BARS.labels_per_s_sqlite * seconds / BATCH))
    Load(service, warm).wait()
    load = Load(service, bodies)
    took_s = load.wait()
    assert load.outcomes == {"accepted": len(bodies) * BATCH}, load.outcomes
    return len(bodies) * BATCH / took_s


def p99_ms(service: Service, seconds: float) -> float:
    """Return the 99th percentile of the latency at half of the rate that is asked for."""
    per_second = BARS.labels_per_s_sqlite / 2 / BATCH
    load = Load(service, batches(Deployment(), int(per_second * seconds)), per_second=per_second)
    load.wait()
    latencies = sorted(load.latencies_s)
    return latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))] * 1000


def killed(service: Service, kill: Callable[[], None], kills: int, chance: random.Random) -> tuple[int, int]:
    """Return how many labels were lost and how many doubled, over that many kills under load."""
    lost = double = 0
    for _ in range(kills):
        model = Deployment()
        bodies = batches(model, POSTS_PER_KILL)
        load = Load(service, bodies)
        time.sleep(chance.uniform(0.0, 0.5))
        kill()
        load.wait()
        counted, sent = service.labels(model), len(bodies) * BATCH
        lost += max(0, sent - counted)
        double += max(0, counted - sent)
    return lost, double


def quality_ms(name: str, folder: Path, flags: Sequence[str], store: Store, labels: int) -> float:
    """Return the slowest answer about one ModelDeployment of which that many labels of the last week are stored.

    `store` is where the service with these flags looks; it is filled and closed.
    """
    model = Deployment()
    source = Source(model.subject, model.revision, 0, CLASSES)
    now_s, chance = int(time.time()), random.Random(1)
    for start in range(0, labels, STORED_AT_ONCE):
        count = min(STORED_AT_ONCE, labels - start)
        # Not the oldest of the week: some fall out of it while the others are stored.
        at_s = now_s - WEEK_S + 4 * COHORT_S + int((WEEK_S - 5 * COHORT_S) * start / labels)
        store.write(
            [
                Label(
                    source=source,
                    nonce=b"\0" * 4 + (start + n).to_bytes(8),
                    row=0,
                    time_ms=at_s * 1000 + n,
                    predicted=n % CLASSES,
                    confidence=60000,
                    actual=n % CLASSES if chance.random() < 0.9 else chance.randrange(CLASSES),
                )
                for n in range(count)
            ],
            [],
            now_s,
        )
    store.close()
    service = Service(folder, *flags)
    try:
        took = []
        for _ in range(ASKED):
            begun = time.monotonic()
            status, _, text = service.answer("GET", f"/v1/quality/-/{model.uid}")
            took.append(time.monotonic() - begun)
            assert (status, sum(one["labels"] for one in json.loads(text)["revisions"])) == (200, labels)
    finally:
        service.kill()
    told = ", ".join(f"{seconds * 1000:.1f}" for seconds in took)
    print(f"{name}: quality of {labels} labels, ms: {told}", flush=True)
    return max(took) * 1000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.feedback", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="of service and database together")
    parser.add_argument("--labels", type=int, default=10_000_000, help="stored when quality is asked for")
    parser.add_argument("--seconds", type=float, default=30, help="of each measurement of rate and latency")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    print(f"seed {args.seed}", flush=True)
    found: dict[str, float] = {}
    p99, lost, double = 0.0, 0, 0
    postgres = Postgres()
    try:
        with tempfile.TemporaryDirectory(prefix="evenkeel-bench-") as place:
            for name, flags in (
                ("sqlite", ("--path", f"{place}/feedback.db")),
                ("postgres", ("--dsn", postgres.create("bench"))),
            ):
                folder = Path(place, name)
                folder.mkdir()
                service = Service(folder, *flags)

                def kill_service(service: Service = service) -> None:
                    service.kill()
                    service.start()

                def kill_database() -> None:
                    postgres.kill()
                    postgres.start()

                try:
                    found[name] = rate(service, args.seconds)
                    latency = p99_ms(service, args.seconds)
                    p99 = max(p99, latency)
                    print(f"{name}: {found[name]:.0f} labels/s, p99 {latency:.1f} ms", flush=True)
                    victims: list[tuple[Callable[[], None], int]] = [(kill_service, args.kills // 2)]
                    if name == "postgres":
                        victims = [(kill_service, args.kills // 4), (kill_database, args.kills // 4)]
                    for kill, kills in victims:
                        missing, twice = killed(service, kill, kills, chance)
                        lost, double = lost + missing, double + twice
                        print(f"{name}, {kill.__name__}: {kills} kills, {missing} lost, {twice} double", flush=True)
                finally:
                    service.kill()
            full = Path(place, "full")
            full.mkdir()
            file, dsn = full / "full.db", postgres.create("stored")
            slowest = max(
                quality_ms("sqlite", full, ("--path", str(file)), SqliteStore(file), args.labels),
                quality_ms("postgres", full, ("--dsn", dsn), PostgresStore(dsn), args.labels),
            )
    finally:
        postgres.stop()
    got = Result(round(found["sqlite"]), round(found["postgres"]), round(p99, 1), lost, double, round(slowest, 1))
    print(json.dumps(asdict(got)))
    is_met = (
        min(got.labels_per_s_sqlite, got.labels_per_s_postgres) >= BARS.labels_per_s_sqlite
        and got.p99_ms <= BARS.p99_ms
        and (got.lost, got.double) == (0, 0)
        and got.quality_ms <= BARS.quality_ms
    )
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
