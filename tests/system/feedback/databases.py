"""Which databases do the tests of the feedback service run on? A file, and a real PostgreSQL of the distribution's."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster import packages

PATIENCE_S = 120.0
_USER = "postgres"


def spoil(path: Path, needle: bytes) -> None:
    """Overwrite the pages of a closed SQLite file that hold these bytes, as a disk does that fails."""
    pages = bytearray(path.read_bytes())
    size = int.from_bytes(pages[16:18])
    spoilt = [at for at in range(0, len(pages), size) if needle in pages[at : at + size]]
    assert spoilt, "the bytes stand in some page"
    for at in spoilt:
        pages[at : at + size] = b"\xff" * size
    path.write_bytes(pages)


class Postgres:
    """A server of its own on a free port of loopback, in a folder of its own. It syncs as in production."""

    def __init__(self) -> None:
        self._bin = packages.postgres()
        self._user = _USER if os.geteuid() == 0 else None  # it refuses to run as root
        self.folder = Path(tempfile.mkdtemp(prefix="evenkeel-postgres-"))
        if self._user is not None:
            owner = pwd.getpwnam(self._user)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._data = self.folder / "data"
        self._run("initdb", "-D", self._data, "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, again after it was killed, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(self._bin / "postgres", "-D", self._data, "-p", str(self.port), "-k", ""),
                    *("-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=64MB", "-c", "max_wal_size=1GB"),
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=self._user,
                group=self._user,
                start_new_session=True,
            )
        until = time.monotonic() + PATIENCE_S
        while subprocess.run(
            [self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
        ).returncode:
            assert time.monotonic() < until, (self.folder / "log").read_text()
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.05)
        return self.process

    def create(self, name: str) -> str:
        """Create an empty database; return its DSN."""
        dsn = f"postgresql://{_USER}@127.0.0.1:{self.port}"
        self._run("psql", "-q", "-d", f"{dsn}/postgres", "-c", f"CREATE DATABASE {name}")
        return f"{dsn}/{name}"

    def kill(self) -> None:
        """SIGKILL to all of it, as when its machine is lost; each backend leads a session of its own."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.process.send_signal(signal.SIGSTOP)  # no further backends
        killed = [int(pid) for pid in children.read_text().split()]
        for pid in killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        # One that has not ended yet still holds the shared memory, and PostgreSQL would not start beside it.
        until = time.monotonic() + PATIENCE_S
        while any(map(_is_running, killed)):
            assert time.monotonic() < until, killed
            time.sleep(0.005)

    def stop(self) -> None:
        """End it and remove everything."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(PATIENCE_S)
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str | Path) -> None:
        subprocess.run(
            [self._bin / program, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=sys.stderr,
            cwd=self.folder,
            user=self._user,
            group=self._user,
        )


def _is_running(pid: int) -> bool:
    """Return whether a process is there and has not ended; a zombie has (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
