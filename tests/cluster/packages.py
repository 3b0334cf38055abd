"""Which of the distribution's packages are needed, and which are missing?"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.cluster.processes import run

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


def missing() -> tuple[str, ...]:
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/sbin"
    return tuple(sorted({package for program, package in NEEDED.items() if not shutil.which(program, path=path)}))


def install(packages: tuple[str, ...], log: Path) -> None:
    """Without recommendations: some of them would start services."""
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update"], log=log, env=quiet)
    run(["apt-get", "install", "-y", "--no-install-recommends", *packages], log=log, env=quiet)
