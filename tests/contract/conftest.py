"""Where does Helm come from, and what does it make of the chart?"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from evenkeel_operator.api.modeldeployment import Object
from tests.cluster import binaries

CHART = Path(__file__).resolve().parents[2] / "charts" / "evenkeel"
KUBERNETES = "1.34.4"

Helm = Callable[..., "subprocess.CompletedProcess[str]"]
Render = Callable[..., list[Object]]


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Run helm: the one on PATH, else that of the harness, built once into its cache."""
    program = shutil.which("helm") or binaries.tool("helm")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    """Return what the chart renders to with these values, in `--set` form; fail with Helm's message."""

    def objects(*values: str, release: str = "evenkeel", namespace: str = "evenkeel-system") -> list[Object]:
        sets = [f"--set={value}" for value in values]
        got = helm("template", release, str(CHART), "--namespace", namespace, f"--kube-version={KUBERNETES}", *sets)
        if got.returncode:
            raise RuntimeError(got.stderr)
        return [document for document in yaml.safe_load_all(got.stdout) if document]

    return objects
