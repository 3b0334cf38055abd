"""Is every hostile file refused by name, before anything in it runs?"""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from evenkeel_runtime.config import Model
from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.models import export
from evenkeel_runtime.models.inspect import recognise
from tests.unit.runtime.hostile import HOSTILE, good
from tests.unit.runtime.inspected import inspect

ANYTHING = Model("Auto", "", False)


def open_as_the_runtime_does(data: bytes) -> None:
    """Inspect as `prepare` does, then load as the server does."""
    found, _ = inspect(io.BytesIO(data), len(data), ANYTHING)
    _, archive = recognise(io.BytesIO(data), len(data))
    found.load(archive, memoryview(bytearray(data)), "cpu", frozenset())


@pytest.fixture(scope="module")
def harmless() -> bytes:
    return good()


def test_the_file_that_the_corpus_is_made_of_is_accepted(harmless: bytes) -> None:
    found, signature = inspect(io.BytesIO(harmless), len(harmless), ANYTHING)
    assert found.name == "TorchExport"
    assert [tensor.name for tensor in signature.inputs] == ["image"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_and_nothing_runs(name: str, harmless: bytes, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    data = HOSTILE[name].build(harmless, canary)
    with pytest.raises(ModelError) as refusal:
        open_as_the_runtime_does(data)
    assert refusal.value.reason == Reason.FORMAT_REFUSED
    for word in HOSTILE[name].words:
        assert word in refusal.value.message
    assert not canary.exists()


def test_a_shape_expression_is_data(harmless: bytes, tmp_path: Path) -> None:
    """torch evaluates these strings; here a dimension whose expression is not a plain symbol is simply free."""
    from tests.unit.runtime.models import member, rewritten

    canary = tmp_path / "canary"

    def edit(members: dict[str, bytes]) -> None:
        name = member(members, "models/model.json")
        members[name] = members[name].replace(
            b"Symbol('s", f"__import__('os').system('touch {canary}')+Symbol('s".encode()
        )

    data = rewritten(harmless, edit)
    found, signature = inspect(io.BytesIO(data), len(data), ANYTHING)
    _, archive = recognise(io.BytesIO(data), len(data))
    found.load(archive, memoryview(bytearray(data)), "cpu", frozenset())
    assert signature.inputs[0].shape == (-1, 12)
    assert signature.batch is None
    assert not canary.exists()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        pytest.param(
            Model("TorchScript", "", True), ("TorchExport", "TorchScript"), id="another format than the spec's"
        ),
    ],
)
def test_the_spec_decides_what_is_wanted(harmless: bytes, model: Model, words: tuple[str, ...]) -> None:
    with pytest.raises(ModelError) as refusal:
        inspect(io.BytesIO(harmless), len(harmless), model)
    for word in words:
        assert word in refusal.value.message


def test_program_that_is_no_json_is_refused() -> None:
    from evenkeel_runtime.models.program import parse

    for text in (b"", b"[]", b"{", b"[" * 100_000, b'{"schema_version": 7}'):
        with pytest.raises(ModelError):
            parse(text, b'{"config": {}}', b'{"config": {}}')


def test_format_module_is_named_in_the_registry() -> None:
    from evenkeel_runtime.models.formats import FORMATS

    assert FORMATS[export.NAME] is export.FORMAT
