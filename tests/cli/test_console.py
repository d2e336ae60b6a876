"""What reaches the terminal, or the file, in characters."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pty
import re
import subprocess
import sys
import threading

import pytest

from simopen.cli.console import Screen, countdown, plain_table, shown, write_in_any_encoding

# Each is something to rich: markup, a closing tag that was never opened, an emoji's code.
HOSTILE = "[fe80::1]:80 and [/red] and 2001:db8::b:1 and [bold]x[/bold] and :x: and [::1]:80"
NO_RICH = "import sys; sys.modules['rich'] = None\n"
LINE = """
import sys
from simopen.cli.console import Screen
with Screen().line("first " + sys.argv[1]) as update:
    update("second " + sys.argv[1])
    print("data", flush=True)
Screen().say("last " + sys.argv[1])
"""
TABLE = """
import sys
from simopen.cli.console import Screen
Screen().table("title", ("one", "two"), [("a", sys.argv[1]), ("bbbb", "c")])
"""


def on_a_terminal(code: str, *, term: str = "xterm", text: str = HOSTILE, **more: str) -> tuple[str, str]:
    """What a program whose standard error is a terminal, or both streams where it has a table, writes: out, err.

    `text`: its argument; `more`: of its environment.
    """
    ours, theirs = pty.openpty()
    shown = bytearray()

    def read() -> None:
        try:
            while chunk := os.read(ours, 65536):
                shown.extend(chunk)
        except OSError:  # EIO: nobody has the other side any more
            pass

    environment = {**os.environ, "TERM": term, "COLUMNS": "200", **more}
    stdout = theirs if ".table(" in code else subprocess.PIPE
    command = [sys.executable, "-c", code, text]
    process = subprocess.Popen(command, stdout=stdout, stderr=theirs, env=environment)
    os.close(theirs)
    reader = threading.Thread(target=read)
    reader.start()
    out, _ = process.communicate(timeout=30)
    reader.join()
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    return (out or b"").decode(), shown.decode()


def test_a_line_is_redrawn_as_it_is_and_data_stay_out_of_it() -> None:
    out, shown = on_a_terminal(LINE)
    assert out == "data\n"
    assert f"first {HOSTILE}" in shown
    assert f"second {HOSTILE}" in shown
    assert shown.endswith(f"last {HOSTILE}\r\n")
    assert shown.rfind("\x1b[?25l") < shown.rfind("\x1b[?25h")  # the cursor is back


SAID_MEANWHILE = """
import sys
from simopen.cli.console import Screen
screen = Screen()
with screen.{} as update:
    {}
    screen.say("said")
    screen.verbatim("words " * 50)
    screen.note("noted")
