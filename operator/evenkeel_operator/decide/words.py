"""What has a person said of a revision, and does it still hold?

A word is an annotation: evenkeel.dev/promote or evenkeel.dev/abort, REVISION or REVISION@ANYTHING. It is about the
revision that the spec asks for, for as long as it asks for it and until that revision has come into full service. From
then on it is overtaken: the annotation stays, and status.overtaken keeps that it says nothing any more. Whatever
follows the @ makes it another word, so that the same can be said of the same revision again.

Counter-example without an end: a revision was promoted by hand, and replaced by the next; months later the spec asks
for it again, and it would serve untried. Nor could the guard leave it when it decays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evenkeel_operator.api.modeldeployment import Object
from evenkeel_operator.api.status import OvertakenStatus
from evenkeel_operator.decide import names

if TYPE_CHECKING:
    from evenkeel_operator.decide.snapshot import Snapshot


def written(revision: str, moment: str) -> str:
    """Return the annotation that says something of `revision`, and that nobody has written before `moment`."""
    return f"{revision}@{moment}"


def about(word: str | None, overtaken: str | None) -> str | None:
    """Return the revision that `word` is about, None without one, or where it is the one that is overtaken."""
    return None if word is None or word == overtaken else word.partition("@")[0]


def status(snapshot: Snapshot, stable: str | None) -> Object:
    """Return status.overtaken, `stable` being in full service by this very plan."""
    before = snapshot.status.overtaken or OvertakenStatus()
    asked = names.revision_name(snapshot.name, snapshot.spec)
    has_come = stable if stable != snapshot.status.stable_revision else None
    rows = {}
    for annotation, kept in ((names.PROMOTE_ANNOTATION, before.promote), (names.ABORT_ANNOTATION, before.abort)):
        word = snapshot.words.get(annotation)
        if word is not None and (about(word, kept) != asked or asked == has_come):
            rows[annotation.rpartition("/")[2]] = word
    return {"overtaken": rows} if rows else {}
