"""Which kernel settings do nodes change for the whole machine, and how do they get their old values back?

Most of what an engine and its nodes set is confined to network namespaces of their own, and the engine is started so
that it leaves the machine's firewall and ip_forward alone. What is left are settings without a namespace: kubelets set
some, and one is raised here.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.state import write_atomically

_KEPT = (
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/default/forwarding",
    "net/netfilter/nf_conntrack_max",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
)
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_INOTIFY_INSTANCES = 1024


def record(place: Path) -> None:
    """Keeps an earlier record of this boot: after a kill -9 the machine is no longer as it was."""
    if _recorded(place) is None:
        content = {"boot": _BOOT.read_text().strip(), "settings": _now()}
        write_atomically(place, json.dumps(content, indent=2))


def raise_limits() -> None:
    """Every node runs a systemd, a kubelet and a containerd: 128 instances are too few for two clusters."""
    setting = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(setting.read_text()) < _INOTIFY_INSTANCES:
        setting.write_text(str(_INOTIFY_INSTANCES))


def restore(place: Path) -> None:
    now = _now()
    for name, value in (_recorded(place) or {}).items():
        if name in now and now[name] != value:
            Path("/proc/sys", name).write_text(value)
    place.unlink(missing_ok=True)


def _recorded(place: Path) -> dict[str, str] | None:
    if not place.exists():
        return None
    content = json.loads(place.read_text())
    settings: dict[str, str] = content["settings"]
    return settings if content["boot"] == _BOOT.read_text().strip() else None


def _now() -> dict[str, str]:
    paths = {name: Path("/proc/sys", name) for name in _KEPT}
    return {name: path.read_text().strip() for name, path in paths.items() if path.exists()}
