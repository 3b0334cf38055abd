"""Which of the distribution's packages are needed, and which are missing? Which programs of others do tests run?"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tests.cluster.processes import CommandFailed, run
from tests.cluster.state import Cache
from tests.cluster.steps import Steps

# program that tells whether it is there -> package
NEEDED = {
    "/usr/bin/docker": "docker.io",
    "/usr/sbin/dockerd": "docker.io",
    "/usr/sbin/runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "debootstrap": "debootstrap",
    "jq": "jq",
}

# program that a test runs by itself -> package. Never installed: its service would start with it.
UNPACKED = {
    "docker-registry": "docker-registry",
    "strace": "strace",
    "prometheus": "prometheus",
    "promtool": "prometheus",
}

_QUIET = {"DEBIAN_FRONTEND": "noninteractive"}


def missing() -> tuple[str, ...]:
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/sbin"
    return tuple(sorted({package for program, package in NEEDED.items() if not shutil.which(program, path=path)}))


def install(packages: tuple[str, ...], log: Path) -> None:
    """Without recommendations: some of them would start services."""
    run(["apt-get", "update"], log=log, env=_QUIET)
    run(["apt-get", "install", "-y", "--no-install-recommends", *packages], log=log, env=_QUIET)


def program(name: str) -> str:
    """A program of a package, for tests without a cluster: of the PATH, or unpacked into the cache.

    Unpacked, it starts no service and leaves the machine as it was.
    """
    if found := shutil.which(name):
        return found
    cache = Cache.of_environment()
    package = UNPACKED[name]
    final = cache.root / "packages" / package
    if not final.exists():
        with cache.locked(), Steps(cache.folder("logs"), quiet=True).step(f"unpack {package}") as log:
            if not final.exists():  # nobody else was faster
                _unpack(package, cache.folder("packages"), log)
    return str(final / "usr" / "bin" / name)


def postgres() -> Path:
    """The folder of PostgreSQL's programs, installed where they are not there: no server is set up or started."""
    if not (found := _postgres()):
        # Read by the package when it is installed: without it, a server would be set up and run for ever.
        settings = Path("/etc/postgresql-common/createcluster.conf")
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text("create_main_cluster = false\nstart_conf = 'manual'\n")
        cache = Cache.of_environment()
        with cache.locked(), Steps(cache.folder("logs"), quiet=True).step("install postgresql") as log:
            install(("postgresql", "-o", "Dpkg::Options::=--force-confold"), log)
        found = _postgres()
    return found[-1]


def chromium() -> str:
    """Chromium's program, installed where it is not there, with one family of letters: it starts nothing by itself."""
    if (found := shutil.which("chromium")) is None:
        cache = Cache.of_environment()
        with cache.locked(), Steps(cache.folder("logs"), quiet=True).step("install chromium") as log:
            install(("chromium", "fonts-liberation"), log)
        found = shutil.which("chromium")
        assert found is not None, "the package has the program"
    return found


def _postgres() -> list[Path]:
    return sorted(path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def _unpack(package: str, folder: Path, log: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{package}-", dir=folder) as beside:
        download = ["apt-get", "download", package]
        try:
            run(download, log=log, env=_QUIET, cwd=Path(beside))
        except CommandFailed:  # the lists are older than what the mirror holds, or there are none
            run(["apt-get", "update"], log=log, env=_QUIET)
            run(download, log=log, env=_QUIET, cwd=Path(beside))
        (archive,) = Path(beside).glob("*.deb")
        run(["dpkg-deb", "--extract", archive, Path(beside) / "unpacked"], log=log)
        (Path(beside) / "unpacked").replace(folder / package)
