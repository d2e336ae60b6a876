"""Codes: made, read whatever became of them on their way, completed, and refused before anything is sent."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.errors import CodeError
from simopen.rendezvous.codes import (
    WORDS,
    Code,
    check_count,
    completed,
    completions,
    new_code,
    parse_code,
    unlisted,
    words,
)

CODE = Code("7", ("crossover", "clockwork"))


def test_the_list_is_the_effs_with_words_known_by_three_letters() -> None:
    listed = words()
    assert len(listed) == len({each[:3] for each in listed}) == 1296
    assert list(listed) == sorted(listed)
    assert all(each.isascii() and each.isalpha() and each.islower() for each in listed)


@pytest.mark.parametrize(
    "text",
    [
        "7-crossover-clockwork",
        "  7-Crossover-CLOCKWORK \n",
        "7 crossover clockwork",
        "7–crossover—clockwork",
        "7−crossover‑clockwork",
        "７－ｃｒｏｓｓｏｖｅｒ－ｃｌｏｃｋｗｏｒｋ",
        "007-crossover-clockwork",
        "7crossover-clockwork",
        "“7-crossover-clockwork”.",
        "7 - crossover - clockwork",
        "7-cross\u00adover-clock\u200bwork",
        "7_crossover_clockwork",
        "7\tcrossover\r\nclockwork",
    ],
)
def test_what_becomes_of_a_code_on_its_way_is_undone(text: str) -> None:
    assert parse_code(text) == CODE


@pytest.mark.parametrize("text", ["7-cro-zuc", "7 CROISSANT zucch", "7-croiss-zucchini"])
def test_a_words_beginning_is_the_word(text: str) -> None:
    assert str(parse_code(text)) == "7-croissant-zucchini"


def test_other_words_count_as_they_are_and_are_told() -> None:
    assert unlisted(parse_code("7-croissent-zucchini-qqqqq")) == (("croissent", "croissant"), ("qqqqq", None))
    assert unlisted(parse_code("7-cro-zuc")) == ()


@pytest.mark.parametrize("text", ["9-yo-yo-yoyo", "9-yoyo-yo yo", "9 YO-YO yoy"])
def test_the_one_word_with_a_hyphen_is_one_word(text: str) -> None:
    assert str(parse_code(text)) == "9-yoyo-yoyo"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no code"),
        ("---", "there is no code"),
        ("crossover-clockwork", "begins with a number"),
        ("-crossover", "begins with a number"),
        ("seven-crossover-clockwork", "begins with a number"),
        ("7", "words are missing"),
        ("7-", "words are missing"),
        ("7-crossover-c!", "is no word"),
        ("7-cr-clockwork", "at least 3 letters"),
        ("9999999999999-crossover-clockwork", "begins with a number"),
        ("7-" + "-".join(["cro"] * 25), "at most 24"),
        ("٧-crossover-clockwork", "begins with a number"),
    ],
)
def test_what_is_no_code_is_refused_with_its_reason(text: str, said: str) -> None:
    with pytest.raises(CodeError, match=said) as caught:
        parse_code(text)
    assert isinstance(caught.value, ValueError)


def test_a_code_is_text() -> None:
    with pytest.raises(TypeError, match="string"):
        parse_code(7)  # type: ignore[arg-type]


@given(st.text(max_size=60))
def test_any_text_is_a_code_or_a_code_error(text: str) -> None:
    try:
        code = parse_code(text)
    except CodeError:
        return
    assert parse_code(str(code)) == code


@given(st.integers(0, 10**9), st.lists(st.sampled_from(words()), min_size=1, max_size=6))
def test_a_code_comes_back_as_it_was_from_whole_words_and_from_their_beginnings(room: int, chosen: list[str]) -> None:
    code = Code(str(room), tuple(chosen))
    assert parse_code(str(code)) == code
    assert parse_code("-".join((code.room, *(each[:3] for each in chosen))).upper()) == code


def test_a_new_code_is_of_the_list_and_as_long_as_wanted() -> None:
    code = new_code("12", 4)
    assert code.room == "12"
    assert len(code.words) == 4
    assert set(code.words) <= set(words())
    assert code.words[0] not in repr(code)


@pytest.mark.parametrize(("count", "error"), [(0, ValueError), (25, ValueError), (2.0, TypeError), (True, TypeError)])
def test_a_number_of_words_that_is_none(count: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        check_count(count)


def test_what_words_are_worth() -> None:
    """As the page on codes says."""
    assert round(WORDS * math.log2(len(words())), 1) == 20.7


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("7-cro", ("7-croissant",)),
        ("7-CRO", ("7-croissant",)),
        ("7-crossover-zu", ("7-crossover-zucchini",)),
        ("7-zzz", ()),
        ("7", ()),
        ("cro", ()),
        ("", ()),
    ],
)
def test_a_code_that_is_begun_is_completed(typed: str, offered: tuple[str, ...]) -> None:
    assert completed(typed) == offered


def test_completions_are_all_that_begin_so() -> None:
    assert completions("") == words()
    assert all(each.startswith("ab") for each in completions("ab"))
    assert len(completions("ab")) == sum(each.startswith("ab") for each in words())
