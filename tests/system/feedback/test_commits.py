"""Who hears what of a transaction that many share? Each what became of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from evenkeel_operator.feedback.commits import Commits, Full
from evenkeel_operator.feedback.records import Label, Pair, Told
from evenkeel_operator.feedback.sqlite import SqliteStore
from evenkeel_operator.feedback.store import Refused, Store, Unavailable
from tests.system.feedback.databases import spoil
from tests.system.feedback.test_store import COHORT, SOURCE, confusion, label, nonce, outcomes
from tests.system.operator.harness import eventually

Open = Callable[[], Store]
NEVER_TAKEN = replace(SOURCE, revision="digits-" + chr(0xD800))
"""Half of a surrogate pair, which no database stores."""


@pytest.fixture
async def commits(open_store: Open) -> AsyncIterator[Commits]:
    found = Commits(open_store())
    yield found
    await found.stop()


@pytest.fixture
async def narrow(open_store: Open) -> AsyncIterator[Commits]:
    """Yield one where three may wait."""
    found = Commits(open_store(), 3)
    yield found
    await found.stop()


async def posted_together(commits: Commits, *posts: list[Label] | Told) -> list[object]:
    """Post these so that the thread that writes finds them all, and return answers and errors."""

    async def post(one: list[Label] | Told) -> object:
        if isinstance(one, Told):
            await commits.told(one)
            return None
        return outcomes(await commits.labels(one))

    with commits._changed:
        waiting = [asyncio.ensure_future(post(one)) for one in posts]
        await asyncio.sleep(0)
    return await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(Told(NEVER_TAKEN, b"process!", (), {}), id="by a replica"),
        pytest.param([label(7, source=NEVER_TAKEN)], id="by whoever labels"),
    ],
)
async def test_what_cannot_be_written_fails_alone(bad: list[Label] | Told, commits: Commits, open_store: Open) -> None:
    good = [label(1), label(2)], [label(3, actual=4)]
    first, refused, second = await posted_together(commits, good[0], bad, good[1])
    assert (first, second) == (["accepted", "accepted"], ["accepted"])
    assert isinstance(refused, Refused)
    assert confusion(open_store()) == {(3, 3): 2, (3, 4): 1}
    assert outcomes(await commits.labels([label(1)])) == ["duplicate"]


WIDE = Told(SOURCE, b"process!", (), {(0, COHORT, class_): 1 for class_ in range(10)})
PAIRS = tuple(Pair(nonce(n), 0, COHORT, 3, "digits-89abcdef", 4) for n in range(3))


@pytest.mark.parametrize(
    ("posts", "want"),
    [
        pytest.param([WIDE], [None], id="one that is heavier than all that may wait"),
        pytest.param([[label(1)], WIDE], [["accepted"], Full], id="the same behind another"),
        pytest.param([WIDE, [label(1)]], [None, Full], id="another behind it"),
        pytest.param(
            [[label(1)], Told(SOURCE, b"process!", (), {}, pairs=PAIRS)], [["accepted"], Full], id="pairs, which weigh"
        ),
        pytest.param([[label(n)] for n in range(4)], [["accepted"]] * 3 + [Full], id="one label too many"),
    ],
)
async def test_what_does_not_fit_behind_others_is_refused(
    posts: list[list[Label] | Told], want: list[object], narrow: Commits
) -> None:
    got = await posted_together(narrow, *posts)
    assert [type(one) if isinstance(one, Exception) else one for one in got] == want


async def expired(commits: Commits, before_s: int) -> bool:
    """Have labels from before that moment deleted; return whether the thread still writes when that was tried."""
    commits.expire(before_s, before_s)
    await eventually(lambda: commits._expires_before_s is None or not commits.is_alive)
    return commits.is_alive


async def test_a_moment_that_the_database_cannot_tell_ends_nothing(commits: Commits) -> None:
    assert await expired(commits, -(1 << 62))
    assert outcomes(await commits.labels([label(1)])) == ["accepted"]


async def test_what_a_spoilt_file_does_not_take_is_not_there_for_now_and_the_rest_is_written(tmp_path: Path) -> None:
    path = tmp_path / "spoilt.db"
    store = SqliteStore(path)
    store.write([label(n) for n in range(3000)], [], COHORT)
    store.close()
    spoil(path, nonce(2999))
    store = SqliteStore(path)
    commits = Commits(store)
    try:
        for _ in range(2):
            with pytest.raises(Unavailable, match="malformed") as got:
                await commits.labels([label(2999)])
            assert not isinstance(got.value, Refused)
            assert await expired(commits, COHORT + 1)
            assert outcomes(await commits.labels([label(1)])) == ["duplicate"]
    finally:
        await commits.stop()
        store.close()
