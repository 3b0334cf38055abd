"""Does a model of every format answer by every protocol what its framework answers? The README's table is made here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.system.runtime.replica import Answer, Replica
from tests.system.runtime.saved import FORMATS
from tests.system.runtime.ways import WAYS, Named, instances_of, v1_of

README = Path(__file__).resolve().parents[3] / "README.md"
BEGIN, END = "<!-- written by `make formats-table` -->\n", "<!-- end of what it writes -->\n"
APART = {"float32": 1e-5, "float64": 1e-12, "int64": 0.0, "object": 0.0}
"""How far a number may be from the framework's own, by its type; strings are equal."""


@dataclass(frozen=True)
class Heard:
    """What the framework answers, what the served model does by each protocol, its metadata, and what it says to as
    many instances of V1 as there are rows."""

    want: Named
    got: dict[str, Named]
    metadata: Any
    instances: Answer


class Asked:
    """What was heard of each format: its model is saved, served and asked once, when it is first wanted."""

    def __init__(self, folder: Path, shared: Path) -> None:
        self._folder, self._shared = folder, shared
        self._heard: dict[str, Heard] = {}

    def of(self, name: str) -> Heard:
        if name not in self._heard:
            folder = self._folder / name
            folder.mkdir(exist_ok=True)
            saved = FORMATS[name].save(folder, self._shared)
            replica = Replica(saved.path, folder / "termination", dict(saved.told), speaks_grpc=True)
            try:
                replica.await_ready()
                got = {way: ask(replica, saved.given) for way, ask in WAYS.items()}
                metadata = replica.ask("GET", "/v2/models/m").json
                self._heard[name] = Heard(saved.want, got, metadata, v1_of(replica, instances_of(saved.given)))
            finally:
                replica.kill()
        return self._heard[name]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Asked:
    return Asked(tmp_path_factory.mktemp("formats"), shared)


def compare(want: Named, got: Named) -> None:
    assert {name: (values.dtype.name, values.shape) for name, values in got.items()} == {
        name: (values.dtype.name, values.shape) for name, values in want.items()
    }
    for name, values in want.items():
        if values.dtype == object:
            assert got[name].tolist() == values.tolist()
            continue
        np.testing.assert_allclose(got[name], values, rtol=0.0, atol=APART[values.dtype.name], err_msg=name)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FORMATS)
def test_answers_are_the_frameworks(asked: Asked, name: str, way: str) -> None:
    compare(asked.of(name).want, asked.of(name).got[way])


@pytest.mark.parametrize("name", FORMATS)
def test_metadata_name_the_format(asked: Asked, name: str) -> None:
    metadata = asked.of(name).metadata
    assert metadata["platform"] == FORMATS[name].platform
    assert FORMATS[name].parameter in metadata["parameters"]
    assert [output["name"] for output in metadata["outputs"]] == list(asked.of(name).want)


def test_a_file_that_says_nothing_of_rows_takes_one_instance(asked: Asked) -> None:
    """TorchScript holds neither shapes nor types: whether instances could be stacked is not known."""
    got = {name: asked.of(name).instances.status for name in FORMATS}
    assert got == {name: 400 if name == "TorchScript" else 200 for name in FORMATS}
    assert "instances: 5 rows are more than the one this model takes" in asked.of("TorchScript").instances.json["error"]


def cell(want: Named, got: Named) -> str:
    try:
        compare(want, got)
    except AssertionError:
        return "differs"
    bounds = [APART[values.dtype.name] for values in want.values()]
    return ", ".join(f"±{bound:g}".replace("e-0", "e-") if bound else "equal" for bound in bounds)


def table(asked: Asked) -> str:
    lines = [f"| `spec.model.format` | of | {' | '.join(WAYS)} |", "|---" * (2 + len(WAYS)) + "|"]
    for name, found in FORMATS.items():
        heard = asked.of(name)
        cells = [cell(heard.want, heard.got[way]) for way in WAYS]
        if heard.instances.status != 200:
            cells[-1] += "; one instance a request"
        lines.append(f"| `{name}` | {found.described} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def test_the_readme_has_the_table(asked: Asked) -> None:
    text = README.read_text()
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    want = before + BEGIN + table(asked) + END + after
    if "EVENKEEL_WRITE" in os.environ:
        README.write_text(want)
    assert README.read_text() == want, "the README has another table; `make formats-table` writes this one"
