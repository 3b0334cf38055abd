"""Is the repository free of what belongs to one machine, and are its files small enough to read?"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 400
LONGER_FOR_A_REASON: frozenset[str] = frozenset()
SOURCE = {".py", ".go", ".sh", ".tpl", ".mk", ".toml"}
SOURCE_NAMES = {"Makefile", "Dockerfile"}

OF_ONE_MACHINE = {
    "a home folder": r"(?<![\w$}.~*/])/(root|home/\w+|Users/\w+)/",
    "a work folder": r"(?<![\w$}.~*/])/work/(main|shared)\b",
    "the host of a package registry": r"\b(pypi|npmjs|rubygems|crates)\.(org|com|io)\b|\bpythonhosted\.org\b"
    r"|\b(proxy|sum)\.golang\.org\b|\b(jfrog|artifactory|nexus)\.[a-z]+\b|\bpkg\.dev\b",
    "the address of a package index": r"(index-url|INDEX_URL|GOPROXY)\s*[=:]\s*\"?https?:",
}


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def findings(text: str) -> list[str]:
    """Return what in `text` belongs to one machine."""
    found = {what: re.search(pattern, text) for what, pattern in OF_ONE_MACHINE.items()}
    return [f"{what}: {match[0]}" for what, match in found.items() if match]


def is_source(name: str) -> bool:
    path = Path(name)
    return path.suffix in SOURCE or path.name in SOURCE_NAMES or path.suffix == ".Dockerfile"


def test_no_file_belongs_to_one_machine() -> None:
    got = {}
    for name in tracked():
        try:
            text = (ROOT / name).read_text()
        except UnicodeDecodeError:
            continue
        if found := findings(text):
            got[name] = found
    assert got == {}


def test_files_are_short_enough_to_read() -> None:
    lines = {name: len((ROOT / name).read_text().splitlines()) for name in tracked() if is_source(name)}
    got = {n: count for n, count in lines.items() if count > MAX_LINES and n not in LONGER_FOR_A_REASON}
    assert got == {}, f"more than {MAX_LINES} lines: split by question, or say in the list why not"


def test_list_of_long_files_holds_no_file_that_became_short() -> None:
    short = {n for n in LONGER_FOR_A_REASON if len((ROOT / n).read_text().splitlines()) <= MAX_LINES}
    assert short == set()


@pytest.mark.parametrize(
    ("parts", "want"),
    [
        pytest.param(("cd ", "/root", "/project"), "a home folder", id="the home of root"),
        pytest.param(("open('", "/home", "/ann/x')"), "a home folder", id="a home of somebody"),
        pytest.param(("see ", "/work", "/main/x"), "a work folder", id="a checkout"),
        pytest.param(("-i https://pypi", ".org/simple"), "the host of a package registry", id="an index"),
        pytest.param(("GOPROXY=", "https://goproxy.example"), "the address of a package index", id="a proxy"),
        pytest.param(("/v2", "/home", "/x/ and $HOME", "/root", "/"), None, id="paths below something else"),
        pytest.param(("golang.org/x/net docker.io/library/python",), None, id="names of modules and images"),
    ],
)
def test_the_check_finds(parts: tuple[str, ...], want: str | None) -> None:
    """The texts stand in pieces, else this file would be a finding itself."""
    got = findings("".join(parts))
    assert [what.partition(":")[0] for what in got] == ([want] if want else [])
