"""Where is everything kept, and what is known about a cluster that is up?

All of it lies outside the checkout, under `$EVENKEEL_CACHE` (default `~/.cache/evenkeel`), so that a second
checkout starts warm. Nothing in the cache is ever half-written under its final name: artefacts are made
beside it and renamed."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


class NotUp(Exception):
    """There is no cluster of that name."""


@dataclass(frozen=True)
class Cache:
    root: Path

    @classmethod
    def of_environment(cls) -> Cache:
        configured = os.environ.get("EVENKEEL_CACHE")
        return cls(Path(configured) if configured else Path.home() / ".cache" / "evenkeel")

    def folder(self, *names: str) -> Path:
        path = self.root.joinpath(*names)
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def bin(self) -> Path:
        """What belongs on PATH: kubectl, helm, kind, and docker where the engine is ours."""
        return self.folder("bin")

    def cluster(self, name: str) -> Path:
        return self.folder("clusters", name)

    def kubeconfig(self, name: str) -> Path:
        return self.root / "clusters" / name / "kubeconfig"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One change at a time on this machine, whichever checkout it comes from."""
        with (self.folder() / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@dataclass(frozen=True)
class Cluster:
    """What `status --json` prints."""

    name: str
    kubeconfig: str
    origin: str  # "built", "published" or "given"
    control_plane: str = ""
    workers: tuple[str, ...] = ()
    node_ports: dict[str, int] = field(default_factory=dict)  # NodePort -> port on 127.0.0.1
    shared_folder: str = ""
    audit_log: str = ""
    runtime: bool = True
    images: dict[str, str] = field(default_factory=dict)
    s3: dict[str, str] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    docker_host: str = ""

    @property
    def nodes(self) -> tuple[str, ...]:
        return (self.control_plane, *self.workers)

    @property
    def schedulable(self) -> tuple[str, ...]:
        """The nodes that ordinary pods run on."""
        return self.workers or (self.control_plane,)

    def with_(self, **changes: Any) -> Cluster:
        return dataclasses.replace(self, **changes)


def read(name: str = "evenkeel", cache: Cache | None = None) -> Cluster:
    path = (cache or Cache.of_environment()).root / "clusters" / name / "cluster.json"
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as missing:
        raise NotUp(f"there is no cluster {name!r}: bring it up with `python3 -m tests.cluster up`") from missing
    content["workers"] = tuple(content["workers"])
    return Cluster(**content)


def write(cluster: Cluster, cache: Cache) -> None:
    write_atomically(cache.cluster(cluster.name) / "cluster.json", as_json(cluster))


def as_json(cluster: Cluster, **more: object) -> str:
    return json.dumps({**dataclasses.asdict(cluster), **more}, indent=2) + "\n"


def forget(name: str, cache: Cache) -> None:
    shutil.rmtree(cache.root / "clusters" / name, ignore_errors=True)


def known(cache: Cache) -> tuple[str, ...]:
    """The clusters that have left something on disk, whether or not they still run."""
    return tuple(sorted(path.name for path in cache.folder("clusters").iterdir()))


def write_atomically(path: Path, content: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(content)
    beside.replace(path)


def content_key(*parts: str | bytes | Path) -> str:
    """Twelve hex digits over texts, files and folders; a file's place in its folder counts, not its time."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str | bytes):
            digest.update(b"text\0" + (part.encode() if isinstance(part, str) else part) + b"\0")
        elif part.is_dir():
            for path in sorted(part.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    mode = b"x" if os.access(path, os.X_OK) else b"-"
                    digest.update(b"file\0" + str(path.relative_to(part)).encode() + b"\0" + mode + path.read_bytes())
        else:
            digest.update(b"file\0" + part.name.encode() + b"\0" + part.read_bytes())
    return digest.hexdigest()[:12]
