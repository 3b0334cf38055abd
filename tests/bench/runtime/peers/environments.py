"""How does each peer get an environment of its own?

Pinned files beside this module, installed by uv under `$EVENKEEL_CACHE/peers`. torch is the release that the runtime
uses, so uv links its files from its cache, and the five of them together take less room than one torch.
`python -m tests.bench.runtime.peers.environments` resolves the pinned files again, to the newest releases there are.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.bench.runtime.peers import PEERS, Peer
from tests.cluster.state import Cache

HERE = Path(__file__).parent
_WANTED = {
    "ray": ("ray[serve]",),
    "mlserver": ("mlserver", "uvloop<0.22"),
}
_BUILT = "built-of"


class Missing(Exception):
    """The environment could not be made: the message is uv's."""


def python(peer: Peer) -> Path:
    """Return the interpreter of the peer's environment, made when it is not there or its pinned file has changed."""
    pinned = HERE / f"{peer.distribution}.txt"
    key = hashlib.sha256(pinned.read_bytes()).hexdigest()
    folder = Cache.of_environment().folder("peers") / peer.distribution
    mark = folder / _BUILT
    if not mark.exists() or mark.read_text() != key:
        shutil.rmtree(folder, ignore_errors=True)
        _uv("venv", "-q", "--python", sys.executable, str(folder))
        _uv("pip", "sync", "-q", "--no-config", str(pinned), VIRTUAL_ENV=str(folder))
        mark.write_text(key)
    return folder / "bin" / "python"


def version(peer: Peer) -> str:
    """Return the pinned release."""
    lines = (HERE / f"{peer.distribution}.txt").read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{peer.distribution}=="))


def resolve(peer: Peer) -> None:
    """Write the pinned file. Our own dependencies' cool-down does not hold here: a peer is measured as it is."""
    release = importlib.metadata.version("torch").partition("+")[0]
    wanted = [*_WANTED.get(peer.distribution, (peer.distribution,)), "numpy", "orjson", f"torch=={release}"]
    written = str(HERE / f"{peer.distribution}.txt")
    told = ("--no-header", "--no-annotate", "--no-emit-index-url", "--python-version", "3.11", "-o", written, "-")
    _uv("pip", "compile", "-q", "--no-config", "--upgrade", *told, stdin="\n".join(wanted))


def _uv(*words: str, stdin: str = "", **environment: str) -> None:
    program = Path(sys.executable).with_name("uv")
    done = subprocess.run(
        [str(program), *words],
        input=stdin,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        text=True,
    )
    if done.returncode:
        raise Missing(f"uv {' '.join(words[:2])}: {done.stderr.strip()[-500:]}")


if __name__ == "__main__":
    for found in PEERS:
        resolve(found)
