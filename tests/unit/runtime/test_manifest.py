"""Is a folder's digest that of its files alone, and which paths can lie in one?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel_runtime.contract import Reason
from evenkeel_runtime.failure import ModelError
from evenkeel_runtime.fetch.manifest import FILES, NAMED, Manifest, Row, require_sound

ROWS = st.lists(
    st.builds(Row, st.text(min_size=1, max_size=8), st.integers(0, 99), st.sampled_from(["ab" * 32, "cd" * 32])),
    min_size=1,
    max_size=8,
    unique_by=lambda row: row.path,
)


def test_text_is_the_documented_one() -> None:
    found = Manifest.of([Row("b/ä", 2, "cd" * 32), Row("a", 1, "ab" * 32)])
    first, second = (
        f'{{"path":"a","sha256":"{"ab" * 32}","size":1}}',
        f'{{"path":"b/ä","sha256":"{"cd" * 32}","size":2}}',
    )
    assert found.text == f'{{"files":[{first},{second}]}}'.encode()
    assert found.size_bytes == 3


@given(rows=ROWS, data=st.data())
def test_order_of_listing_is_of_no_account_and_every_file_is(rows: list[Row], data: st.DataObject) -> None:
    manifest = Manifest.of(rows)
    assert Manifest.of(data.draw(st.permutations(rows))) == manifest
    chosen = data.draw(st.sampled_from(rows))
    rest = [row for row in rows if row is not chosen]
    for other in (
        Manifest.of(rest),
        Manifest.of([*rest, Row(chosen.path, chosen.size, "ef" * 32)]),
        Manifest.of([*rest, Row(chosen.path, chosen.size + 1, chosen.sha256)]),
        Manifest.of([*rest, Row(chosen.path + "/", chosen.size, chosen.sha256)]),
    ):
        assert other.sha256 != manifest.sha256


def test_marks_name_the_file_that_changed() -> None:
    rows = [Row(f"file-{number}", number, f"{number:064x}") for number in range(NAMED)]
    before = Manifest.of(rows)
    assert len(before.marks) == 4 * NAMED
    after = Manifest.of([*rows[:-1], Row(rows[-1].path, 1, "ff" * 32)])
    assert after.against(before.marks) == f"{rows[-1].path} changed or came to it"
    assert Manifest.of(rows[2:]).against(before.marks) == "2 of its files are gone"
    assert Manifest.of([*rows, Row("one more", 0, "0" * 64)]).marks == ""
    assert before.against("") == "some of its files are other ones"


@pytest.mark.parametrize(
    ("paths", "want"),
    [
        pytest.param(["../x"], "leads elsewhere", id="out of the folder"),
        pytest.param(["a/../../x"], "leads elsewhere", id="out of it from within"),
        pytest.param(["/etc/passwd"], "leads elsewhere", id="absolute"),
        pytest.param(["a//b"], "leads elsewhere", id="an empty part"),
        pytest.param(["a/"], "leads elsewhere", id="no name"),
        pytest.param(["./a"], "leads elsewhere", id="the folder itself"),
        pytest.param(["..\\a"], "leads elsewhere", id="a backslash"),
        pytest.param(["a\0b"], "cannot be written", id="a NUL"),
        pytest.param(["a\n"], "cannot be written", id="a line break"),
        pytest.param(["a" * 256], "too long", id="a name that no file system takes"),
        pytest.param(["/".join(["ab"] * 500)], "too long", id="a path without end"),
        pytest.param(["a", "a"], "two files", id="one name twice"),
        pytest.param(["a", "a/b"], "both as a file and as a folder", id="a file that is a folder"),
        pytest.param([str(number) for number in range(FILES + 1)], "more than", id="files without end"),
    ],
)
def test_paths_that_cannot_lie_in_a_folder(paths: list[str], want: str) -> None:
    with pytest.raises(ModelError, match=want) as failure:
        require_sound("s3://models/digits", paths)
    assert failure.value.reason == Reason.INVALID
    assert len(failure.value.message) < 500


def test_paths_that_can() -> None:
    require_sound("s3://models/digits", ["a", "b/a", "b/..a", "ä ö", ".hidden/...", *map(str, range(FILES - 5))])
