"""Is what the feedback service tells of its counts read as it meant them, and is anything else refused?"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel_operator.api.modeldeployment import AccuracyObjective, Spec
from evenkeel_operator.decide.quality import cohorts
from evenkeel_operator.decide.quality.cohorts import COHORT, Cohort, Pairs
from evenkeel_operator.decide.quality.counted import MOST_CLASSES, NOTHING, Counted, Unjudgeable, objectives, read
from evenkeel_operator.decide.quality.evidence import Objective
from evenkeel_operator.decide.quality.measures import Average, Metric, cell, classification
from evenkeel_operator.feedback.quality import quality
from evenkeel_operator.feedback.records import COHORT_S, Errors, Series, Source
from evenkeel_runtime.receipts import Assignment
from tests.builders import modeldeployment

SUBJECT = bytes(range(16))
AT_S = 1767268800
AT = datetime.fromtimestamp(AT_S, UTC)
STABLE, CANARY = "digits-old", "digits-new"


def series(
    revision: str = STABLE,
    classes: int = 3,
    *,
    assignment: Assignment = Assignment.UNASSIGNED,
    names: tuple[str, ...] = (),
    predictions: Mapping[tuple[int, int], int] | None = None,
    confusion: Mapping[tuple[int, int, int], int] | None = None,
    errors: Errors | None = None,
    deviations: Mapping[int, list[tuple[int, int, float, float]]] | None = None,
    pairs: Mapping[tuple[int, str, int, int, int], int] | None = None,
    unlabelled_pairs: Mapping[tuple[int, str, int, int], int] | None = None,
) -> Series:
    cohorts: dict[int, dict[str, Any]] = {}

    def member(name: str, start: int, *row: object) -> None:
        cohorts.setdefault(start, {"start": start}).setdefault(name, []).append(row)

    by_class: dict[int, list[int]] = {}
    for (start, class_), count in (predictions or {}).items():
        member("predictions", start, class_, count)
        by_class.setdefault(class_, [0, 0, 0])[0] += count
    for (start, predicted, actual), count in (confusion or {}).items():
        member("confusion", start, predicted, actual, count)
        of_class = by_class.setdefault(predicted, [0, 0, 0])
        of_class[1] += count
        of_class[2] += count if predicted == actual else 0
    for start, rows in (deviations or {}).items():
        for row in rows:
            member("deviations", start, *row)
    for (start, *pair), count in (pairs or {}).items():
        member("pairs", start, *pair, count)
    for (start, *both), count in (unlabelled_pairs or {}).items():
        member("unlabelledPairs", start, *both, count)
    return Series(
        Source(SUBJECT, revision, assignment, classes),
        names,
        {class_: (n, labels, right) for class_, (n, labels, right) in by_class.items()},
        errors,
        {start: json.dumps(cohorts[start]) for start in sorted(cohorts)},
    )


def body(*told: Series) -> bytes:
    """Return the answer that the feedback service gives."""
    return quality("team-a", "digits", SUBJECT, 0, told).encode()


def test_the_cohorts_of_service_and_operator_are_the_same() -> None:
    assert COHORT.total_seconds() == COHORT_S


def test_what_the_service_tells_is_read_as_it_counts() -> None:
    got = read(
        body(
            series(
                predictions={(AT_S, 0): 5, (AT_S, 2): 7, (AT_S + COHORT_S, 1): 1},
                confusion={(AT_S, 0, 0): 3, (AT_S, 0, 2): 1, (AT_S, 2, 1): 2},
                pairs={(AT_S, CANARY, 0, 2, 2): 4, (AT_S, CANARY, 1, 1, 1): 6, (AT_S, "digits-older", 1, 0, 1): 9},
                unlabelled_pairs={(AT_S, CANARY, 0, 2): 11},
            ),
            series(CANARY, confusion={(AT_S + COHORT_S, 1, 0): 8}),
        )
    )
    labels = [0] * 9
    labels[cell(0, 0, 3)], labels[cell(0, 2, 3)], labels[cell(2, 1, 3)] = 3, 1, 2
    assert got.cohorts(STABLE) == (
        Cohort(STABLE, AT, (5, 0, 7), tuple(labels)),
        Cohort(STABLE, AT + COHORT, (0, 1, 0), (0,) * 9),
    )
    (row,) = got.cohorts(CANARY)
    assert (row.revision, row.start, row.predictions) == (CANARY, AT + COHORT, (0, 0, 0))
    assert row.labels[cell(1, 0, 3)] == sum(row.labels) == 8
    assert len(got.cohorts(STABLE, CANARY)) == 3
    both = {(cell(0, 2, 3), cell(2, 2, 3)): 4, (cell(1, 1, 3), cell(1, 1, 3)): 6}
    assert got.pairs(STABLE, CANARY) == (Pairs(AT, both, {(0, 2): 11}),)
    assert got.pairs(CANARY, STABLE) == ()


def test_of_what_was_never_counted_there_is_nothing() -> None:
    for known in (NOTHING, read(body())):
        assert (known.cohorts("digits-none", STABLE), known.pairs("digits-none", CANARY)) == ((), ())


def test_names_make_classes() -> None:
    got = read(body(series(classes=2, names=("cat", "dog"), confusion={(AT_S, 1, 0): 3})))
    (one,) = got.revisions.values()
    assert (one.classes, one.names) == (2, ("cat", "dog"))
    assert one.cohorts[0].labels == (0, 0, 3, 0)


def test_one_that_was_the_canary_first_and_stable_later_is_one_revision() -> None:
    as_canary = series(
        assignment=Assignment.CANARY,
        predictions={(AT_S, 0): 1},
        confusion={(AT_S, 0, 0): 1},
        pairs={(AT_S, CANARY, 0, 0, 0): 1},
    )
    as_stable = series(
        names=("a", "b", "c"),
        predictions={(AT_S, 0): 2, (AT_S + COHORT_S, 0): 4},
        confusion={(AT_S, 0, 0): 2, (AT_S + COHORT_S, 1, 0): 4},
        pairs={(AT_S, CANARY, 0, 0, 0): 2, (AT_S, "digits-older", 0, 0, 0): 3},
    )
    for told in ((as_canary, as_stable), (as_stable, as_canary)):
        got = read(body(*told))
        assert got.revisions[STABLE].names == ("a", "b", "c")
        first, second = cohorts.cohorts(got.cohorts(STABLE), STABLE)
        assert (first.predictions, first.labels[0]) == ((3, 0, 0), 3)
        assert (second.predictions, sum(second.labels)) == ((4, 0, 0), 4)
        (both,) = cohorts.pairs(got.pairs(STABLE, CANARY))
        assert both.labels == {(0, 0): 3}
        assert len(got.pairs(STABLE, "digits-older")) == 1


def test_rows_say_what_their_requests_had_drawn() -> None:
    told = [series(assignment=drawn, predictions={(AT_S, 0): 1 + drawn}) for drawn in Assignment]
    got = {row.assignment: row.predictions[0] for row in read(body(*told)).cohorts(STABLE)}
    assert got == {Assignment.STABLE: 1, Assignment.CANARY: 2, Assignment.UNASSIGNED: 3}


def test_a_service_from_before_there_was_an_assignment_says_stable_of_everything() -> None:
    told = json.loads(body(series(predictions={(AT_S, 0): 1})))
    del told["revisions"][0]["assignment"]
    told["revisions"][0]["variant"] = "Stable"
    (row,) = read(json.dumps(told).encode()).cohorts(STABLE)
    assert row.assignment is Assignment.STABLE


counts = st.integers(0, 10**6)
classes_ = st.integers(0, 4)
quarters = st.integers(0, 5).map(lambda n: AT_S + n * COHORT_S)


@given(
    st.dictionaries(st.tuples(quarters, classes_), counts, max_size=12),
    st.dictionaries(st.tuples(quarters, classes_, classes_), counts, max_size=12),
    st.dictionaries(
        st.tuples(quarters, st.sampled_from((CANARY, "x")), classes_, classes_, classes_), counts, max_size=12
    ),
)
def test_no_count_is_lost_and_none_is_made_up(
    predictions: dict[tuple[int, int], int],
    confusion: dict[tuple[int, int, int], int],
    pairs: dict[tuple[int, str, int, int, int], int],
) -> None:
    got = read(body(series(classes=5, predictions=predictions, confusion=confusion, pairs=pairs)))
    rows = {int(row.start.timestamp()): row for row in got.cohorts(STABLE)}
    assert sum(sum(row.predictions) + sum(row.labels) for row in rows.values()) == sum(
        (*predictions.values(), *confusion.values())
    )
    for (start, class_), count in predictions.items():
        assert rows[start].predictions[class_] == count
    for (start, predicted, actual), count in confusion.items():
        assert rows[start].labels[cell(predicted, actual, 5)] == count
    both = {
        (revision, int(row.start.timestamp())): row for revision in (CANARY, "x") for row in got.pairs(STABLE, revision)
    }
    assert sum(sum(row.labels.values()) for row in both.values()) == sum(pairs.values())
    for (start, revision, ours, theirs, actual), count in pairs.items():
        assert both[revision, start].labels[cell(ours, actual, 5), cell(theirs, actual, 5)] == count


# what is no answer


GOOD: dict[str, Any] = json.loads(
    body(
        series(
            predictions={(AT_S, 0): 5},
            confusion={(AT_S, 0, 1): 3},
            pairs={(AT_S, CANARY, 0, 1, 2): 4},
        )
    )
)


def changed(value: Any, *path: str | int) -> bytes:
    """Return a good answer with one of its parts changed."""
    answer = copy.deepcopy(GOOD)
    place = answer["revisions"][0]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(answer).encode()


ROW = ("cohorts", 0)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="a page"),
        pytest.param(b"\xff\xfe", id="bytes that are no text"),
        pytest.param(b"[" * 50_000, id="lists in lists without end"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="no revisions"),
        pytest.param(b'{"revisions": 7}', id="a number for revisions"),
        pytest.param(b'{"revisions": [7]}', id="a number for a revision"),
        pytest.param(changed(-1, "classes"), id="fewer classes than none"),
        pytest.param(changed(2.5, "classes"), id="half a class"),
        pytest.param(changed(True, "classes"), id="a truth for classes"),
        pytest.param(changed("many", "classes"), id="a word for classes"),
        pytest.param(changed(None, "cohorts"), id="no cohorts"),
        pytest.param(changed("Both", "assignment"), id="an assignment that there is not"),
        pytest.param(changed(2, "assignment"), id="a number for an assignment"),
        pytest.param(changed([7], "cohorts"), id="a number for a cohort"),
        pytest.param(changed(AT_S + 1, *ROW, "start"), id="no start of a quarter of an hour"),
        pytest.param(changed(-COHORT_S, *ROW, "start"), id="before all times"),
        pytest.param(changed(COHORT_S * 10**12, *ROW, "start"), id="later than any date"),
        pytest.param(changed(253402299900, *ROW, "start"), id="the last quarter of an hour of the last year"),
        pytest.param(changed("now", *ROW, "start"), id="a word for a time"),
        pytest.param(changed([[3, 1]], *ROW, "predictions"), id="a prediction of a class that there is not"),
        pytest.param(changed([[-1, 1]], *ROW, "predictions"), id="a prediction of a class before the first"),
        pytest.param(changed([[0, -1]], *ROW, "predictions"), id="fewer predictions than none"),
        pytest.param(changed([[0, 2**53]], *ROW, "predictions"), id="more than can be counted"),
        pytest.param(changed([[0]], *ROW, "predictions"), id="a prediction without a count"),
        pytest.param(changed([[3, 0, 1]], *ROW, "confusion"), id="a label on a class that there is not"),
        pytest.param(changed([[0, 3, 1]], *ROW, "confusion"), id="a label that says a class that there is not"),
        pytest.param(changed([[0, 0, 0.5]], *ROW, "confusion"), id="half a label"),
        pytest.param(changed([[0, 0, float("nan")]], *ROW, "confusion"), id="NaN labels"),
        pytest.param(changed([[CANARY, 0, 3, 0, 1]], *ROW, "pairs"), id="a pair with a class that there is not"),
        pytest.param(changed([[CANARY, 0, 0, 0, -1]], *ROW, "pairs"), id="fewer pairs than none"),
        pytest.param(changed([[CANARY, 0, 0, 1]], *ROW, "pairs"), id="a pair too short"),
        pytest.param(
            body(series(classes=3), series(classes=4, assignment=Assignment.CANARY)), id="two numbers of classes"
        ),
    ],
)
def test_anything_else_is_refused_as_a_whole(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(answer)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return where the parts of a JSON value are."""
    found = [path] if path else []
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        found += places(part, (*path, key))
    return found


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=4), part, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(places(GOOD["revisions"][0])), anything)
def test_whatever_stands_in_one_of_its_places_it_is_read_or_refused(path: tuple[str | int, ...], value: Any) -> None:
    try:
        got = read(changed(value, *path))
    except ValueError:
        return
    assert isinstance(got, Counted)
    for row in (row for one in got.revisions.values() for row in one.cohorts):
        assert len(row.labels) == len(row.predictions) ** 2
        assert min(*row.predictions, *row.labels) >= 0


