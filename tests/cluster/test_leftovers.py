"""Does a cluster that ends leave the machine as it was, whatever happened to it in between?

A second cluster comes up beside the first, once more when it is up already, and again after everything of it was
killed; then it is killed once more and ended. Nothing of the first may be touched.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import snapshot, state
from tests.cluster.faults import audit
from tests.cluster.kubectl import Kubectl, wait_until
from tests.cluster.processes import ask
from tests.cluster.state import CHECKOUT, Cluster, NotUp

pytestmark = pytest.mark.cluster

NAME = "leftovers"
"""Not the name of a cluster that somebody may have."""


@pytest.fixture
def first() -> Iterator[Cluster]:
    yield state.read()
    try:
        state.read(NAME)
    except NotUp:
        return
    _cluster("down")


def test_a_second_cluster_leaves_nothing_behind(first: Cluster) -> None:
    neighbours = _containers(first)
    before = snapshot.taken(neighbours)

    _cluster("up", "--workers", "0", "--no-runtime")
    made = set(_containers(first)) - set(neighbours)
    _cluster("up", "--workers", "0", "--no-runtime")
    assert set(_containers(first)) - set(neighbours) == made, "what is up is kept"

    _kill(first, made)
    _cluster("up", "--workers", "0", "--no-runtime", "--no-load")
    assert Kubectl.of(state.read(NAME).kubeconfig).answers()

    _kill(first, set(_containers(first)) - set(neighbours))
    _cluster("down")
    _cluster("down")
    assert _containers(first) == neighbours
    got: list[list[str]] = [[]]

    def is_as_before() -> bool:
        got[0] = snapshot.difference(before, snapshot.taken(neighbours))
        return not got[0]

    try:
        wait_until("the machine is as before", is_as_before, timeout_s=15)
    except Exception as e:
        raise AssertionError("\n".join(got[0])) from e
    assert Kubectl.of(first.kubeconfig).answers()


def _cluster(*words: str) -> None:
    ask([sys.executable, "-m", "tests.cluster", *words, "--name", NAME], cwd=CHECKOUT, timeout_s=300)


def _containers(first: Cluster) -> list[str]:
    """Return the ids of every cluster's nodes, running or not."""
    words, env = audit.docker(first)
    label = "label=io.x-k8s.kind.cluster"
    return sorted(ask([*words, "ps", "--all", "--quiet", "--no-trunc", f"--filter={label}"], env=env).split())


def _kill(first: Cluster, containers: set[str]) -> None:
    """Kill everything in the containers, and what holds them on the machine, where that is ours to kill."""
    words, env = audit.docker(first)
    if first.origin != "built":
        ask([*words, "kill", *containers], env=env)
        return
    doomed = {pid for container in containers for pid in _pids(container)}
    assert doomed
    for pid in doomed:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    # The engine starts such a node once more; what was killed is gone all the same.
    wait_until("they are gone", lambda: not doomed & {pid for container in containers for pid in _pids(container)})


def _pids(container: str) -> list[int]:
    """Return the processes of a container, its shim among them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            cgroup, words = (folder / "cgroup").read_text(), (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        is_shim = words[0].endswith(b"containerd-shim-runc-v2") and container.encode() in words
        if is_shim or container in cgroup:
            found.append(int(folder.name))
    return found
