"""Whatever is typed after an option: it is understood, or refused in a sentence that fits a screen, with status 2."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simopen.cli.main import _parser

PARSER = _parser()
LIMIT = 2_000
NUMBERS = [
    *("nan", "inf", "-inf", "1e400", "1e-400", "-1", "-0", "", " 5 ", "0x10", "1_0", "5.5.5", "+", "next:", "%"),
    *("٣", "١٣s", "٢٢:١٤", "5\N{FULLWIDTH DIGIT FIVE}", "²", "\x00", "5\x00", "\x1b[2J", "\udcff", "é" * 5000),
    *(digit * length + unit for digit in "19" for length in (19, 300, 5000) for unit in ("", "s", "h")),
]
ZEROS = ["-0", "-0", "1e-400"]
UNDERSTOOD = {" 5 ", "1_0", *ZEROS}
SPECS = [
    *(f"home,{word}={number}" for word in ("step", "pool", "others", "established", "udp") for number in NUMBERS),
    *("home,pool=0", "home,step=0", "home,step=1e9", "home,pool=99999999", "home,established=0", "home,others=1"),
    *("+".join(["home"] * 9), "home," * 999, "+", ",", "=", "home,=", "home+", "random/", "x" * 5000),
]
FILES = ["x\x00.svg", "x" * 5000 + ".svg", "/dev/null/x.svg", "/nowhere/x.svg", "/.svg", ".svg/", "x", "", "\x1b.svg"]
TYPED = st.one_of(st.text(max_size=50), st.floats().map(str), st.integers().map(str))


def options() -> Iterator[tuple[list[str], str]]:
    """Each option that takes a value, and each argument: the words before it, and what it is called.

    Those that several commands declare alike, by one function, are tried in the first of these.
    """
    seen: set[tuple[object, ...]] = set()
    (commands,) = (each for each in PARSER._actions if isinstance(each, argparse._SubParsersAction))
    for name, parser in commands.choices.items():
        for action in parser._actions:
            if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
                continue
            declared = (action.dest, *action.option_strings, action.help, repr(action.default))
            if declared in seen:
                continue
            seen.add(declared)
            before = {"connect": ["203.0.113.7"], "self": []}.get(name, [])
            words = [name, *before, f"{action.option_strings[0]}="] if action.option_strings else [name, *before]
            yield words, action.dest


OPTIONS = [pytest.param(words, id=f"{words[0]} {name}") for words, name in options() if name != "host"]


def refusal(words: list[str], typed: str) -> str | None:
    """What is said to it; None where it is understood."""
    *before, last = words
    typed_words = [*before, last + typed] if last.endswith("=") else [*words, typed]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            PARSER.parse_args(typed_words)
        except SystemExit as end:
            return err.getvalue() if end.code == 2 else f"status {end.code}"
    return None


def assert_fits(said: str) -> None:
    assert "error: " in said.splitlines()[-1]
    assert len(said) <= LIMIT
    assert [each for each in said if not each.isprintable() and each != "\n"] == []


@pytest.mark.parametrize("words", OPTIONS)
def test_what_no_clock_or_calendar_holds(words: list[str]) -> None:
    for typed in (*NUMBERS, *SPECS, *FILES):
        if not typed.startswith("-"):  # another option
            said = refusal(words, typed)
            if said is not None:
                assert_fits(said)


@pytest.mark.parametrize("words", OPTIONS)
@settings(max_examples=25)
@given(typed=TYPED)
def test_whatever_is_typed(words: list[str], typed: str) -> None:
    if not typed.startswith("-") and (said := refusal(words, typed)) is not None:
        assert_fits(said)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("typed", ["serve --port 99999", "lab --left frob", "connect --at 2026-01-01T00:00:00 x"])
def test_a_refusal_is_broken_between_words_at_a_terminal(typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.redirect_stderr(Terminal()) as said, pytest.raises(SystemExit) as end:
        PARSER.parse_args(typed.split())
    assert end.value.code == 2
    assert "error: " in said.getvalue()
    assert [line for line in said.getvalue().splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("words", [words for words, _ in options() if words[-1].endswith("=")], ids=" ".join)
def test_two_dashes_are_an_options_value_as_any_other(words: list[str]) -> None:
    """Before Python 3.13, argparse takes them for the end of the options, and hands over an empty list."""
    said = refusal(words, "--")
    if said is not None:
        assert_fits(said)
    else:
        told = vars(PARSER.parse_args([*words[:-1], words[-1] + "--"])).values()
        assert "--" in told or ["--"] in told or Path("--") in told


@pytest.mark.parametrize("side", ["--left", "--right"])
@pytest.mark.parametrize("spec", SPECS)
def test_no_nat_is_made_of_these(side: str, spec: str) -> None:
    said = refusal(["lab", f"{side}="], spec)
    assert said is not None or spec.partition("=")[2] in UNDERSTOOD
    assert_fits(said or "error: ")


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("option", ["--seed", "--runs", "--loss"])
def test_no_number_of_the_labs_is_one_of_these(option: str, number: str) -> None:
    said = refusal(["lab", f"{option}="], number)
    assert (
        said is not None
        or (option, number) in {("--seed", "-1"), ("--seed", "-0"), ("--loss", "-0")}
        or (option == "--loss" and number == "1e-400")
    )


@pytest.mark.parametrize("file", FILES)
def test_no_picture_goes_there(file: str) -> None:
    said = refusal(["lab", "--plot="], file)
    assert said is not None or file == "\x1b.svg"


@pytest.mark.parametrize("typed", ["٣", "١٣s", "٢٢:١٤", "+٣s", "next:١٠s", "٢١٠٠٠٠٠٠٠٠"])
@pytest.mark.parametrize("option", [["lab", "--delay="], ["clock", "--timeout="], ["connect", "203.0.113.7", "--at="]])
def test_digits_are_those_of_a_keyboard(option: list[str], typed: str) -> None:
    """The two sides could not read such a number to each other."""
    assert_fits(refusal(option, typed) or "it was understood")