# objectives


def wanted(*rows: Mapping[str, Any]) -> tuple[AccuracyObjective, ...]:
    spec = modeldeployment(objectives={"accuracy": [{"metric": "Accuracy", "floor": 0.9, **row} for row in rows]})
    return Spec.model_validate(spec["spec"]).objectives.accuracy


def test_an_objective_is_over_the_classes_that_both_answer() -> None:
    known = read(body(series(), series(CANARY)))
    got = objectives(
        wanted({"margin": 0.02, "horizon": "1h"}, {"metric": "F1", "average": "Weighted"}), known, STABLE, CANARY
    )
    assert got == (
        Objective(classification(Metric.ACCURACY, 3), 0.9, 0.02, timedelta(hours=1)),
        Objective(classification(Metric.F1, 3, Average.WEIGHTED), 0.9, 0.01, timedelta(hours=24)),
    )


@pytest.mark.parametrize(
    ("names", "word", "want"),
    [
        pytest.param(("cat", "dog", "eel"), "eel", 2, id="by its name"),
        pytest.param(("1", "2", "3"), "2", 1, id="by a name that looks like a number"),
        pytest.param((), "2", 2, id="by its number where classes have no names"),
        pytest.param((), None, 1, id="1 where nobody says"),
        pytest.param(("cat", "dog", "eel"), None, 1, id="1 where nobody says, of classes with names too"),
    ],
)
def test_the_positive_class_is_found(names: tuple[str, ...], word: str | None, want: int) -> None:
    row = {"metric": "Recall", "average": "Binary"} | ({"positiveClass": word} if word else {})
    (got,) = objectives(wanted(row), read(body(series(names=names))), STABLE)
    assert got.measure == classification(Metric.RECALL, 3, Average.BINARY, want)


