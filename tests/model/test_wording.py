"""Lists of others' making, and every error that tells of one: they fit a screen."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.errors import ClockError, Flaw, LabError, PunchError, SimopenError, StunError, TicketError, WindowClosed
from simopen.model.wording import (
    LONGEST,
    LONGEST_EACH,
    LONGEST_QUOTED,
    MOST,
    by_reason,
    first_few,
    listed,
    path_shown,
    quoted,
    shortened,
    shown,
    span,
)


def test_of_a_long_path_both_ends_stay() -> None:
    assert path_shown("photos/x.jpg") == "photos/x.jpg"
    told = path_shown(f"photos/{'x' * 500}.jpg")
    assert told.startswith("photos/xx")
    assert told.endswith("xx.jpg")
    assert len(told) == LONGEST_QUOTED
    assert path_shown("a\x1b[31m") == "a\\x1b[31m"


def test_each_is_told_once_and_those_left_out_are_counted() -> None:
    assert listed(["a", "b", "a"]) == "a; b"
    assert listed(range(1, 46), ", ") == "1, 2, 3, 4, 5, 6, 7, 8, and 37 more"
    assert first_few(range(4000), 2) == ("0", "1", "and 3,998 more")
    assert listed([]) == ""


@pytest.mark.parametrize(("length", "told"), [(0, 0), (LONGEST_EACH, LONGEST_EACH), (LONGEST_EACH + 1, LONGEST_EACH)])
def test_what_is_too_long_is_cut_and_says_so(length: int, told: int) -> None:
    text = shortened("x" * length)
    assert len(text) == told
    assert text.endswith(" ...") == (length > told)


@pytest.mark.parametrize(
    ("notes", "told"),
    [
        ([], ()),
        (["a: it refused"], ("a: it refused",)),
        (["a: it refused", "b: no answer", "c: it refused", "a: it refused"], ("a, c: it refused", "b: no answer")),
        (["[::1]:5: it refused", "x"], ("[::1]:5: it refused", "x")),
        ([f"{number}: no" for number in range(8)], ("0, 1, 2, 3, and 4 more: no",)),
        (["no one: said", "said"], ("no one: said", "said")),
    ],
)
def test_each_reason_is_told_once_with_whom(notes: list[str], told: tuple[str, ...]) -> None:
    assert by_reason(notes) == told


@given(st.lists(st.text(max_size=500), max_size=100))
def test_whatever_is_listed_fits_a_screen(texts: list[str]) -> None:
    assert len(listed(texts)) <= LONGEST
    assert len(first_few(texts)) <= MOST + 1


@pytest.mark.parametrize("error", [SimopenError, StunError, ClockError, LabError, PunchError, WindowClosed])
def test_no_error_is_longer_than_a_screen(error: type[SimopenError]) -> None:
    assert str(error("short")) == "short"
    assert len(str(error("x" * 700_000))) == LONGEST
    assert len(str(pickle.loads(pickle.dumps(error("x" * 700_000))))) == LONGEST


def test_nor_is_one_of_a_ticket() -> None:
    assert len(str(TicketError(Flaw.ALTERED, "x" * 700_000))) == LONGEST


@pytest.mark.parametrize(
    "text", ["\x1b[31mred\x1b[0m", "\x9b2J", "\u202egro.elpmaxe", "a\rb\n", "\x00", "\ud800", "\u2028"]
)
def test_what_would_act_on_a_terminal_is_shown_escaped(text: str) -> None:
    for told in (shown(text), quoted(text), quoted([text])):
        assert told.isprintable()
        assert told.isascii()


@given(st.text())
def test_whatever_is_quoted_is_short_and_in_one_line(text: str) -> None:
    assert quoted(text).isprintable()
    assert len(quoted(text)) <= LONGEST_QUOTED
    assert shown(text).isprintable()


def test_a_long_text_is_quoted_by_its_beginning() -> None:
    assert quoted("a" * 10**7) == "'" + "a" * (LONGEST_QUOTED - 5) + " ..."
    assert shown("b" * 10**7) == "b" * (LONGEST_QUOTED - 4) + " ..."


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3, "3 s"),
        (3.24, "3.2 s"),
        (40.4, "40 s"),
        (3592, "59 min 52 s"),
        (3599.99, "1 h"),
        (3601, "1 h"),
        (5400, "1 h 30 min"),
        (86_400, "1 day"),
        (14 * 86_400 + 7200, "14 days 2 h"),
    ],
)
def test_longer_durations_read_well(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_a_number_of_thousands_of_digits_is_told_in_few() -> None:
    assert [quoted(each) for each in (10**5000, -(10**5000), 7)] == ["10^300 or more", "-10^300 or more", "7"]
