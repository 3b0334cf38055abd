"""What can a person ask of a ModelDeployment's past? `evenkeel history`, `rollback`, `restart`.

They talk to the API server with the caller's own rights and write the spec only; the operator does the rest.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from evenkeel_operator.api.modeldeployment import Object, Spec
from evenkeel_operator.api.status import Status
from evenkeel_operator.decide import names, words
from evenkeel_operator.decide.explanation import explanation
from evenkeel_operator.world import kinds, terminal
from evenkeel_operator.world.connection import JSON_PATCH, MERGE_PATCH, ApiError, Connection
from evenkeel_operator.world.terminal import Refusal

FIELD_MANAGER = "evenkeel-cli"
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
"""As `kubectl rollout restart` writes it; evenkeel.dev/ is the operator's own prefix, which the CRD refuses here."""

ATTEMPTS = 3


def explain(argv: Sequence[str]) -> int:
    """Tell why a ModelDeployment is as it is."""
    parser = terminal.parser("explain", "Tell why a ModelDeployment has the size and the state it has, in sentences.")
    return terminal.run(parser.parse_args(argv), _explain)


def history(argv: Sequence[str]) -> int:
    """List the revisions of a ModelDeployment."""
    parser = terminal.parser("history", "List the revisions that a ModelDeployment can go back to.")
    return terminal.run(parser.parse_args(argv), _history)


def rollback(argv: Sequence[str]) -> int:
    """Write the spec of an earlier revision back."""
    parser = terminal.parser(
        "rollback", "Make an earlier revision the wanted one again; it is rolled out like any other change."
    )
    parser.add_argument(
        "--revision", type=int, help="its number in `evenkeel history`; without: the one before the present"
    )
    return terminal.run(parser.parse_args(argv), _rollback)


def restart(argv: Sequence[str]) -> int:
    """Make a new revision of the same spec."""
    parser = terminal.parser(
        "restart",
        "Roll out a new revision of the same spec: with the operator's present runtime, and the model resolved anew.",
    )
    return terminal.run(parser.parse_args(argv), _restart)


def promote(argv: Sequence[str]) -> int:
    """Replace the stable revision by the one under test, whatever the test says."""
    parser = terminal.parser(
        "promote",
        "Let the revision that the spec asks for replace the stable one, whatever its test as a canary says. It holds "
        "until that revision is in full service, or the spec asks for another. With kubectl: annotate --overwrite mdep "
        "NAME evenkeel.dev/promote=REVISION, and =REVISION@ANYTHING to say the same again later.",
    )
    return terminal.run(parser.parse_args(argv), _promote)


def abort(argv: Sequence[str]) -> int:
    """Take the revision under test back."""
    parser = terminal.parser(
        "abort",
        "Roll the canary back: the stable revision serves alone until the spec asks for another revision. With "
        "kubectl: annotate --overwrite mdep NAME evenkeel.dev/abort=REVISION, and =REVISION@ANYTHING to say the same "
        "again later.",
    )
    return terminal.run(parser.parse_args(argv), _abort)


async def _explain(connection: Connection, args: argparse.Namespace) -> None:
    deployment = await terminal.deployment(connection, args)
    spec, status = Spec.model_validate(deployment["spec"]), Status.model_validate(deployment.get("status") or {})
    print("\n".join(explanation(f"{args.namespace}/{args.name}", spec, status, datetime.now(UTC))))


async def _history(connection: Connection, args: argparse.Namespace) -> None:
    deployment = await terminal.deployment(connection, args)
    rows = [("REVISION", "NAME", "MODEL", "DIGEST", "RUNTIME", "CREATED", "STATE")]
    for found in await _revisions(connection, args):
        data, name = found["data"], found["metadata"]["name"]
        rows.append(
            (
                str(found["revision"]),
                name,
                data["spec"]["model"]["uri"],
                data["model"]["digest"].removeprefix("sha256:")[:12],
                data["runtimeImage"],
                found["metadata"]["creationTimestamp"],
                ", ".join(_states(deployment, name)),
            )
        )
    if len(rows) == 1:
        print(f"{args.namespace}/{args.name} has no revision yet")
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _states(deployment: Object, revision: str) -> list[str]:
    found = []
    if (deployment.get("status") or {}).get("stableRevision") == revision:
        found.append("stable")
    if _target(deployment) == revision:
        found.append("target")
    return found


def _target(deployment: Object) -> str:
    return names.revision_name(deployment["metadata"]["name"], Spec.model_validate(deployment["spec"]))


async def _rollback(connection: Connection, args: argparse.Namespace) -> None:
    for _ in range(ATTEMPTS):
        deployment = await terminal.deployment(connection, args)
        revision = _chosen(deployment, await _revisions(connection, args), args.revision)
        name, number = revision["metadata"]["name"], revision["revision"]
        if name == _target(deployment):
            print(f"{args.namespace}/{args.name} already asks for revision {number} ({name})")
            return
        try:
            await _patch(
                connection, args, JSON_PATCH, rollback_patch(deployment, revision["data"]["spec"], name, _now())
            )
        except ApiError as e:
            # A failed `test` is answered with 422, and so is a spec that the CRD refuses by now.
            if e.status in (409, 422) and await _has_changed(connection, args, deployment):
                continue
            raise
        print(f"{args.namespace}/{args.name} goes back to revision {number} ({name})")
        return
    raise Refusal(f"{args.namespace}/{args.name} is being changed by somebody else all the time; nothing was written")


