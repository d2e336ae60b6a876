"""What reaches the terminal, or the file, in characters."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading

import pytest

from simopen.screen import Screen, plain_table

# Each is something to rich: markup, a closing tag that was never opened, an emoji's code.
HOSTILE = "[fe80::1]:80 and [/red] and 2001:db8::b:1 and [bold]x[/bold] and :x: and [::1]:80"
NO_RICH = "import sys; sys.modules['rich'] = None\n"
LINE = """
import sys
from simopen.screen import Screen
with Screen().line("first " + sys.argv[1]) as update:
    update("second " + sys.argv[1])
    print("data", flush=True)
Screen().say("last " + sys.argv[1])
"""
TABLE = """
import sys
from simopen.screen import Screen
Screen().table("title", ("one", "two"), [("a", sys.argv[1]), ("bbbb", "c")])
"""


def on_a_terminal(code: str, *, term: str = "xterm") -> tuple[str, str]:
    """What a program whose standard error is a terminal, or both streams where it has a table, writes: out, err."""
    ours, theirs = pty.openpty()
    shown = bytearray()

    def read() -> None:
        try:
            while chunk := os.read(ours, 65536):
                shown.extend(chunk)
        except OSError:  # EIO: nobody has the other side any more
            pass

    environment = {**os.environ, "TERM": term, "COLUMNS": "200"}
    stdout = theirs if code.endswith(TABLE) else subprocess.PIPE
    command = [sys.executable, "-c", code, HOSTILE]
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
