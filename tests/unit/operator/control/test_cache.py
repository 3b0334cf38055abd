"""Does the cache end up with the truth, in whatever order it is told?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.control.cache import Cache, Key, own, trimmed
from evenkeel_operator.decide.snapshot import Warning
from evenkeel_operator.world import kinds

KEY = Key("team-a", "digits")


def child(version: int, *, uid: str = "u1", name: str = "c", kind: str = "ReplicaSet", **metadata: Any) -> Object:
    labels = {"evenkeel.dev/modeldeployment": "digits", "app.kubernetes.io/managed-by": "evenkeel"}
    own = {"name": name, "namespace": "team-a", "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"kind": kind, "metadata": own | metadata, "spec": {"v": version}}


def versions(cache: Cache) -> list[int]:
    return [c["spec"]["v"] for c in cache.children(KEY)]


def test_an_older_state_is_no_news() -> None:
    cache = Cache()
    assert cache.put(kinds.REPLICA_SET, child(5))
    assert not cache.put(kinds.REPLICA_SET, child(5))
    assert not cache.put(kinds.REPLICA_SET, child(4))
    assert versions(cache) == [5]


def test_the_answer_to_a_write_does_not_bring_a_deleted_object_back() -> None:
    cache = Cache()
    cache.put(kinds.REPLICA_SET, child(5))
    cache.drop(kinds.REPLICA_SET, child(7))
    assert not cache.put(kinds.REPLICA_SET, child(6))
    assert versions(cache) == []


def test_an_object_that_left_the_selectors_may_come_back() -> None:
    cache = Cache()
    cache.put(kinds.REPLICA_SET, child(5))
    cache.drop(kinds.REPLICA_SET, child(7))
    assert cache.put(kinds.REPLICA_SET, child(8))
    assert not cache.drop(kinds.REPLICA_SET, child(7)), "told late"
    assert versions(cache) == [8]


def test_the_end_of_an_object_does_not_touch_its_successor() -> None:
    cache = Cache()
    cache.put(kinds.REPLICA_SET, child(5, uid="old"))
    cache.put(kinds.REPLICA_SET, child(9, uid="new"))
    cache.drop(kinds.REPLICA_SET, child(8, uid="old"))
    assert versions(cache) == [9]


@given(st.permutations([("put", 1, "a"), ("put", 3, "a"), ("drop", 4, "a"), ("put", 6, "b"), ("put", 7, "b")]))
def test_every_order_of_telling_ends_in_the_same_state(story: list[tuple[str, int, str]]) -> None:
    cache = Cache()
    for what, version, uid in story:
        getattr(cache, what)(kinds.REPLICA_SET, child(version, uid=uid))
    assert versions(cache) == [7]


def test_prune_drops_what_a_list_lacks_and_keeps_what_is_newer_than_the_list() -> None:
    cache = Cache()
    cache.put(kinds.REPLICA_SET, child(5, uid="u1", name="listed"))
    cache.put(kinds.REPLICA_SET, child(6, uid="u2", name="deleted in a gap"))
    cache.put(kinds.REPLICA_SET, child(9, uid="u3", name="made after the list"))
    got = cache.prune(kinds.REPLICA_SET, None, {"u1"}, version=8)
    assert [o["metadata"]["name"] for o in got] == ["deleted in a gap"]
    assert sorted(versions(cache)) == [5, 9]


def test_prune_of_one_namespace_leaves_the_others() -> None:
    cache = Cache()
    cache.put(kinds.REPLICA_SET, child(5))
    assert cache.prune(kinds.REPLICA_SET, "team-b", set(), version=8) == []


def test_a_child_whose_label_is_taken_off_is_nobodys() -> None:
    cache = Cache()
    cache.put(kinds.REPLICA_SET, child(5))
    cache.put(kinds.REPLICA_SET, child(6, labels={}))
    assert versions(cache) == []
    assert cache.get(kinds.REPLICA_SET, "team-a", "c") is not None
    cache.put(kinds.REPLICA_SET, child(7))
    assert versions(cache) == [7]


def test_children_of_a_former_deployment_of_the_same_name_are_not_ours() -> None:
    def owned(uid: str, by: str | None, kind: str = "ReplicaSet") -> Object:
        owners = [{"uid": by, "controller": True}] if by else []
        return child(1, uid=uid, kind=kind, ownerReferences=owners)

    mine, orphan, former = owned("rs1", "new"), owned("rs2", None), owned("rs3", "old")
    my_pod, former_pod = owned("p1", "rs1", "Pod"), owned("p3", "rs3", "Pod")
    got = own({"metadata": {"uid": "new"}}, [mine, orphan, former, my_pod, former_pod])
    assert [o["metadata"]["uid"] for o in got] == ["rs1", "rs2", "p1"]


def test_warnings_are_those_of_jobs_that_exist_the_latest_of_each() -> None:
    def event(version: int, uid: str, message: str) -> Object:
        metadata = {"name": f"e{version}", "namespace": "team-a", "uid": f"e{version}", "resourceVersion": str(version)}
        about = {"kind": "Job", "name": "c", "uid": uid}
        return {"metadata": metadata, "involvedObject": about, "reason": "FailedCreate", "message": message}

    cache = Cache()
    cache.put(kinds.EVENT, event(8, "u1", "newest"))
    cache.put(kinds.EVENT, event(3, "u1", "older"))
    cache.put(kinds.EVENT, event(9, "u0", "of an earlier namesake"))
    assert list(cache.warnings(KEY)) == []
    cache.put(kinds.JOB, child(5, kind="Job"))
    assert list(cache.warnings(KEY)) == [Warning("Job", "c", "FailedCreate", "newest")]
    assert cache.owner_of_event(event(8, "u1", "")) == KEY


@pytest.mark.parametrize(
    ("kind", "metadata", "want"),
    [
        pytest.param(kinds.REPLICA_SET, {"managedFields": [{"manager": "evenkeel", "operation": "Apply"}]}, None,
                     id="a pinned child loses its managed fields"),
        pytest.param(kinds.SERVICE, {"managedFields": [{"manager": "evenkeel", "operation": "Apply"},
                                                       {"manager": "kubectl", "operation": "Update"}]},
                     [{"manager": "evenkeel", "operation": "Apply"}], id="a Service keeps ours"),
    ],
)  # fmt: skip
def test_trimmed_keeps_what_is_read(kind: kinds.Kind, metadata: Object, want: Any) -> None:
    got = trimmed(kind, child(1, **metadata))
    assert got["metadata"].get("managedFields") == want
    assert got["spec"] == {"v": 1}


def test_trimmed_drops_the_copy_that_kubectl_keeps() -> None:
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "stays"}
    got = trimmed(kinds.MODELDEPLOYMENT, child(1, annotations=annotations))
    assert got["metadata"]["annotations"] == {"mine": "stays"}
