"""How does the harness talk to the cluster?"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.cluster.processes import CommandFailed, ask
from tests.cluster.state import HERE, Cache, read


@dataclass(frozen=True)
class Kubectl:
    program: str
    kubeconfig: str

    @classmethod
    def of(cls, kubeconfig: str | None = None) -> Kubectl:
        """For the given kubeconfig, else for the cluster `evenkeel`."""
        return cls(str(Cache.of_environment().bin / "kubectl"), kubeconfig or read().kubeconfig)

    def ask(self, *words: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        return ask([self.program, f"--kubeconfig={self.kubeconfig}", *words], stdin=stdin, timeout_s=timeout_s)

    def answers(self) -> bool:
        try:
            self.ask("get", "--raw=/readyz", timeout_s=10)
        except CommandFailed:
            return False
        return True

    def apply(self, *objects: Mapping[str, Any] | str) -> None:
        """Objects, or texts of YAML documents. Server-side, so that a large ConfigMap needs no annotation."""
        documents = [text if isinstance(text, str) else json.dumps(text) for text in objects]
        self.ask("apply", "--server-side", "--force-conflicts", "-f", "-", stdin="\n---\n".join(documents))

    def get(self, *words: str) -> Any:
        return json.loads(self.ask("get", *words, "--output=json"))

    def wait_for_rollout(self, resource: str, namespace: str, timeout_s: int = 120) -> None:
        self.ask(
            "rollout",
            "status",
            resource,
            f"--namespace={namespace}",
            f"--timeout={timeout_s}s",
            timeout_s=timeout_s + 5,
        )


def manifest(name: str, values: Mapping[str, str]) -> str:
    """A file of manifests/ with its $(NAME) filled in."""
    text = (HERE / "manifests" / name).read_text()
    for key, value in values.items():
        text = text.replace(f"$({key})", value)
    return text


def columns(table: str) -> dict[str, str]:
    """The only row of what `kubectl get` prints, by its heads; a cell may be empty."""
    heads, values = table.splitlines()
    starts = [found.start() for found in re.finditer(r"\S+", heads)]
    cells = [values[start:stop].strip() for start, stop in itertools.pairwise([*starts, None])]
    return dict(zip(heads.split(), cells, strict=True))


def wait_until(what: str, holds: Callable[[], bool], timeout_s: float = 60, every_s: float = 0.5) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise CommandFailed(["wait"], 1, f"{what}: not within {timeout_s} s")
        time.sleep(every_s)
