"""Which Docker engine runs the nodes, and how does one of our own start and stop?

Where the user's engine can run privileged containers and pull kind's node image, it is used as it is.
Elsewhere an engine of our own runs Debian's dockerd with a runtime that asks only for what the machine can
grant, with sockets, cgroup, bridge and data of its own. It keeps its data (the images are a cache) and
nothing else between an up and a down."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import leftovers, neighbours, settings, snapshot, versions
from tests.cluster.footprint import Footprint
from tests.cluster.processes import CommandFailed, ask, run, succeeds
from tests.cluster.state import HERE, Cache, known, write_atomically

NETWORK = "evenkeel"
START_S = 60


@dataclass(frozen=True)
class Engine:
    """How to talk to an engine: the program, and the environment that it and kind need."""

    docker: str
    env: Mapping[str, str]
    ours: bool

    def ask(self, *words: str | Path, stdin: str | None = None, timeout_s: float | None = 120) -> str:
        return ask([self.docker, *words], env=self.env, stdin=stdin, timeout_s=timeout_s)

    def run(self, *words: str | Path, log: Path, stdin: str | Path | None = None) -> None:
        run([self.docker, *words], env=self.env, log=log, stdin=stdin)

    def succeeds(self, *words: str | Path, timeout_s: float = 60) -> bool:
        return succeeds([self.docker, *words], env=self.env, timeout_s=timeout_s)

    @property
    def whole_env(self) -> dict[str, str]:
        return {**os.environ, **self.env}

    def has_image(self, name: str) -> bool:
        return self.succeeds("image", "inspect", name)


def users(log: Path) -> Engine | None:
    """The engine of the user, if nodes can run on it."""
    docker = shutil.which("docker")
    if docker is None or not succeeds([docker, "info"], timeout_s=10):
        return None
    engine = Engine(docker, {}, ours=False)
    image = versions.PUBLISHED_NODE_IMAGE
    try:
        if not engine.has_image(image):
            engine.run("pull", image, log=log)
        engine.run("run", "--rm", "--privileged", "--entrypoint", "true", image, log=log)
    except CommandFailed:
        return None
    return engine


def of_environment() -> Engine:
    """The user's, untested."""
    return Engine(shutil.which("docker") or "docker", {}, ours=False)