"""


@pytest.mark.parametrize(("line", "update"), [('line("waiting ...")', ""), ('progress("sending", 100)', "update(5)")])
def test_what_is_said_while_a_line_stands_has_lines_of_its_own(line: str, update: str) -> None:
    _, shown = on_a_terminal(SAID_MEANWHILE.format(line, update), COLUMNS="80")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.replace("\x1b[2K", "\n")).replace("\r", "\n")
    lines = [each.rstrip() for each in plain.split("\n")]
    for each in ("said", ("words " * 50).rstrip(), "simopen: note: noted"):
        assert each in lines


@pytest.mark.parametrize(("before", "term"), [(NO_RICH, "xterm"), ("", "dumb")], ids=["no rich", "dumb terminal"])
def test_a_line_that_cannot_be_redrawn_is_said_once(before: str, term: str) -> None:
    out, shown = on_a_terminal(before + LINE, term=term)
    assert (out, shown) == ("data\n", f"first {HOSTILE}\r\nlast {HOSTILE}\r\n")


def test_a_table_on_a_terminal_keeps_its_text() -> None:
    _, shown = on_a_terminal(TABLE)
    assert HOSTILE in shown
    assert "title" in shown


def test_a_table_on_a_terminal_without_rich() -> None:
    _, shown = on_a_terminal(NO_RICH + TABLE)
    assert shown == f"title\r\none   two\r\na     {HOSTILE}\r\nbbbb  c\r\n"


def test_into_a_file_a_line_is_said_once_and_a_table_padded(capfd: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    with screen.line(HOSTILE) as update:
        update("never seen")
    screen.say("two\nlines")
    screen.table("title", ("one", "two"), [("a", "b")])
    assert capfd.readouterr() == ("title\none  two\na    b\n", f"{HOSTILE}\ntwo\nlines\n")


def test_where_it_is_quiet_nothing_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    screen = Screen(quiet=True)
    with screen.line("line") as update:
        update("again")
    screen.say("said")
    screen.table("title", ("one",), [("a",)])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("columns", "rows", "lines"),
    [
        (("a", "b"), [], ["a  b"]),
        (("a", "b"), [("", "")], ["a  b", ""]),
        (("name", "x"), [("n", "long"), ("longer", "")], ["name    x", "n       long", "longer"]),
    ],
)
def test_a_plain_table(columns: tuple[str, ...], rows: list[tuple[str, ...]], lines: list[str]) -> None:
    assert plain_table(columns, rows).split("\n") == lines


WORDS = " ".join(f"word{number}" for number in range(60))
TICKET = "so1" + "x" * 150
SAY = """
import sys
from simopen.cli.console import Screen
Screen().say(sys.argv[1])
"""


@pytest.mark.parametrize("before", [NO_RICH, ""], ids=["no rich", "rich"])
@pytest.mark.parametrize("columns", [40, 80, 300])
def test_sentences_are_broken_between_words_at_the_terminals_width(before: str, columns: int) -> None:
    said = f"  seen: {WORDS}, {TICKET} and `simopen nat --ticket --at +5m`"
    _, shown = on_a_terminal(before + SAY, text=said, COLUMNS=str(columns))
    lines = shown.split("\r\n")
    assert " ".join(" ".join(lines).split()) == " ".join(said.split())
    assert [line for line in lines if len(line) > columns and TICKET not in line] == []
    assert all(line.startswith("  ") for line in lines[:-1])
    assert any("`simopen nat --ticket --at +5m`" in line for line in lines)


@pytest.mark.parametrize("before", [NO_RICH, ""], ids=["no rich", "rich"])
@pytest.mark.parametrize("columns", [10, 40, 80, 300])
def test_no_word_of_a_table_is_lost_at_any_width(before: str, columns: int) -> None:
    _, drawn = on_a_terminal(before + TABLE, text=f"{WORDS} {'y' * 90}", COLUMNS=str(columns))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", drawn)
    bare = "".join(each for each in shown if each.isalnum())
    for word in WORDS.split():
        assert word in bare or columns < 40  # broken in two, beside another cell
    assert bare.count("y") == 90
    assert [line for line in shown.split("\r\n") if len(line) > max(columns, 90)] == []


ENDPOINTS = ("[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535", "203.0.113.107:54321")
OBSERVED = f"""
import sys
from simopen.cli.console import Screen
Screen().table("title", ("from", "server", "seen as"), [({ENDPOINTS[1]!r}, sys.argv[1], {ENDPOINTS[0]!r})])
"""


@pytest.mark.parametrize("before", [NO_RICH, ""], ids=["no rich", "rich"])
@pytest.mark.parametrize("columns", [20, 40, 60, 80, 110, 140])
def test_no_endpoint_in_a_table_is_broken_at_any_width(before: str, columns: int) -> None:
    _, drawn = on_a_terminal(before + OBSERVED, text=f"{ENDPOINTS[1]} of stun.example.org", COLUMNS=str(columns))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", drawn)
    assert [shown.count(each) for each in ENDPOINTS] == [1, 2]
    assert max(map(len, shown.split("\r\n"))) <= max(columns, len(ENDPOINTS[0]) + 2)


def test_into_a_file_nothing_is_broken(capfd: pytest.CaptureFixture[str]) -> None:
    Screen().say(WORDS)
    Screen().table("title", ("one", "two"), [(WORDS, WORDS)])
    out, err = capfd.readouterr()
    assert err == f"{WORDS}\n"
    assert out.splitlines()[-1] == f"{WORDS}  {WORDS}"


def test_control_sequences_are_shown_and_not_obeyed(capfd: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r"
    Screen().say(evil)
    Screen().table("title", ("one",), [(evil,)])
    out, err = capfd.readouterr()
    assert err == r"\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r" + "\n"
    assert out.splitlines()[-1] == r"\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r"


@pytest.mark.parametrize("encoding", ["ascii", "koi8-r", "latin-1", "cp1252", "utf-8", "utf-16"])
def test_every_encoding_gets_every_answer(encoding: str) -> None:
    text = "± 5 µs, 3 × 2 … → ─ │ €ж日\udcff"
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    write_in_any_encoding(stream)
    print(text, file=stream, flush=True)
    written = stream.buffer.getvalue().decode(encoding)
    assert written == f"{shown(text, stream)}\n"
    assert r"\udcff" in written
    if encoding == "ascii":
        assert written == "+/- 5 us, 3 x 2 ... -> - | \\u20ac\\u0436\\u65e5\\udcff\n"


class Clock:
    """Seconds, as they are told."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_line_that_cannot_be_redrawn_is_said_again_ever_more_rarely(capfd: pytest.CaptureFixture[str]) -> None:
    clock, said_at = Clock(), []
    with Screen(now=clock).line("waiting") as update:
        capfd.readouterr()
        for second in range(1, 1200):
            clock.now_s = second
            update(f"waiting, {second}")
            if capfd.readouterr().err:
                said_at.append(second)
    assert said_at == [10, 30, 70, 150, 310, 610, 910]


def test_another_step_of_a_wait_is_said_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    with Screen(now=Clock()).line("waiting") as update:
        for text, step in (("1", "far"), ("2", "far"), ("3", "soon"), ("4", "soon"), ("5", "now")):
            update(text, step)
    assert capfd.readouterr().err == "waiting\n3\n5\n"


def test_the_last_seconds_of_a_countdown_are_told_and_that_it_is_over(capfd: pytest.CaptureFixture[str]) -> None:
    """Two minutes, with a look ten times a second, as `simopen connect` and `simopen nat --ticket` wait."""
    clock = Clock()
    with Screen(now=clock).line("in 120 s") as update:
        for tenth in range(1202):
            clock.now_s = tenth / 10
            update(f"in {120 - clock.now_s:.1f} s", countdown(120 - clock.now_s))
    told = capfd.readouterr().err.splitlines()
    assert told == ["in 120 s", "in 110.0 s", "in 90.0 s", "in 50.0 s", "in 10.0 s", "in 0.0 s"]


class Full(io.StringIO):
    """Standard error on a disk that is full."""

    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_sentence_that_cannot_be_written_takes_nothing_along() -> None:
    with contextlib.redirect_stderr(Full()):
        Screen().say("a stream is up")