def rollback_patch(deployment: Object, spec: Object, revision: str, moment: str) -> list[Object]:
    """Return the JSON patch that makes the part of the spec that decides the pods `spec`, that of `revision`.

    With the strategy Canary it promotes `revision` too, as of `moment`, unless that is stable and has nothing to pass.
    """
    patch: list[Object] = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": deployment["metadata"]["resourceVersion"]}
    ]
    for key in ("model", "gpu", "runtime", "pod"):
        if key in spec:
            patch.append({"op": "add", "path": f"/spec/{key}", "value": spec[key]})
        elif key in deployment["spec"]:
            patch.append({"op": "remove", "path": f"/spec/{key}"})
    is_stable = (deployment.get("status") or {}).get("stableRevision") == revision
    if deployment["spec"].get("rollout", {}).get("strategy") == "Canary" and not is_stable:
        # Who asks for a revision back does not want it tried first.
        if not deployment["metadata"].get("annotations"):
            patch.append({"op": "add", "path": "/metadata/annotations", "value": {}})
        key = names.PROMOTE_ANNOTATION.replace("/", "~1")
        patch.append({"op": "add", "path": f"/metadata/annotations/{key}", "value": words.written(revision, moment)})
    return patch


def _chosen(deployment: Object, revisions: Sequence[Object], number: int | None) -> Object:
    if number is None:
        target = _target(deployment)
        earlier = [r for r in revisions if r["metadata"]["name"] != target]
        if not earlier:
            raise Refusal("there is no earlier revision to go back to")
        return earlier[-1]
    for found in revisions:
        if found["revision"] == number:
            return found
    known = ", ".join(str(r["revision"]) for r in revisions) or "none"
    raise Refusal(f"there is no revision {number}; known: {known}")


async def _promote(connection: Connection, args: argparse.Namespace) -> None:
    revision = await _tried(connection, args, is_left_too=True)
    await _say(connection, args, promoted=revision)
    print(f"{args.namespace}/{args.name} promotes {revision}: it replaces the stable revision now")


async def _abort(connection: Connection, args: argparse.Namespace) -> None:
    revision = await _tried(connection, args)
    await _say(connection, args, aborted=revision)
    print(f"{args.namespace}/{args.name} rolls {revision} back: the stable revision serves until the spec changes")


async def _tried(connection: Connection, args: argparse.Namespace, *, is_left_too: bool = False) -> str:
    """Return the revision that is tried, or waits for it, or (`is_left_too`) was left for its decay; else Refusal."""
    deployment = await terminal.deployment(connection, args)
    target, status = _target(deployment), deployment.get("status") or {}
    stable = status.get("stableRevision")
    if is_left_too and (status.get("reverted") or {}).get("revision") == target:
        return target
    if deployment["spec"].get("rollout", {}).get("strategy") != "Canary":
        raise Refusal(f"{args.namespace}/{args.name} has no canary: spec.rollout.strategy is not Canary")
    if stable in (None, target):
        raise Refusal(f"{args.namespace}/{args.name} has no canary: {stable or 'no revision'} is the stable revision")
    return target


async def _say(
    connection: Connection, args: argparse.Namespace, promoted: str | None = None, aborted: str | None = None
) -> None:
    """Write a person's word on a revision; it says nothing of any later one."""
    moment = _now()
    annotations = {
        names.PROMOTE_ANNOTATION: None if promoted is None else words.written(promoted, moment),
        names.ABORT_ANNOTATION: None if aborted is None else words.written(aborted, moment),
    }
    await _patch(connection, args, MERGE_PATCH, {"metadata": {"annotations": annotations}})


async def _restart(connection: Connection, args: argparse.Namespace) -> None:
    await terminal.deployment(connection, args)
    await _patch(connection, args, MERGE_PATCH, {"spec": {"pod": {"annotations": {RESTARTED_AT: _now()}}}})
    print(f"{args.namespace}/{args.name} restarts: a new revision with the present runtime and the model resolved anew")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _patch(connection: Connection, args: argparse.Namespace, content_type: str, body: object) -> None:
    await connection.request(
        "PATCH",
        kinds.MODELDEPLOYMENT.path(args.namespace, args.name),
        query={"fieldManager": FIELD_MANAGER},
        body=body,
        content_type=content_type,
    )


async def _has_changed(connection: Connection, args: argparse.Namespace, deployment: Object) -> bool:
    found = await terminal.deployment(connection, args)
    return bool(found["metadata"]["resourceVersion"] != deployment["metadata"]["resourceVersion"])


async def _revisions(connection: Connection, args: argparse.Namespace) -> list[Object]:
    selector = ",".join(f"{key}={value}" for key, value in names.labels(args.name).items())
    kind = replace(kinds.CONTROLLER_REVISION, label_selector=selector)
    found = [item async for page in connection.pages(kind, args.namespace) for item in page.items]
    return sorted(found, key=lambda item: int(item["revision"]))