@dataclass(frozen=True)
class OwnEngine:
    cache: Cache

    @property
    def footprint(self) -> Footprint:
        return Footprint(self.cache.root)

    @property
    def socket(self) -> Path:
        return self.footprint.run_folder / "docker.sock"

    @property
    def client(self) -> Engine:
        # DOCKER_BUILDKIT=0: a newer client than the engine would insist on a plugin that is not there.
        env = {
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_BUILDKIT": "0",
            "DOCKER_CONTEXT": "",
            "KIND_EXPERIMENTAL_DOCKER_NETWORK": NETWORK,
            "PATH": f"{self.cache.bin}:/usr/sbin:/sbin:{os.environ.get('PATH', '/usr/bin:/bin')}",
        }
        return Engine("/usr/bin/docker", env, ours=True)

    def is_up(self) -> bool:
        return self.socket.exists() and self.client.succeeds("version", timeout_s=10)

    def start(self, log: Path) -> None:
        """Idempotent, as everything in it is."""
        if not self.is_up():
            self._launch()
        self._remove_forgotten_nodes(log)
        self._make_network(log)
        neighbours.allow(self.footprint.bridge)

    def _launch(self) -> None:
        """First goes what a killed engine left: its pid files make dockerd wait 45 s, its settings are not "before"."""
        self._take_back()
        write_atomically(self._before, json.dumps(snapshot.taken()))
        settings.record(self._settings)
        settings.raise_limits()
        self.footprint.run_folder.mkdir(mode=0o711)
        wrapper = self.cache.folder("engine") / "runc-reduced"
        shutil.copy(HERE / "node" / "runc-reduced.sh", wrapper)
        with (self.cache.folder("engine") / "dockerd.log").open("wb") as output:
            subprocess.Popen(
                self._command(wrapper),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **self.client.env},
                cwd="/",
            )
        self._wait_until_up()

    def stop(self) -> None:
        """Ends the engine and takes back everything it did to the machine."""
        pid_file = self.footprint.run_folder / "docker.pid"
        if pid_file.exists() and leftovers.alive(self.footprint):
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(pid_file.read_text()), signal.SIGTERM)
            deadline = time.monotonic() + 20
            while pid_file.exists() and time.monotonic() < deadline:
                time.sleep(0.1)
        self._take_back()

    def _take_back(self) -> None:
        leftovers.remove(self.footprint)
        if self._before.exists():
            leftovers.remove_run_folders(json.loads(self._before.read_text())["run folder"])
        neighbours.withdraw(self.footprint.bridge)
        settings.restore(self._settings)

    def left_behind(self) -> list[str]:
        """What is different on this machine from before the engine was last started, a line per thing."""
        if not self._before.exists():
            return []  # the user's engine ran the nodes: nothing of ours was started
        return snapshot.difference(json.loads(self._before.read_text()), snapshot.taken())

    @property
    def _before(self) -> Path:
        return self.cache.folder("engine") / "before.json"

    @property
    def _data(self) -> Path:
        return self.cache.folder("engine", "data")

    @property
    def _settings(self) -> Path:
        return self.cache.folder("engine") / "settings.json"

    def _command(self, wrapper: Path) -> list[str]:
        run_folder = self.footprint.run_folder
        return [
            "/usr/sbin/dockerd",
            *("--host", f"unix://{self.socket}", "--pidfile", str(run_folder / "docker.pid")),
            *("--data-root", str(self._data), "--exec-root", str(run_folder / "exec")),
            *("--add-runtime", f"reduced={wrapper}", "--default-runtime", "reduced"),
            *("--storage-driver", "overlay2", "--cgroup-parent", f"/{self.footprint.cgroup}"),
            # The nodes are neighbours on one bridge, and a port of 127.0.0.1 goes through docker-proxy: no rule and
            # no forwarding is needed. With them, every dockerd would first empty the chains of any other.
            *("--iptables=false", "--ip-forward=false"),
            # No bridge for everybody: the nodes have a network of their own, builds use the machine's.
            *("--bridge", "none", "--log-level", "warn"),
        ]

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + START_S
        while not self.is_up():
            if time.monotonic() > deadline:
                raise CommandFailed(["dockerd"], 1, f"no answer after {START_S} s, see engine/dockerd.log")
            time.sleep(0.2)

    def _make_network(self, log: Path) -> None:
        bridge, subnet = self.footprint.bridge, self.footprint.subnet
        option = "com.docker.network.bridge.name"
        listed = self.client.ask("network", "ls", f"--filter=name=^{NETWORK}$", "--format={{.ID}}").split()
        if listed:
            found = self.client.ask(
                "network", "inspect", f'--format={{{{index .Options "{option}"}}}}', NETWORK
            ).strip()
            if found == bridge or _has_ports(found):
                return
            self.client.run("network", "rm", NETWORK, log=log)  # of a cache that was somewhere else
        self.client.run("network", "create", "--subnet", subnet, "-o", f"{option}={bridge}", NETWORK, log=log)

    def _remove_forgotten_nodes(self, log: Path) -> None:
        """An engine that was killed starts its containers again, even those of clusters that are gone."""
        label = '{{.ID}} {{.Label "io.x-k8s.kind.cluster"}}'
        listed = self.client.ask("ps", "--all", f"--format={label}", "--filter=label=io.x-k8s.kind.cluster")
        for container, cluster in (line.split() for line in listed.splitlines()):
            if cluster not in known(self.cache):
                self.client.run("rm", "--force", "--volumes", container, log=log)


def _has_ports(bridge: str) -> bool:
    ports = Path("/sys/class/net", bridge, "brif")
    return ports.exists() and any(ports.iterdir())
