"""Does each part import only what it may, and do decisions depend on nothing but their arguments?

The contracts in `importlinter.ini` read the source; the subprocesses import every module with the other
part's dependencies out of reach, which also finds what is imported by name at run time.
"""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import evenkeel_operator

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = Path(__file__).with_name("importlinter.ini")
DECIDE = ROOT / "operator" / "evenkeel_operator" / "decide"

MAY_DECIDE_WITH = (
    "evenkeel_operator.api",
    "evenkeel_operator.decide",
    "evenkeel_runtime.contract",
    "evenkeel_runtime.receipts",
    "evenkeel_runtime.engine.batching",
)
OUTSIDE_WORLD = {
    *("asyncio", "time", "threading", "subprocess", "socket", "os", "logging", "urllib", "http", "tempfile"),
}
READS_A_CLOCK = {"now", "utcnow", "today"}


# Not by the script's name: a copied environment's scripts start the interpreter, and so the sources, of the first one.
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def test_contracts_hold() -> None:
    got = subprocess.run(
        [sys.executable, "-c", LINT, "--config", CONTRACTS, "--no-cache", "--no-logo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert got.returncode == 0, got.stdout + got.stderr


def test_the_map_shows_every_floor() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(CONTRACTS)
    layers = contracts["importlinter:contract:floors"]["layers"].split("\n")
    want = [set(re.findall(r"\w+", layer)) for layer in layers if layer]
    next(floor for floor in want if "decide" in floor).update(
        f"decide/{path.parent.name}" for path in DECIDE.glob("*/__init__.py")
    )
    got: list[set[str]] = []
    found = str(evenkeel_operator.__doc__)
    for beside, parts in re.findall(r"^ {4}(\| | {2})?(\S+(?:, \S+)*) {2,}", found, re.M):
        if not beside:
            got.append(set())
        got[-1].update(part.rstrip("/") for part in parts.split(", "))
    assert got == want
    assert (len(want), "Six floors" in found) == (6, True)


IMPORT_ALL = """
import importlib, importlib.abc, importlib.machinery, pkgutil, sys

package, blocked, left_out = sys.argv[1], set(sys.argv[2].split(",")), sys.argv[3]

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise SystemExit(f"{importing} imports {name}")

sys.meta_path.insert(0, Blocked())
importing = package
root = importlib.import_module(package)
count = 0
for module in pkgutil.walk_packages(root.__path__, package + "."):
    importing = module.name
    if left_out and module.name.startswith(left_out):
        continue
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as missing:
        # A dependency that this environment lacks is no breach; a missing module of our own is a mistake.
        if missing.name.startswith("evenkeel"):
            raise
    count += 1
print(count)
"""


@pytest.mark.parametrize(
    ("package", "blocked", "left_out"),
    [
        pytest.param(
            "evenkeel_operator",
            # not orjson: kopf's JSON logger looks whether it is there, and does without
            "torch,numpy,uvloop,httptools,simdjson,obstore,sklearn,skops,keras,torchvision,timm,transformers,"
            "grpc,opentelemetry",
            "evenkeel_operator.simulate",
            id="the operator, without the runtime's dependencies",
        ),
        pytest.param(
            "evenkeel_operator.simulate",
            "torch,uvloop,httptools,simdjson,obstore,sklearn,skops,keras,torchvision,timm,transformers,grpc,"
            "opentelemetry,kopf,kubernetes,orjson,psycopg",
            "",
            id="the simulator, with numpy and nothing of a cluster",
        ),
        pytest.param(
            "evenkeel_runtime",
            "evenkeel_operator,kopf,kubernetes,pydantic,yaml",
            "",
            id="the runtime, without the operator and its dependencies",
        ),
    ],
)
def test_every_module_imports(package: str, blocked: str, left_out: str) -> None:
    got = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, package, blocked, left_out], capture_output=True, text=True, check=False
    )
    assert got.returncode == 0, got.stdout + got.stderr
    assert int(got.stdout) > 0


