"""Is it noticed when a child is not as asked for, and only then?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel_operator.control.drift import content, digest, is_subset, owns_more

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("desired", "observed", "want"),
    [
        pytest.param({"a": 1}, {"a": 1, "b": 2}, True, id="the server added a default"),
        pytest.param({"a": 1}, {"a": 2}, False, id="a value was edited"),
        pytest.param({"a": 1}, {}, False, id="a key was removed"),
        pytest.param({"a": [{"n": 1}]}, {"a": [{"n": 1, "d": 0}]}, True, id="a default inside a list"),
        pytest.param({"a": [1]}, {"a": [1, 2]}, False, id="an element was added"),
        pytest.param({"a": [1, 2]}, {"a": [2, 1]}, False, id="elements changed places"),
        pytest.param({"a": True}, {"a": 1}, False, id="true is not 1"),
        pytest.param({"a": {}}, {"a": None}, False, id="an empty map is not nothing"),
        pytest.param(
            {"spec": {"selector": {"a": "b"}}},
            {"spec": {"selector": {"a": "b", "x": "y"}}},
            False,
            id="a label was added to a selector, which is replaced whole",
        ),
    ],
)
def test_is_subset(desired: Any, observed: Any, want: bool) -> None:
    assert is_subset(desired, observed) is want


@given(JSON)
def test_everything_is_a_subset_of_itself(value: Any) -> None:
    assert is_subset(value, value)


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=3), st.dictionaries(st.text(max_size=3), JSON, max_size=3))
def test_what_the_server_adds_is_no_drift_and_a_changed_value_is(desired: dict[str, Any], more: dict[str, Any]) -> None:
    assert is_subset(desired, more | desired)
    for key in desired:
        assert not is_subset(desired, desired | {key: ["changed", desired[key]]})


@pytest.mark.parametrize(
    ("fields", "desired", "want"),
    [
        pytest.param({"f:spec": {"f:a": {}}}, {"spec": {"a": 1}}, False, id="just what is asked for"),
        pytest.param({"f:spec": {"f:a": {}, "f:b": {}}}, {"spec": {"a": 1}}, True, id="a field is asked for no more"),
        pytest.param({"f:metadata": {"f:labels": {".": {}, "f:x": {}}}}, {"metadata": {"labels": {"x": "y"}}}, False,
                     id="the mark of a map itself counts for nothing"),
        pytest.param({"f:ports": {'k:{"port":80}': {".": {}, "f:name": {}}}}, {"ports": [{"port": 80}]}, True,
                     id="a field of an entry of a list is asked for no more"),
        pytest.param({"f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}}}},
                     {"ports": [{"port": 80}]}, False, id="an entry that has one of its keys by default"),
    ],
)  # fmt: skip
def test_owns_more(fields: dict[str, Any], desired: Any, want: bool) -> None:
    assert owns_more(fields, desired) is want


def test_content_leaves_out_status_and_bookkeeping_only() -> None:
    metadata = {"name": "x", "labels": {"a": "b"}, "resourceVersion": "7", "uid": "u", "generation": 3}
    got = content({"kind": "K", "metadata": metadata, "spec": {"a": 1}, "status": {"b": 2}})
    assert got == {"kind": "K", "metadata": {"name": "x", "labels": {"a": "b"}}, "spec": {"a": 1}}


def test_digest_knows_no_order_of_keys() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1}) != digest({"a": 1, "b": [2, 1]})
