"""Are the errors of numbers those of the labels, whatever was posted and corrected before?"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evenkeel_operator.feedback.records import MOST, Errors
from evenkeel_operator.feedback.store import Store
from evenkeel_operator.feedback.totals import totals
from tests.system.feedback.test_store import COHORT, NOW_S, NUMBERS, SUBJECT, label, told

Open = Callable[[], Store]

NUMBER = st.floats(-MOST, MOST, exclude_min=True, exclude_max=True) | st.floats(-10, 10)


def errors(store: Store, subject: bytes = SUBJECT) -> Errors | None:
    """Return the errors of the one cohort; those of all cohorts together have to be the same."""
    (series,) = store.quality(subject, 0)
    (everything,) = totals(store.ask, subject, 0)
    of_cohort = told(series, "errors").get(COHORT)
    found = None if of_cohort is None else Errors(**of_cohort)
    assert series.errors == everything.errors == found
    deviations = told(series, "deviations").get(COHORT, [])
    assert all(absolute <= count * 2.0**exponent for exponent, count, absolute, _ in deviations)
    if found is not None:
        count, absolute, squared = (math.fsum(row[i] for row in deviations) for i in (1, 2, 3))
        assert Errors(round(count), absolute, squared) == found
    return found


@pytest.mark.parametrize(
    ("typos", "rights", "want"),
    [
        pytest.param([9e15], [0.0], Errors(3, 3.0, 5.0), id="one, of which nothing is left"),
        pytest.param([2.0**48 + n for n in range(30)], [1.0] * 30, Errors(32, 33.0, 35.0), id="thirty of them"),
        pytest.param([1e-300], [4.0], Errors(3, 7.0, 21.0), id="a tiny one"),
        pytest.param([2.0], [0.0], Errors(3, 3.0, 5.0), id="one as large as the others"),
    ],
)
def test_a_typing_error_that_is_corrected_leaves_nothing(
    typos: list[float], rights: list[float], want: Errors, open_store: Open
) -> None:
    store = open_store()
    store.write([label(n, float(n), 0.0, source=NUMBERS) for n in (1, 2)], [], NOW_S)
    for numbers, corrects in ((typos, False), (rights, True)):
        store.write(
            [label(10 + n, x, 0.0, source=NUMBERS, corrects=corrects) for n, x in enumerate(numbers)], [], NOW_S
        )
    assert errors(store) == want


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(st.tuples(st.integers(0, 5), NUMBER), min_size=1, max_size=6), min_size=1, max_size=5))
def test_the_errors_are_those_of_the_last_labels(batches: list[list[tuple[int, float]]], open_store: Open) -> None:
    store = open_store()
    source = replace(NUMBERS, subject=uuid.uuid4().bytes)  # every example has a ModelDeployment of its own
    true: dict[int, float] = {}
    for batch in batches:
        store.write([label(n, x, 0.5, source=source, corrects=True) for n, x in batch], [], NOW_S)
        true.update(batch)
    got = errors(store, source.subject)
    assert got is not None
    assert got.count == len(true)
    assert got.absolute == pytest.approx(math.fsum(abs(x - 0.5) for x in true.values()), rel=1e-9)
    assert got.squared == pytest.approx(math.fsum((x - 0.5) ** 2 for x in true.values()), rel=1e-9)


def test_numbers_as_large_as_may_be_can_be_counted_and_corrected(open_store: Open) -> None:
    store = open_store()
    largest = math.nextafter(MOST, 0)
    store.write([label(n, largest, -largest, source=NUMBERS) for n in range(3)], [], NOW_S)
    got = errors(store)
    assert got is not None
    assert got.squared == pytest.approx(3 * (2 * largest) ** 2)
    store.write([label(n, 1.0, -largest, source=NUMBERS, corrects=True) for n in range(3)], [], NOW_S)
    got = errors(store)
    assert got is not None
    assert got.squared == pytest.approx(3 * largest**2)
