"""What did the machine's firewall and kernel settings look like before, and how do they get back there?

A Docker engine sets ip_forward to 1 and the FORWARD policy to DROP, makes chains of its own, and undoes none
of it when it stops; kubelets set kernel settings that are not confined to their container. Restoring a whole
saved rule set would throw away what others changed meanwhile, so only what is recognisably the engine's goes.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster.processes import CommandFailed, ask
from tests.cluster.state import write_atomically

BRIDGE = "evenkeel0"
SUBNET = "198.18.16.0/24"  # from the range for benchmarks: no site network uses it

_SETTINGS = (
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


@dataclass(frozen=True)
class Baseline:
    """The machine as it was before the engine first started since boot."""

    boot: str
    settings: dict[str, str]
    policies: dict[str, str]  # "filter FORWARD" -> "ACCEPT"
    chains: tuple[str, ...]  # "filter FORWARD"
    tables: tuple[str, ...]  # "ip filter", as nft names them


def record(path: Path) -> None:
    """Keeps an earlier record: after a kill -9 the machine as it is now is not the machine as it was."""
    before = load(path)
    if before and before.boot == _BOOT.read_text().strip():
        return
    policies, chains = _chains()
    baseline = Baseline(_BOOT.read_text().strip(), _settings(), policies, tuple(chains), _tables())
    write_atomically(path, json.dumps(asdict(baseline), indent=2))


def load(path: Path) -> Baseline | None:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return Baseline(**{**content, "chains": tuple(content["chains"]), "tables": tuple(content["tables"])})


def raise_inotify_limit() -> None:
    """Every node runs a systemd, a kubelet and a containerd: 128 instances are too few for two clusters."""
    setting = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(setting.read_text()) < 1024:
        setting.write_text("1024")


def restore(path: Path) -> None:
    baseline = load(path)
    if baseline is None:
        return
    if baseline.boot == _BOOT.read_text().strip():
        _remove_rules(baseline)
        for key, policy in baseline.policies.items():
            table, chain = key.split()
            if _chains()[0].get(key) != policy:
                ask(["iptables", "-w", "-t", table, "-P", chain, policy])
        _remove_tables(baseline)
        _restore_settings(baseline)
    path.unlink()


def _remove_rules(baseline: Baseline) -> None:
    _, chains = _chains()
    ours = {key for key in chains if key.split()[1].startswith("DOCKER") and key not in baseline.chains}
    for table in {key.split()[0] for key in chains}:
        names = {key.split()[1] for key in ours if key.split()[0] == table}
        for rule in ask(["iptables", "-w", "-t", table, "-S"]).splitlines():
            words = shlex.split(rule)
            if words[0] != "-A" or words[1] in names:
                continue
            if BRIDGE in words or SUBNET in words or names.intersection(words):
                ask(["iptables", "-w", "-t", table, "-D", *words[1:]])
        for verb in ("-F", "-X"):  # all are emptied before the first is removed: they refer to each other
            for name in sorted(names):
                ask(["iptables", "-w", "-t", table, verb, name])


def _remove_tables(baseline: Baseline) -> None:
    """Tables that iptables made on the way and that hold nothing but chains that accept everything."""
    for table in _tables():
        if table in baseline.tables:
            continue
        listed = ask(["nft", "list", "table", *table.split()]).splitlines()
        if all(_says_nothing(line.strip()) for line in listed):
            ask(["nft", "delete", "table", *table.split()])


def _says_nothing(line: str) -> bool:
    return (
        line in ("", "}")
        or line.endswith("{")
        or (line.startswith("type ") and line.endswith("policy accept;"))
    )


def _restore_settings(baseline: Baseline) -> None:
    now = _settings()
    for name, value in baseline.settings.items():
        if now.get(name) != value:
            Path("/proc/sys", name).write_text(value)


def _settings() -> dict[str, str]:
    found = {}
    for name in _SETTINGS:
        path = Path("/proc/sys", name)
        if path.exists():
            found[name] = path.read_text().strip()
    return found


def _chains() -> tuple[dict[str, str], list[str]]:
    """Policies and chains of the tables that exist. iptables-save makes none; `iptables -t nat -S` would."""
    policies, chains, table = {}, [], ""
    for line in ask(["iptables-save"]).splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            name, policy = line[1:].split()[:2]
            chains.append(f"{table} {name}")
            if policy != "-":
                policies[f"{table} {name}"] = policy
    return policies, chains


def _tables() -> tuple[str, ...]:
    try:
        listed = ask(["nft", "list", "tables"])
    except CommandFailed:
        return ()
    return tuple(
        line.removeprefix("table ").strip() for line in listed.splitlines() if line.startswith("table ")
    )
