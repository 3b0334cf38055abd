"""How many threads may a forward use? As many as the cgroup gives CPUs, not as many as the node has.

With more threads than CPUs under a quota, all of them are stopped for the rest of the period together.
"""

from __future__ import annotations

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")

_SPINS = "GOMP_SPINCOUNT"
_SHORT_SPINS = "2000"
"""Some 100 µs: longer than from one operator of a forward to the next, and nothing beside a request."""


def spin_briefly(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let threads that wait for work sleep soon; to be called before torch is imported, which reads it then.

    GNU OpenMP, which torch's wheels come with, spins 300,000 times by itself: milliseconds of CPU after every request,
    and on a busy node in the way of the very threads that are waited for. Whoever has set a policy of their own keeps
    it (GCC's libgomp manual, "Environment Variables").
    """
    if "OMP_WAIT_POLICY" not in environ:
        environ.setdefault(_SPINS, _SHORT_SPINS)


def usable_cpus(cgroup: Path = _CGROUP) -> int:
    """Return how many CPUs this process may keep busy: the affinity mask, cut by the quota of cgroup v2 or v1."""
    allowed = len(os.sched_getaffinity(0))
    quota = _quota_v2(cgroup) or _quota_v1(cgroup)
    return max(1, min(allowed, math.ceil(quota) if quota else allowed))


def stretch(threads: int, cgroup: Path = _CGROUP) -> float:
    """Return how many times longer work of so many busy threads takes that goes on for long, under the quota.

    A short measurement does not see the quota: with 200m, 20 ms of every 100 ms are run at full speed.
    """
    quota = _quota_v2(cgroup) or _quota_v1(cgroup)
    return max(1.0, threads / quota) if quota else 1.0


def _quota_v2(cgroup: Path) -> float | None:
    text = _read(cgroup / "cpu.max").split()
    if len(text) != 2 or text[0] == "max":
        return None
    return int(text[0]) / int(text[1])


def _quota_v1(cgroup: Path) -> float | None:
    for folder in ("cpu", "cpu,cpuacct"):
        quota = _read(cgroup / folder / "cpu.cfs_quota_us").strip()
        period = _read(cgroup / folder / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(period):
            return int(quota) / int(period)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
