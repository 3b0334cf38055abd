"""Is a model's quality told as its labels say, with nothing where they say nothing?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from evenkeel_operator.feedback import ratings
from evenkeel_operator.feedback.ratings import MOST_CLASSES, Places, Ratings, exposition, rated
from evenkeel_operator.feedback.records import Errors, Label, Source, Told, Totals
from evenkeel_operator.feedback.sqlite import SqliteStore

SUBJECT, OTHER = b"s" * 16, b"o" * 16
NOW_S = 1_790_000_000


def source(classes: int = 2, revision: str = "digits-1", subject: bytes = SUBJECT) -> Source:
    return Source(subject, revision, 0, classes)


def totals(
    confusion: Mapping[tuple[int, int], int] | None = None, classes: int = 2, names: tuple[str, ...] = (),
    predictions: int = 0, errors: Errors | None = None,
) -> Totals:  # fmt: skip
    return Totals("digits-1", classes, names, predictions, confusion or {}, errors)


def told(found: Totals) -> dict[tuple[str, ...], float]:
    """Return the values by family and labels."""
    return {(r.family.removeprefix("evenkeel_quality"), *(v for _, v in r.labels)): r.value for r in rated(found)}


TWO = totals({(1, 1): 60, (1, 0): 20, (0, 1): 10, (0, 0): 110}, names=("ham", "spam"), predictions=1000)


def test_two_classes() -> None:
    got = told(TWO)
    assert got["_predictions",] == 1000
    assert got["_labels",] == 200
    assert got["", "Accuracy"] == pytest.approx(170 / 200)
    assert got["", "Precision", "Binary", "spam"] == pytest.approx(60 / 80)
    assert got["", "Recall", "Binary", "spam"] == pytest.approx(60 / 70)
    assert got["", "F1", "Binary", "spam"] == pytest.approx(120 / 150)
    assert got["", "F1", "Binary", "ham"] == pytest.approx(220 / 250)
    assert got["", "F1", "Macro"] == pytest.approx((120 / 150 + 220 / 250) / 2)
    assert got["", "F1", "Weighted"] == pytest.approx(0.35 * 120 / 150 + 0.65 * 220 / 250)


def test_coverage_is_of_all_and_of_the_classes_that_have_the_least_and_the_most() -> None:
    found = replace(TWO, predicted={0: (800, 120), 1: (200, 80)})
    got = {key: value for key, value in told(found).items() if key[0] in ("_coverage", "_skewed")}
    want = {("_coverage", "all"): 0.2, ("_coverage", "least"): 0.15, ("_coverage", "most"): 0.4, ("_skewed",): 1}
    assert got == pytest.approx(want)
    assert told(replace(TWO, predicted={0: (800, 120), 1: (200, 40)}))["_skewed",] == 0


def test_every_number_has_bounds_around_it_and_more_labels_bring_them_closer() -> None:
    more = told(totals({cell: 100 * count for cell, count in TWO.confusion.items()}, names=TWO.names))
    got = told(TWO)
    numbers = [labels for family, *labels in got if family == ""]
    assert len(numbers) == 1 + 3 * (2 + 2)
    for labels in numbers:
        lower, value, upper = (got[family, *labels] for family in ("_lower", "", "_upper"))
        assert 0.0 <= lower < value < upper <= 1.0
        assert lower < more["_lower", *labels] < value < more["_upper", *labels] < upper


@pytest.mark.parametrize(
    ("found", "want"),
    [
        pytest.param(totals(), set(), id="nothing of nothing"),
        pytest.param(totals(predictions=9), {"_predictions"}, id="predictions without a label: no zero"),
        pytest.param(
            totals({(0, 0): 3}, classes=MOST_CLASSES + 1), {"_labels", "", "_lower", "_upper"}, id="very many classes"
        ),
        pytest.param(totals(classes=0, errors=Errors(4, 2.0, 4.0)), {"_labels", ""}, id="numbers have no bounds here"),
    ],
)
def test_families(found: Totals, want: set[str]) -> None:
    assert {family for family, *_ in told(found)} == want


def test_numbers_have_errors() -> None:
    got = told(totals(classes=0, errors=Errors(4, 2.0, 4.0)))
    assert (got["", "MAE"], got["", "RMSE"]) == (0.5, 1.0)


def test_names_of_classes_are_quoted() -> None:
    awkward = totals({(1, 1): 1, (0, 0): 1}, names=('a"b', "c\\d\n"))
    text = exposition([(("team-a", "digits"), "digits-1", rated(awkward))]).decode()
    labels = [s.labels for family in text_string_to_metric_families(text) for s in family.samples]
    assert {found["class"] for found in labels if "class" in found} == {'a"b', "c\\d\n"}
    assert {(found["namespace"], found["name"], found["revision"]) for found in labels} == {
        ("team-a", "digits", "digits-1")
    }


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    """A store with a label and a prediction of two models."""
    found = SqliteStore(tmp_path / "labels.db")
    for subject in (SUBJECT, OTHER):
        whose = source(subject=subject)
        labels = [Label(whose, bytes([n]) * 8, 0, NOW_S * 1000, float(n % 2), 0, float(n % 2)) for n in range(4)]
        found.write(labels, [Told(whose, b"p" * 16, (), {(0, NOW_S // 900 * 900, 0): 9})], NOW_S)
    return found


async def looked(found: Ratings, texts: list[bytes], until: Callable[[], bool]) -> None:
    """Run until it is so."""
    task = asyncio.create_task(found.run())
    while not until():  # noqa: ASYNC110 - a thread writes what is waited for
        await asyncio.sleep(0.005)
    found.stop()
    await task


async def test_a_model_that_is_gone_has_no_series(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratings, "SINCE_S", 100 * 365 * 86400)
    there: dict[bytes, tuple[str, str]] = {SUBJECT: ("team-a", "digits"), OTHER: ("team-b", "faces")}
    texts: list[bytes] = []

    async def present() -> Places:
        return dict(there)

    def tell(text: bytes) -> None:
        texts.append(text)
        there.pop(OTHER, None)

    await looked(Ratings(store, present, tell, 0.01), texts, lambda: len(texts) > 2)
    assert b'name="faces"' in texts[0]
    assert b'name="faces"' not in texts[1]
    assert b'evenkeel_quality{namespace="team-a",name="digits",revision="digits-1"' in texts[1]
    store.close()


async def test_numbers_of_a_database_that_no_longer_answers_are_told_for_a_while(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ratings, "GOOD_FOR_S", 0.2)
    texts: list[bytes] = []
    told_of = Ratings(store, None, texts.append, 0.01)
    task = asyncio.create_task(told_of.run())
    while not texts:  # noqa: ASYNC110 - a thread writes what is waited for
        await asyncio.sleep(0.005)
    assert texts[-1]
    store.ask("ALTER TABLE series RENAME TO lost")
    while texts[-1]:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.005)
    told_of.stop()
    await task
    store.close()
