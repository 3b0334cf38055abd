"""What may be asked for on the command line?"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from tests.cluster import cluster, gpus, kwok, state
from tests.cluster.cluster import Wish
from tests.cluster.kubectl import Kubectl
from tests.cluster.processes import CommandFailed
from tests.cluster.state import Cache, NotUp
from tests.cluster.steps import StepFailed, Steps

EXAMPLES = """\
examples:
  python3 -m tests.cluster up                     1 control plane, 2 workers, add-ons, both product images
  python3 -m tests.cluster load                   the images again, after a change of the code
  python3 -m tests.cluster status --json          names, ports, paths, image references, for programs
  python3 -m tests.cluster shell                  a shell with KUBECONFIG and PATH set
  eval "$(python3 -m tests.cluster env)"          the same for this shell
  python3 -m tests.cluster nodes 100 --product NVIDIA-L4 --gpus 8
  python3 -m tests.cluster up --name second --workers 0 --no-runtime
  python3 -m tests.cluster up --kubeconfig FILE   only the add-ons, into a cluster of your own

Everything is kept under $EVENKEEL_CACHE (default ~/.cache/evenkeel); ~/.kube is never touched.
"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python3 -m tests.cluster",
        description="A real Kubernetes cluster on this machine, with GPUs that are not there, for the tests.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, about: str, act: Callable[[argparse.Namespace, Cache], int]) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=about, description=about)
        made.add_argument("--name", default="evenkeel", help="which cluster (default: %(default)s)")
        made.set_defaults(act=act)
        return made

    up = command("up", "bring the cluster up, or repair it; what is there already is kept", _up)
    up.add_argument("--workers", type=int, default=2, metavar="N", help="worker nodes (default: %(default)s)")
    up.add_argument("--no-runtime", action="store_true", help="without the runtime's image, which has 5 GB")
    up.add_argument("--no-services", action="store_true", help="without KWOK, S3, metrics: only tests need them")
    up.add_argument("--no-load", action="store_true", help="without the product's images of this checkout")
    up.add_argument("--build", action="store_true", help="build everything, even if kind's image could be pulled")
    up.add_argument("--kubeconfig", type=Path, metavar="FILE", help="create nothing: add-ons into this cluster")
    up.add_argument("--registry", default="", metavar="PREFIX", help="with --kubeconfig: push the images there")
    up.add_argument(
        "--kwok-stage", type=Path, action="append", default=[], metavar="FILE", help="one more stage for KWOK"
    )
    down = command("down", "end the cluster and leave nothing behind but the cache", _down)
    down.add_argument("--check", action="store_true", help="fail if the machine is not as before the first cluster")
    command("load", "build the product's images and put them on the nodes", _load)
    status = command("status", "what is up, and where", _status)
    status.add_argument("--json", action="store_true", help="for programs")
    command("env", "print export lines for KUBECONFIG and PATH", _env)
    command("shell", "a shell with KUBECONFIG and PATH set", _shell)
    nodes = command("nodes", "simulate this many nodes with GPUs (0 removes all)", _nodes)
    nodes.add_argument("count", type=int)
    nodes.add_argument("--product", default=gpus.H100.product, help="GPU product (default: %(default)s)")
    nodes.add_argument("--memory", type=int, metavar="MIB", help="of one GPU (default: the product's)")
    nodes.add_argument("--gpus", type=int, default=8, help="GPUs per node (default: %(default)s)")
    nodes.add_argument("--prefix", default="kwok", help="names are PREFIX-0, PREFIX-1, ... (default: %(default)s)")
    return top


def main() -> int:
    arguments = parser().parse_args()
    try:
        code: int = arguments.act(arguments, Cache.of_environment())
    except (StepFailed, CommandFailed, NotUp) as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: `up` goes on from here, `down` clears it away", file=sys.stderr)
        return 130
    return code


def _up(arguments: argparse.Namespace, cache: Cache) -> int:
    wish = Wish(
        name=arguments.name,
        workers=arguments.workers,
        runtime=not arguments.no_runtime,
        services=not arguments.no_services,
        load=not arguments.no_load,
        kwok_stages=tuple(arguments.kwok_stage),
        build=arguments.build,
    )
    steps = _steps(cache)
    with cache.locked():
        if arguments.kubeconfig:
            made = cluster.equip_given(arguments.kubeconfig.resolve(), wish, arguments.registry, cache, steps)
        else:
            made = cluster.up(wish, cache, steps)
    steps.say(f"up: export KUBECONFIG={shlex.quote(made.kubeconfig)}")
    return 0


def _down(arguments: argparse.Namespace, cache: Cache) -> int:
    with cache.locked():
        steps = _steps(cache)
        cluster.down(arguments.name, cache, steps)
        if not arguments.check:
            return 0
        lines = cluster.left_behind(cache)
    steps.say("\n".join(lines) if lines else "processes, namespaces, mounts, cgroups, interfaces, rules: all as before")
    return 1 if lines else 0


def _load(arguments: argparse.Namespace, cache: Cache) -> int:
    with cache.locked():
        loaded = cluster.load(arguments.name, cache, _steps(cache))
    for reference in loaded.images.values():
        print(reference)
    return 0


def _status(arguments: argparse.Namespace, cache: Cache) -> int:
    found = state.read(arguments.name, cache)
    answers = Kubectl(str(cache.bin / "kubectl"), found.kubeconfig).answers()
    if arguments.json:
        print(state.as_json(found, answers=answers), end="")
        return 0 if answers else 1
    print(f"{found.name}: {found.origin}, kubeconfig {found.kubeconfig}")
    print(f"nodes: {' '.join((found.control_plane, *found.workers))}")
    for side, reference in found.images.items():
        print(f"{side}: {reference}")
    for inside, outside in found.node_ports.items():
        print(f"NodePort {inside}: 127.0.0.1:{outside}")
    print(f"shared folder: {found.shared_folder}\naudit log: {found.audit_log}")
    if not answers:
        print("its API server does not answer: `up` repairs it", file=sys.stderr)
    return 0 if answers else 1


def _env(arguments: argparse.Namespace, cache: Cache) -> int:
    for key, value in _environment(arguments, cache).items():
        print(f"export {key}={shlex.quote(value)}")
    return 0


def _shell(arguments: argparse.Namespace, cache: Cache) -> int:
    shell = os.environ.get("SHELL", "/bin/sh")
    os.execvpe(shell, [shell], {**os.environ, **_environment(arguments, cache)})


def _nodes(arguments: argparse.Namespace, cache: Cache) -> int:
    found = state.read(arguments.name, cache)
    if arguments.count == 0:
        kwok.remove_nodes(kubeconfig=found.kubeconfig)
        return 0
    memory = {model.product: model.memory_mib for model in gpus.MODELS}
    model = gpus.Model(
        arguments.product,
        arguments.memory or memory.get(arguments.product, gpus.H100.memory_mib),
        arguments.gpus,
    )
    kwok.add_nodes(arguments.count, model, prefix=arguments.prefix, kubeconfig=found.kubeconfig)
    return 0


def _environment(arguments: argparse.Namespace, cache: Cache) -> dict[str, str]:
    found = state.read(arguments.name, cache)
    path = f"{cache.bin}{os.pathsep}{os.environ.get('PATH', '')}"
    docker = {"DOCKER_HOST": found.docker_host} if found.docker_host else {}
    return {"KUBECONFIG": found.kubeconfig, "PATH": path, **docker}


def _steps(cache: Cache) -> Steps:
    return Steps(cache.folder("logs"))


if __name__ == "__main__":
    sys.exit(main())
