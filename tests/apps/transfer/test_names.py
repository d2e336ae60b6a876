"""What a peer may call a file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.apps.transfer.names import DEEPEST, LONGEST_NAME, Names, parts
from simopen.errors import TransferError


@pytest.mark.parametrize(
    "path",
    [
        "report.pdf",
        "photos/2026/a b.jpg",
        ".bashrc",
        "...",
        "-rf",
        "résumé",
        "a\\b",
        "Screenshot at 9.41.00\u202fAM.png",  # as macOS calls them
        "family \U0001f468\u200d\U0001f469\u200d\U0001f467.jpg",
        "x" * LONGEST_NAME,
    ],
)
def test_a_usual_name_stays_as_it_is(path: str) -> None:
    assert "/".join(parts(path)) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "/etc/passwd",
        "../up",
        "a/../../up",
        "a/./b",
        "a//b",
        "a/",
        "a\0b",
        "a\nb",
        "a\x1b[2Jb",
        "a\x7fb",
        "a\x9bb",
        "a\u2028b",
        "cod\u202efdp.exe",
        "a\u2066b",
        "a\u200fb",
        "\udcff",
        "x" * (LONGEST_NAME + 1),
        "é" * (LONGEST_NAME // 2 + 1),
        "/".join("x" * 200 for _ in range(30)),
        "/".join("x" * (DEEPEST + 1)),
    ],
)
def test_a_name_that_leads_elsewhere_or_reads_as_something_else_is_refused(path: str) -> None:
    with pytest.raises(TransferError, match="cannot be a file's name") as caught:
        parts(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@given(st.text(st.sampled_from("/.aB\0\\\n\u202eé\ud800"), max_size=20))
def test_what_is_taken_stays_below_its_folder(path: str) -> None:
    try:
        names = parts(path)
    except TransferError:
        return
    assert not {"", ".", ".."} & set(names)
    assert not any("/" in name or "\0" in name for name in names)


@pytest.mark.parametrize(
    ("one", "other"), [("a", "a"), ("A", "a"), ("\u00e9", "e\u0301"), ("straße", "STRASSE"), ("Å", "a\u030a")]
)
def test_two_names_that_a_file_system_takes_for_one(one: str, other: str) -> None:
    names = Names()
    names.add(one, is_folder=False)
    with pytest.raises(TransferError, match="twice"):
        names.add(other, is_folder=True)


def test_a_folder_comes_before_what_is_in_it() -> None:
    names = Names()
    with pytest.raises(TransferError, match="not named before"):
        names.add("a/b", is_folder=False)
    names.add("a", is_folder=True)
    names.add("a/b", is_folder=False)
    with pytest.raises(TransferError, match="not named before"):
        names.add("a/b/c", is_folder=False)
    with pytest.raises(TransferError, match="not named before"):
        names.add("A/c", is_folder=False)
