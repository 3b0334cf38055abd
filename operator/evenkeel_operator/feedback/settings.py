"""What was the feedback service told? Flags, and the same as environment variables; master keys from a folder.

The folder is a mounted Secret: a file per key, named by its id, a number. Several keys are there while one replaces
another: new revisions take the highest, receipts of the others stay valid as long as theirs are there.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LEAST_KEY_BYTES = 32
DAY_S = 86400


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
    parser = argparse.ArgumentParser(
        prog="evenkeel feedback",
        description="Takes the labels of predictions, counts each once, and answers how good a model is.",
        epilog="Every flag can be given as an environment variable too: --dsn as EVENKEEL_DSN.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )

    def add(flag: str, default: str | None, text: str, kind: type = str) -> None:
        given = environ.get("EVENKEEL_" + flag.removeprefix("--").replace("-", "_").upper())
        parser.add_argument(flag, type=kind, default=given or default, help=text)

    add("--keys-dir", "/etc/evenkeel/keys", "folder with the master keys: a file per key, named by its number")
    add("--path", "/var/lib/evenkeel/feedback.db", "file of the SQLite database")
    add("--dsn", "", "PostgreSQL to use instead: postgresql://USER:PASSWORD@HOST/DATABASE")
    add("--host", "", "address to listen on; empty: every address")
    add("--port", "8080", "port to listen on; 0: any free one", int)
    add("--horizon-days", "30", "age from which on a prediction can no longer be labelled", float)
    add("--retention-days", "90", "age from which on labels and counts are deleted", float)
    add("--quality-seconds", "60", "seconds between two looks at every model's quality, for Prometheus", float)
    add("--namespaces", "", "namespaces whose ModelDeployments are known, separated by commas; empty: all")
    add("--kubeconfig", None, "path of a kubeconfig; without: the pod's service account, else $KUBECONFIG")
    add("--log-level", "INFO", "least level of log lines")
    parser.add_argument(
        "--open", action="store_true", help="ask nobody for a right: for a machine of one's own, never for a cluster"
    )
    got = parser.parse_args(argv)
    if not 0 < got.horizon_days < got.retention_days:
        # A label that is deleted while its receipt is still good could be counted a second time.
        parser.error("--retention-days has to be more than --horizon-days, and both more than 0")
    if not got.quality_seconds > 0:
        parser.error("--quality-seconds has to be more than 0")
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
        namespaces=tuple(name for name in (part.strip() for part in got.namespaces.split(",")) if name),
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
