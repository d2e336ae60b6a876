"""What a help says, and how bad usage is told."""

from __future__ import annotations

import pytest

import simopen
from simopen.cli.main import _FAILURES, _parser, main
from tests.loopback import HERE


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["connect", "clock", "self", "demo", "lab", "exit status", "130 interrupted"]),
        (
            ["connect", "--help"],
            ["--at T", "22:14:30", "--no-listen", "one$", "default: 10 s", "--mine TICKET"],
        ),
        (["clock", "--help"], ["--ntp HOST", "default: 3 s"]),
        (["self", "--help"], ["default: 1314"]),
        (["demo", "--help"], ["--loopback", "default: 40ms"]),
        (["lab", "--help"], ["--left SPEC", "default: 40ms", "as 2%", "simopen lab --list", "--plot FILE"]),
        (["--version"], [simopen.__version__]),
    ],
)
def test_help(arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert [word for word in words if word not in said] == []


@pytest.mark.parametrize("command", sorted(_FAILURES))
def test_help_fits_a_terminal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if len(line) > 80] == []
    assert "\nexit status: 0 done, 1 " in said
    assert said.count("S: seconds, or 250ms") == (" S " in said or " S\n" in said)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["connect", HERE, "0"], "argument PORT: a port must lie between 1 and 65535, not 0"),
        (["connect", HERE, "65536"], "argument PORT: a port must lie between 1 and 65535, not 65536"),
        (["connect", HERE, "abc"], "argument PORT: a port is a number between 1 and 65535, not 'abc'"),
        (["connect", HERE, "²"], "a port is a number"),
        (["connect", HERE, "9", "--local-port", "0"], "argument --local-port: a port must lie between 1 and 65535"),
        (["connect", HERE, "9", "--local-address", "here"], "must be an IP address of this host, not 'here'"),
        (["connect", HERE, "9", "--at", "soon"], "argument --at: 'soon' is no instant: write 22:14:30"),
        (["connect", HERE, "9", "--at", "2026-01-01"], "argument --at: '2026-01-01' is no instant: write 22:14:30"),
        (["connect", "AEPARZDLA4GDNNNZZAAP", "6AYAZMAHCAIAYCUA"], "(a ticket with spaces in it goes in quotes)"),
        (["connect", HERE, "9", "--at", "2026-01-01T00:00:00"], "has no time zone"),
        (["connect", HERE, "9", "--at", "25:00"], "no time of day"),
        (["connect", HERE, "9", "--window", "0"], "argument --window: it must be longer than zero"),
        (["connect", HERE, "9", "--window", "long"], "'long' is no duration"),
        (["connect", HERE, "9", "--ntp", HERE, "--no-ntp"], "not allowed with"),
        (["clock", "--timeout", "0s"], "argument --timeout: it must be longer than zero"),
        (["self", "99999"], "argument PORT: a port must lie"),
        (["demo", "--delay", "-1s"], "argument --delay"),
        (["lab", "--plot", "/nope/x.svg"], "argument --plot: there is no directory /nope to write to"),
    ],
)
def test_bad_usage_is_told_in_one_clear_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert not out
    assert words in err.splitlines()[-1]


def test_options_may_stand_between_a_command_s_words() -> None:
    told = _parser().parse_args(["connect", "203.0.113.1", "--at", "22:14:30", "1314", "--no-ntp"])
    assert (told.host, told.port, told.no_ntp) == ("203.0.113.1", 1314, True)
    parser = _parser()
    for typed in (["send", "a", "--exclude", "x", "b", "--words", "3", "c"], ["send", "a", "b", "c"]):
        assert list(map(str, parser.parse_args(typed).paths)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["send", "--", "-x"], ["-x"]),
        (["send", "--", "-x", "y", "--text"], ["-x", "y", "--text"]),
        (["send", "y", "--exclude", "z", "--", "-x"], ["y", "-x"]),
        (["send", "--", "--", "-"], ["--", "-"]),
    ],
)
def test_what_comes_after_two_dashes_is_no_option(typed: list[str], read: list[str]) -> None:
    options = _parser().parse_args(typed)
    assert (options.paths, options.text) == (read, None)


def test_a_word_after_two_dashes_that_nobody_wants_is_named_as_it_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["clock", "--", "-x"])
    assert "unrecognized arguments: -x\n" in capsys.readouterr().err
