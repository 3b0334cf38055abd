"""What of this machine may a cluster change, and has it put everything back?

`python3 -m tests.cluster.snapshot > before` and, after a cluster has come and gone, `... --since before`: prints what
is there now and was not, and the other way round, and ends with code 1 if there is anything.

Standard library only. What lives inside the containers of other clusters comes and goes and is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from tests.cluster.processes import CommandFailed, ask

Snapshot = dict[str, list[str]]

_CGROUPS = Path("/sys/fs/cgroup")
_SETTINGS = Path("/proc/sys")
_KEPT = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/*",
    "net/ipv4/conf/default/*",
    "net/ipv6/conf/all/*",
    "net/ipv6/conf/default/*",
    "net/netfilter/nf_conntrack_max",
    "net/bridge/*",
    "vm/*",
    "kernel/panic*",
    "kernel/keys/*",
    "fs/inotify/*",
)
_ENGINE = frozenset({"dockerd", "containerd", "containerd-shim", "docker-proxy", "runc", "kwok", "kind"})


def taken(neighbours: Collection[str] = ()) -> Snapshot:
    """Return what there is now; `neighbours` are the ids of containers that stay, and are not looked into."""
    pids = [pid for pid in map(_Process, Path("/proc").glob("[0-9]*")) if not pid.is_within(neighbours)]
    own = os.readlink("/proc/self/ns/net")
    return {
        "processes": sorted(f"{p.name} {p.identity}" for p in pids if p.is_container or p.name in _ENGINE),
        "network namespaces": sorted({p.namespace("net") for p in pids} - {own, ""}),
        "mounts": sorted(line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()),
        "cgroups": sorted(_cgroups()),
        "interfaces": sorted(os.listdir("/sys/class/net")),
        "firewall": sorted(_firewall()),
        "settings": sorted(_settings()),
        "run folder": sorted(os.listdir("/run")),
    }


def difference(before: Snapshot, after: Snapshot) -> list[str]:
    """Return a line per thing that is new or gone."""
    lines = []
    for kind, was in before.items():
        lines += [f"new {kind}: {thing}" for thing in sorted(set(after[kind]) - set(was))]
        lines += [f"gone {kind}: {thing}" for thing in sorted(set(was) - set(after[kind]))]
    return lines


class _Process:
    """One process; blank answers for one that has ended meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        fields = self._read("stat")
        self.name = fields.partition("(")[2].rpartition(")")[0]
        rest = fields.rpartition(")")[2].split()
        self.identity = f"{folder.name}@{rest[19]}" if rest else folder.name  # its start tells a pid's users apart

    @property
    def is_container(self) -> bool:
        return self.namespace("pid") not in ("", os.readlink("/proc/self/ns/pid"))

    def is_within(self, containers: Collection[str]) -> bool:
        text = self._read("cgroup")
        return any(container in text for container in containers)

    def namespace(self, kind: str) -> str:
        try:
            return os.readlink(self._folder / "ns" / kind)
        except OSError:
            return ""

    def _read(self, name: str) -> str:
        try:
            return (self._folder / name).read_text(errors="replace")
        except OSError:
            return ""


def _cgroups() -> Iterator[str]:
    """The uppermost groups of each hierarchy, as the engine's is; what is below a group its owner makes and removes."""
    unified = (_CGROUPS / "cgroup.procs").exists()
    for root in [_CGROUPS] if unified else filter(Path.is_dir, _CGROUPS.iterdir()):
        yield from (str(group.relative_to(_CGROUPS)) for group in root.iterdir() if group.is_dir())


def _firewall() -> Iterator[str]:
    """Rules and policies; counters left out."""
    for command in (["nft", "--stateless", "list", "ruleset"], ["iptables-save"], ["ip6tables-save"]):
        try:
            text = ask(command, env={"PATH": f"/usr/sbin:/sbin:{os.environ.get('PATH', '')}"})
        except CommandFailed:
            continue  # not installed, or not for this user
        place = ""
        for line in text.splitlines():
            if line.startswith("#") or not line.strip("} \t"):
                continue
            if line.startswith(("table", "*")) or line.strip().startswith("chain"):
                place = line.strip()
            yield f"{command[0]} {place}: {line.partition('[')[0].strip()}"


def _settings() -> Iterator[str]:
    for pattern in _KEPT:
        for path in _SETTINGS.glob(pattern):
            try:
                yield f"{path.relative_to(_SETTINGS)} = {path.read_text().strip()}"
            except OSError:
                continue  # written only, or a folder


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.cluster.snapshot", description=__doc__)
    parser.add_argument("--since", type=Path, metavar="FILE", help="an earlier answer, to be compared with")
    given = parser.parse_args()
    if given.since is None:
        print(json.dumps(taken(), indent=1))
        return 0
    lines = difference(json.loads(given.since.read_text()), taken())
    print("\n".join(lines or ["as before"]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