def faults(source: str) -> list[str]:
    """Return what in `source` a decision may not do, with its line."""
    return [f"line {line}: {fault}" for line, fault in _faults(ast.parse(source))]


def _faults(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for name in names:
                    yield from ((node.lineno, fault) for fault in _import_faults(name.name))
            case ast.ImportFrom(module=module, level=0, names=names):
                for name in names:
                    yield from ((node.lineno, fault) for fault in _import_faults(f"{module}.{name.name}"))
            case ast.Attribute(value=ast.Name(id="random"), attr=attr) if attr != "Random":
                yield (
                    node.lineno,
                    f"random.{attr} is shared by everybody; use random.Random(seed)",
                )
            case ast.Attribute(value=ast.Name(id="datetime" | "date") | ast.Attribute(), attr=attr):
                if attr in READS_A_CLOCK:
                    yield node.lineno, f"{ast.unparse(node)} reads a clock; take `now` as an argument"
            case ast.Call(func=ast.Name(id="open" | "print" | "input" as name)):
                yield node.lineno, f"{name}() talks to the world"
            case ast.AsyncFunctionDef() | ast.Await():
                yield node.lineno, "a decision waits for nothing"


def _import_faults(name: str) -> Iterator[str]:
    top = name.partition(".")[0]
    if top in OUTSIDE_WORLD:
        yield f"import of {top}"
    elif top == "random" and name not in ("random", "random.Random"):
        yield f"import of {name}; use random.Random(seed)"
    elif top in sys.stdlib_module_names or name.startswith(MAY_DECIDE_WITH):
        return
    elif not any(allowed.startswith(f"{name}.") or allowed == name for allowed in MAY_DECIDE_WITH):
        yield f"import of {name}"


@pytest.mark.parametrize("path", [pytest.param(p, id=p.name) for p in sorted(DECIDE.rglob("*.py"))])
def test_decision_depends_on_its_arguments_only(path: Path) -> None:
    assert faults(path.read_text()) == []


@pytest.mark.parametrize(
    ("source", "want"),
    [
        pytest.param("import asyncio", "import of asyncio", id="an event loop"),
        pytest.param("from time import monotonic", "import of time", id="a clock"),
        pytest.param("import kubernetes.client", "import of kubernetes.client", id="a client"),
        pytest.param("from evenkeel_operator import world", "evenkeel_operator.world", id="a floor above"),
        pytest.param("from evenkeel_operator.world.cluster import x", "world.cluster", id="a part of one above"),
        pytest.param("from evenkeel_runtime import serve", "evenkeel_runtime.serve", id="the runtime"),
        pytest.param("import random\nrandom.random()", "line 2: random.random", id="the shared generator"),
        pytest.param("from random import choice", "random.choice", id="a function of the shared generator"),
        pytest.param("datetime.now()", "datetime.now", id="the wall clock"),
        pytest.param("datetime.datetime.now(tz)", "datetime.datetime.now", id="the wall clock in full"),
        pytest.param("print('x')", "print", id="output"),
        pytest.param("async def plan(): ...", "waits", id="a coroutine"),
    ],
)
def test_the_check_finds(source: str, want: str) -> None:
    got = faults(source)
    assert len(got) == 1
    assert want in got[0]


def test_the_check_lets_pass_what_decisions_need() -> None:
    source = (
        "import random, math, datetime\n"
        "from evenkeel_operator.api.modeldeployment import Spec\n"
        "from evenkeel_operator.decide import names\n"
        "from evenkeel_runtime import contract\n"
        "from evenkeel_runtime.contract import Prepared\n"
        "random.Random(7).random()\n"
        "datetime.timedelta(seconds=1)\n"
    )
    assert faults(source) == []


@pytest.mark.parametrize("folder", ["operator", "runtime"])
def test_source_folder_is_no_package(folder: str) -> None:
    """`operator` is a module of the standard library: with an `__init__.py` here, `python -m pytest` in the
    root folder

    would import ours instead and die with "cannot import name 'eq' from 'operator'". `runtime` follows suit.
    """
    assert not (ROOT / folder / "__init__.py").exists()