def test_while_nothing_is_known_there_are_objectives_all_the_same() -> None:
    row = {"metric": "Precision", "average": "Binary", "positiveClass": "eel"}
    for known in (NOTHING, read(body(series("digits-older", classes=9)))):
        (got,) = objectives(wanted(row), known, STABLE, CANARY)
        assert got.measure == classification(Metric.PRECISION, 2, Average.BINARY, 1)


BINARY = {"metric": "Recall", "average": "Binary"}


@pytest.mark.parametrize(
    ("told", "row", "words"),
    [
        pytest.param(
            (series(), series(CANARY, classes=4)),
            {},
            (STABLE, CANARY, "different classes", "leave out spec.objectives.accuracy", "another name"),
            id="another number of classes",
        ),
        pytest.param(
            (series(names=("a", "b", "c")), series(CANARY, names=("a", "c", "b"))),
            {},
            ("different classes",),
            id="the same names in another order",
        ),
        pytest.param((series(classes=0),), {}, (STABLE, "answers numbers", "MAE or RMSE"), id="numbers"),
        pytest.param((series(), series(CANARY, classes=0)), {}, ("different classes",), id="numbers beside classes"),
        pytest.param(
            (series(classes=MOST_CLASSES + 1),),
            {"metric": "F1"},
            (f"{MOST_CLASSES + 1} classes", f"2 to {MOST_CLASSES}", "ask for metric Accuracy"),
            id="too many classes for an average over them",
        ),
        pytest.param((series(classes=1),), {}, ("1 classes",), id="a single class"),
        pytest.param(
            (series(names=("cat", "dog", "eel")),),
            BINARY | {"positiveClass": "cow"},
            ("positiveClass of Recall is cow", "cat, dog, eel"),
            id="a positive class that it does not answer",
        ),
        pytest.param((series(),), BINARY | {"positiveClass": "3"}, ("0 to 2",), id="a number that is too high"),
        pytest.param((series(),), BINARY | {"positiveClass": "-1"}, ("0 to 2",), id="a number below 0"),
        pytest.param((series(),), BINARY | {"positiveClass": "cat"}, ("0 to 2",), id="a name where there are none"),
        pytest.param((series(),), BINARY | {"positiveClass": "9" * 200}, ("0 to 2",), id="a number without end"),
    ],
)
def test_what_cannot_be_judged_is_told_with_the_way_out(
    told: tuple[Series, ...], row: Mapping[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(Unjudgeable) as caught:
        objectives(wanted(row), read(body(*told)), STABLE, CANARY)
    for word in words:
        assert word in caught.value.message


def test_names_without_end_are_told_in_part() -> None:
    many = tuple(f"class-{n}" for n in range(MOST_CLASSES))
    with pytest.raises(Unjudgeable) as caught:
        objectives(
            wanted(BINARY | {"positiveClass": "x"}), read(body(series(classes=MOST_CLASSES, names=many))), STABLE
        )
    assert len(caught.value.message) < 300
