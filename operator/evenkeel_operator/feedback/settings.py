"""What was the feedback service told? Flags, and the same as environment variables; master keys from a folder.

The folder is a mounted Secret: a file per key, named by its id, a number. Several keys are there while one replaces
another: new revisions take the highest, receipts of the others stay valid as long as theirs are there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evenkeel_operator import flags
from evenkeel_operator.api.rules import MOST_HORIZON_DAYS

LEAST_KEY_BYTES = 32
DAY_S = 86400
BEYOND_HORIZON_S = 3600
"""How much longer than labels are taken, they are kept. A quarter of an hour of predictions counts for a test when the
last of its labels may have come. And a label that is deleted while its receipt is good could be counted once more."""


@dataclass(frozen=True, slots=True)
class FeedbackSettings:
    """`path` is the SQLite file where `dsn` is empty. `is_open`: nobody is asked for a right."""

    keys_dir: Path
    path: Path
    dsn: str
    port: int
    host: str
    horizon_s: int
    retention_s: int
    quality_s: float
    is_open: bool
    namespaces: tuple[str, ...]
    kubeconfig: str | None
    log_level: str


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> FeedbackSettings:
    """Return the settings; exits with a message where they make no sense. A flag wins over its variable."""
    parser = flags.Parser(
        prog="evenkeel feedback",
        description="Takes the labels of predictions, counts each once, and answers how good a model is.",
        example="--dsn",
        environ=environ,
    )
    add = parser.add
    add(
        "--keys-dir",
        default="/etc/evenkeel/keys",
        text="folder with the master keys: a file per key, named by its number",
    )
    add("--path", default="/var/lib/evenkeel/feedback.db", text="file of the SQLite database")
    add("--dsn", default="", text="PostgreSQL to use instead: postgresql://USER:PASSWORD@HOST/DATABASE")
    add("--host", default="", text="address to listen on; empty: every address")
    add("--port", kind=flags.port, default=8080, text="port to listen on; 0: any free one")
    add(
        "--horizon-days",
        kind=flags.days,
        default=float(MOST_HORIZON_DAYS),
        text="age from which on a prediction can no longer be labelled, and its user's own id is deleted; no less than "
        "the longest horizon of spec.objectives.accuracy",
    )
    add(
        "--retention-days",
        kind=flags.days,
        default=90.0,
        text="age from which on labels and counts are deleted; an hour more than --horizon-days at least, and for a "
        "canary its maxDuration more",
    )
    add(
        "--quality-seconds",
        kind=flags.seconds,
        default=60.0,
        text="seconds between two looks at every model's quality, for Prometheus",
    )
    add(
        "--namespaces",
        default="",
        text="namespaces whose ModelDeployments are known, separated by commas; empty: all",
    )
    add("--kubeconfig", default=None, text="path of a kubeconfig; without: the pod's service account, else $KUBECONFIG")
    flags.add_log_level(parser)
    parser.add_switch("--open", text="ask nobody for a right: for a machine of one's own, never for a cluster")
    got = parser.parse_args(argv)
    if got.retention_days * DAY_S < got.horizon_days * DAY_S + BEYOND_HORIZON_S:
        parser.error(
            f"--retention-days is {got.retention_days:g}, but has to be an hour more than --horizon-days "
            f"({got.horizon_days:g}) at least, or counts are deleted before a test may use them: "
            "keep labels for longer (the chart's feedback.retentionDays), or take them for a shorter time "
            "(feedback.horizonDays)"
        )
    return FeedbackSettings(
        keys_dir=Path(got.keys_dir),
        path=Path(got.path),
        dsn=got.dsn,
        port=got.port,
        host=got.host,
        horizon_s=int(got.horizon_days * DAY_S),
        retention_s=int(got.retention_days * DAY_S),
        quality_s=got.quality_seconds,
        is_open=got.open,
        namespaces=flags.words(got.namespaces),
        kubeconfig=got.kubeconfig,
        log_level=got.log_level,
    )


def master_keys(folder: Path) -> dict[int, bytes]:
    """Return the master keys by their ids; raises ValueError where there is none, or one is too short.

    A Secret's folder holds links and folders of the kubelet's own beside the keys; their names are no numbers.
    """
    keys = {}
    for name in os.listdir(folder) if folder.is_dir() else ():
        if name.isascii() and name.isdigit() and 0 < int(name) < 1 << 16:
            key = (folder / name).read_bytes().strip()
            if len(key) < LEAST_KEY_BYTES:
                raise ValueError(f"the master key {folder / name} has {len(key)} bytes, not {LEAST_KEY_BYTES} and more")
            keys[int(name)] = key
    if not keys:
        raise ValueError(f"there is no master key in {folder}: a file named by a number, from 1 to 65535")
    return keys
