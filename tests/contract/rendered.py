"""Which object, pod or permission is in a rendered chart?"""

from __future__ import annotations

from evenkeel_operator.api.modeldeployment import Object


def find(objects: list[Object], kind: str, name: str = "evenkeel") -> Object:
    return next(o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name))


def kinds(objects: list[Object]) -> set[str]:
    return {o["kind"] for o in objects}


def pod(objects: list[Object], name: str = "evenkeel") -> Object:
    return find(objects, "Deployment", name)["spec"]["template"]["spec"]  # type: ignore[no-any-return]


def rules_of(objects: list[Object], account: str = "evenkeel") -> list[Object]:
    """Return every rule that is bound to a service account, the operator's where no other one is named."""
    bindings = (o for o in objects if o["kind"].endswith("RoleBinding"))
    bound = {o["roleRef"]["name"] for o in bindings if o["subjects"][0]["name"] == account}
    roles = (o for o in objects if o["kind"] in ("Role", "ClusterRole") and o["metadata"]["name"] in bound)
    return [rule for role in roles for rule in role["rules"]]


def verbs(objects: list[Object], resource: str, account: str = "evenkeel") -> set[str]:
    return {v for rule in rules_of(objects, account) for v in rule["verbs"] if resource in rule["resources"]}
