"""What may a killed engine have left on the machine, and how does it go away?

Everything here is recognised by a name that only our engine uses: its run folder in command lines and mounts,
its cgroup, its bridge. Each removal is safe when there is nothing to remove."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import Collection
from pathlib import Path

from tests.cluster.footprint import Footprint
from tests.cluster.processes import CommandFailed, ask, succeeds

_CGROUPS = Path("/sys/fs/cgroup")
_RUN = Path("/run")
_RUN_FOLDERS = frozenset({"docker", "containerd", "mount"})


def remove(footprint: Footprint) -> None:
    _kill(footprint)
    for folder in (footprint.run_folder, footprint.cache):
        _unmount_below(folder)
    _remove_cgroups(footprint.cgroup)
    _remove_interfaces(footprint.bridge)
    shutil.rmtree(footprint.run_folder, ignore_errors=True)


def remove_run_folders(known: Collection[str]) -> None:
    """Removes what dockerd, containerd and mount make below /run, wherever their own folders are told to be.

    `known` were there before the engine was started. A folder in which there is anything is somebody's, and stays; but
    a socket at which nobody listens is nobody's: a shim that was killed leaves one.
    """
    for name in _RUN_FOLDERS - set(known):
        for folder, _, files in os.walk(_RUN / name, topdown=False):
            with contextlib.suppress(OSError):
                for file in files:
                    if _is_deaf(Path(folder, file)):
                        os.unlink(Path(folder, file))
                os.rmdir(folder)


def _is_deaf(path: Path) -> bool:
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False


def alive(footprint: Footprint) -> set[int]:
    """The engine's own processes and those in its containers, nodes' included."""
    found: set[int] = set()
    for procs in _CGROUPS.glob(f"**/{footprint.cgroup}/**/cgroup.procs"):
        try:
            found.update(int(pid) for pid in procs.read_text().split())
        except OSError:
            continue  # the cgroup went away between the listing and the reading
    needle = str(footprint.run_folder).encode()
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes().split(b"\0")
        except OSError:
            continue
        program = os.path.basename(words[0])
        if program in (b"dockerd", b"containerd", b"containerd-shim-runc-v2", b"docker-proxy") and any(
            needle in word for word in words
        ):
            found.add(int(command.parent.name))
    return found - {os.getpid(), 0}


def _kill(footprint: Footprint) -> None:
    deadline = time.monotonic() + 20
    while pids := alive(footprint):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise CommandFailed(["kill", "-9", *map(str, sorted(pids))], 1, "processes of the engine do not end")
        time.sleep(0.1)


def _unmount_below(folder: Path) -> None:
    """Twice: a mount may lie under another one of the same place."""
    for _ in range(2):
        targets = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for target in sorted((t for t in targets if Path(t).is_relative_to(folder)), key=len, reverse=True):
            succeeds(["umount", "--lazy", target])


def _remove_cgroups(name: str) -> None:
    """Deepest first; a cgroup with a process that is just ending is busy for a moment."""
    deadline = time.monotonic() + 10
    while True:
        roots = [_CGROUPS / name, *_CGROUPS.glob(f"*/{name}")]
        folders = [Path(found) for root in roots if root.is_dir() for found, _, _ in os.walk(root)]
        if not folders or time.monotonic() > deadline:
            return
        for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
            try:
                folder.rmdir()
            except OSError:
                continue
        time.sleep(0.1)


def _remove_interfaces(bridge: str) -> None:
    if not Path("/sys/class/net", bridge).exists():
        return
    for port in Path("/sys/class/net", bridge, "brif").iterdir():
        succeeds(["ip", "link", "delete", port.name])
    ask(["ip", "link", "delete", bridge])
