"""May the nodes on our bridge talk to each other?

Where another Docker engine runs, the machine forwards nothing unless a rule says so, and the kernel counts frames that
cross a bridge as forwarded. Then, and only then, one rule for our bridge is added; it goes with the engine.
"""

from __future__ import annotations

from pathlib import Path

from tests.cluster.processes import ask, succeeds

_FILTERED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


def allow(bridge: str) -> None:
    # iptables-save, because `iptables -S` would make the table that it lists.
    forbidden = any(line.startswith(":FORWARD DROP") for line in ask(["iptables-save"]).splitlines())
    filtered = _FILTERED.exists() and _FILTERED.read_text().strip() != "0"
    if forbidden and filtered and not succeeds(["iptables", "-w", "-C", *_rule(bridge)]):
        ask(["iptables", "-w", "-I", *_rule(bridge)])


def withdraw(bridge: str) -> None:
    while f"-A FORWARD -i {bridge} -o {bridge} -j ACCEPT" in ask(["iptables-save"]).splitlines():
        ask(["iptables", "-w", "-D", *_rule(bridge)])


def _rule(bridge: str) -> tuple[str, ...]:
    return ("FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT")
