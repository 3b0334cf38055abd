"""Does a profile name what the process does, and is its length bounded?"""

from __future__ import annotations

import threading

import pytest

from evenkeel_runtime.serve import stacks


@pytest.mark.parametrize(
    ("query", "want"),
    [
        pytest.param("", stacks.DEFAULT_S, id="nothing said"),
        pytest.param("seconds=0.5", 0.5, id="a part of a second"),
        pytest.param("seconds=60", 60.0, id="as long as it may be"),
        pytest.param("seconds=60.1", None, id="longer than it may be"),
        pytest.param("seconds=0", None, id="no time"),
        pytest.param("seconds=-1", None, id="negative"),
        pytest.param("seconds=nan", None, id="not a number"),
        pytest.param("seconds=soon", None, id="a word"),
    ],
)
def test_for_how_long(query: str, want: float | None) -> None:
    assert stacks.seconds_of(query) == want


def waits_for(end: threading.Event) -> None:
    end.wait()


def test_stacks_are_folded_with_the_thread_first_and_the_innermost_function_last() -> None:
    end = threading.Event()
    thread = threading.Thread(target=waits_for, args=(end,), name="waiter")
    thread.start()
    try:
        found = stacks.profile(0.05)
    finally:
        end.set()
        thread.join()
    assert found is not None
    lines = [line for line in found.decode().splitlines() if line.startswith("waiter;")]
    assert lines
    for line in lines:
        stack, _, count = line.rpartition(" ")
        assert int(count) > 0
        assert f"{__name__}.waits_for" in stack.split(";")


def test_one_profile_at_a_time() -> None:
    assert stacks._running.acquire(blocking=False)
    try:
        assert stacks.profile(0.01) is None
    finally:
        stacks._running.release()
    assert stacks.profile(0.01) is not None
