"""What a person sees: one live line and sentences on standard error, tables and answers on standard output.

Theory of operation: with rich (extra [cli]) and a terminal the line is live and tables are drawn; without, the same
words come as plain lines, and a line that would change is said again after a while. On a terminal, sentences and
tables are broken between words at its width; into a file or a pipe they go as they are. What is shown is text, never
rich's markup or emoji codes: `[fe80::1]` and `2001:db8::b:1` would not survive them; nor a terminal's control
sequences, which a name or an answer of somebody else's may hold; and in any encoding: what it lacks is spelt.

Nothing is drawn by a timer or a thread, only when told: a drawing under way holds the GIL, and a shot would wait.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TextIO

from simopen.model.wording import amount, shortened, span

if TYPE_CHECKING:
    from rich.console import Console

USUAL_WIDTH = 80
_NARROWEST = 20
_LONGEST_ENDPOINT = len(f"[{'fe80' + 7 * ':ffff'}%{15 * 'x'}]:65535")  # IFNAMSIZ is 16; a longer word may be broken
_FRAME = 3  # what rich draws beside each column
# Below this, columns of words are harder to read than one word after the other.
_NARROWEST_COLUMN = 12
# Where nothing can be redrawn, a line is said again after so many seconds, then after twice as many, and so on.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 10.0, 300.0
_SOON_S = 10.0
_REDRAWN_S = 0.1
_LONGEST_TASK = 24  # characters beside the bar, which has the rest of 80 columns
_SPELT = {"±": "+/-", "µ": "u", "×": "x", "…": "...", "→": "->", "−": "-", "–": "-", "─": "-", "│": "|"}
_QUOTED = re.compile("`[^`]*`")


class Update(Protocol):
    """Redraws a line. `step`: which part of the wait it is; where that changes, the line is worth saying anew."""

    def __call__(self, text: str, step: str = "", /) -> None: ...


class Screen:
    """Says things to whoever sits there; nothing where `quiet`.

    `live`: whether a line may be redrawn, which a log between would break. `now`: a clock, in seconds.
    """

    def __init__(self, *, quiet: bool = False, live: bool = True, now: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._live = live
        self._now = now
        self._noted: set[str] = set()
        self._drawn: Console | None = None
        """What draws a live line or a bar at the moment: what is said meanwhile goes above that."""

    def say(self, text: str) -> None:
        """One line, or several."""
        self._print(fitted(text, sys.stderr))

    def verbatim(self, line: str) -> None:
        """A line that is to be copied: broken nowhere but by the terminal, which copies it whole."""
        self._print(shown(line, sys.stderr))

    def _print(self, text: str) -> None:
        if self._quiet:
            return
        with contextlib.suppress(OSError):  # a full disk, a reader that is gone: the stream's data go on
            if self._drawn is None:
                print(text, file=sys.stderr, flush=True)
            else:
                from rich.text import Text

                self._drawn.print(Text(text), soft_wrap=True)

    @contextlib.contextmanager
    def _drawing(self, console: Console) -> Iterator[None]:
        self._drawn = console
        try:
            yield
        finally:
            self._drawn = None

    def note(self, text: str) -> None:
        """Something worth knowing; the same is said once."""
        if text not in self._noted:
            self._noted.add(text)
            self.say(f"simopen: note: {text}")

    @contextlib.contextmanager
    def line(self, text: str) -> Iterator[Update]:
        """A line that is redrawn by calling what this yields; said now and then where nothing can be redrawn."""
        console = _terminal(sys.stderr) if self._live and not self._quiet else None
        if console is None:
            self.say(text)
            yield _Repeated(self.say, self._now)
            return
        from rich.live import Live
        from rich.text import Text

        live = Live(
            Text(shown(text, sys.stderr)),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,  # the stream's data go there
            redirect_stderr=False,
        )
        with live, self._drawing(console):
            yield lambda new, _="": live.update(Text(shown(new, sys.stderr)), refresh=True)

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """How far so many bytes are, told by calling what this yields: a bar, the rate, and the time that is left."""
        console = _terminal(sys.stderr) if self._live and not self._quiet else None
        if console is None:
            with self.line(f"{what} ...") as update:
                began_s = self._now()
                yield lambda done: update(f"{what}: {far(done, total, self._now() - began_s)}")
            return
        from rich import progress

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        drawn = progress.Progress(
            *columns,
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with drawn, self._drawing(console):
            task = drawn.add_task(shortened(shown(what, sys.stderr), _LONGEST_TASK), total=total)
            yield _Drawn(lambda done: drawn.update(task, completed=done, refresh=True), self._now)

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], file: TextIO | None = None
    ) -> None:
        """A table with a title, on standard output unless told otherwise; padded where there is no rich or terminal."""
        file = file or sys.stdout
        if self._quiet:
            return
        rows = [[shown(cell, file) for cell in row] for row in rows]
        console, width = _terminal(file), _width(file)
        shares = None if console is None else _shares(columns, rows, console.width - _FRAME * len(columns) - 1)
        if console is None or shares is None:
            answer(f"{fitted(title, file)}\n{plain_table(columns, rows, width)}", file=file)
            return
        from rich.table import Column, Table
        from rich.text import Text

        heads = [Column(each, width=share, overflow="fold") for each, share in zip(columns, shares, strict=True)]
        table = Table(*heads, title=title, title_justify="left")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)


def answer(text: str, *, end: str = "\n", file: TextIO | None = None) -> None:
    """Print it on standard output, or that file, at once.

    Raises: OSError, which says what cannot be written, as a full disk behind it does not.
    """
    try:
        print(text, end=end, file=file or sys.stdout, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, f"cannot write to standard output: {error.strerror}") from error


class _Repeated:
    """A line where nothing can be redrawn: said again ever more rarely, and where another step of the wait begins."""

    def __init__(self, say: Callable[[str], None], now: Callable[[], float]) -> None:
        self._say = say
        self._now = now
        self._pause_s = _FIRST_PAUSE_S
        self._due_s = now() + _FIRST_PAUSE_S
        self._step: str | None = None

    def __call__(self, text: str, step: str = "", /) -> None:
        changed = self._step not in (None, step)
        self._step = step
        if changed or self._now() >= self._due_s:
            self._say(text)
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            self._due_s = self._now() + self._pause_s


class _Drawn:
    """A bar that is drawn a few times a second, however often it is told of."""

    def __init__(self, draw: Callable[[int], None], now: Callable[[], float]) -> None:
        self._draw, self._now, self._due_s = draw, now, now()

    def __call__(self, done: int) -> None:
        if self._now() >= self._due_s:
            self._draw(done)
            self._due_s = self._now() + _REDRAWN_S


def far(done: int, total: int | None, took_s: float) -> str:
    """`9.4 MB of 21.0 MB, 45 %, 12.3 MB/s, 2 s left`; without a total, what is known."""
    rate = done / max(took_s, 1e-3)
    if not total:
        return f"{amount(done)}, {amount(rate)}/s"
    left = f", {span(round((total - done) / rate))} left" if done else ""
    return f"{amount(done)} of {amount(total)}, {100 * done // total} %, {amount(rate)}/s{left}"


def countdown(left_s: float) -> str:
    """The step of a wait for an instant that is so many seconds ahead: its last ones, and then that it has come."""
    return "come" if left_s <= 0 else "soon" if left_s <= _SOON_S else "ahead"


def write_in_any_encoding(*streams: TextIO) -> None:
    """Let text streams spell what their encoding lacks: an answer is never lost for the want of a `µ`."""
    codecs.register_error("simopen.spelt", _spell)
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="simopen.spelt")


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_SPELT.get(each) or _escaped(each) for each in text), error.end


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def printable(text: str) -> str:
    """The text with each control character but the line's end written out: `\\x1b`, not what a terminal obeys."""
    return "".join(each if each.isprintable() or each == "\n" else _escaped(each) for each in text)


def fitted(text: str, stream: TextIO) -> str:
    """The text as that stream can show it: broken between words where it is a terminal, else as it is."""
    width = _width(stream)
    text = shown(text, stream)
    return text if width is None else wrapped(text, width)


def shown(text: str, stream: TextIO) -> str:
    """The text as that stream's reader sees it: `printable`, and spelt where its encoding lacks something."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    codecs.register_error("simopen.spelt", _spell)
    return printable(text).encode(encoding, "simopen.spelt").decode(encoding)


def wrapped(text: str, width: int) -> str:
    """Lines no longer than that, broken at spaces outside of `commands`; what is indented stays so.

    A longer word stays whole (a ticket broken by a line's end would not survive being copied): the terminal breaks it.
    """
    return "\n".join(piece for line in text.split("\n") for piece in _pieces(line, max(width, _NARROWEST)))


def _pieces(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    indent = " " * (len(line) - len(line.lstrip(" ")))
    bound = _QUOTED.sub(lambda command: command[0].replace(" ", "\xa0"), line)
    pieces = textwrap.wrap(
        bound, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, tabsize=1
    )
    return [piece.replace("\xa0", " ") for piece in pieces]


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Columns padded to their widest cell, with cells of several lines where a `width` is to be kept.

    Where that leaves a column too narrow to read, or to hold an endpoint in one line, each row is told cell by cell.
    """
    room = sys.maxsize if width is None else max(width, _NARROWEST) - 2 * (len(columns) - 1)
    widths = _shares(columns, rows, room)
    if widths is None:
        assert width is not None
        return "\n".join(wrapped(line, width) for row in rows for line in _one_by_one(columns, row))
    lines = (line for row in (columns, *rows) for line in _row(row, widths))
    return "\n".join(line.rstrip() for line in lines)


def _floors(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """How wide each column is at least: as its longest word, as an endpoint in two pieces is none; or a few words."""
    return [_floor([row[number] for row in (columns, *rows)]) for number in range(len(columns))]


def _floor(cells: Sequence[str]) -> int:
    words = (len(word) for cell in cells for word in cell.split() if len(word) <= _LONGEST_ENDPOINT)
    return max(min(_NARROWEST_COLUMN, max(map(len, cells))), *words, 0)


def _shares(columns: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """What each column gets, the widest that can giving way first; None where none can any more."""
    widths = [max(len(row[number]) for row in (columns, *rows)) for number in range(len(columns))]
    floors = _floors(columns, rows)
    while sum(widths) > room:
        giving = [number for number, floor in enumerate(floors) if widths[number] > floor]
        if not giving:
            return None
        widths[max(giving, key=widths.__getitem__)] -= 1
    return widths


def _row(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    cells = [_cell(cell, width) for cell, width in zip(row, widths, strict=True)]
    for number in range(max(map(len, cells))):
        parts = [cell[number] if number < len(cell) else "" for cell in cells]
        yield "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True))


def _cell(text: str, width: int) -> list[str]:
    if len(text) <= width:
        return [text]
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def _one_by_one(columns: Sequence[str], row: Sequence[str]) -> Iterator[str]:
    first, *others = (f"{column}: {cell}" for column, cell in zip(columns, row, strict=True))
    yield first
    yield from (f"  {each}" for each in others)


def _width(stream: TextIO) -> int | None:
    """In columns; None where it is no terminal."""
    if not stream.isatty():
        return None
    told = os.environ.get("COLUMNS", "")
    if told.isascii() and told.isdigit() and int(told[:6]) > 0:
        return int(told[:6])
    try:
        return os.get_terminal_size(stream.fileno()).columns or USUAL_WIDTH
    except (OSError, ValueError):
        return USUAL_WIDTH


def _terminal(stream: TextIO) -> Console | None:
    """The stream as a terminal that rich can draw on; None where it is none, or rich is missing."""
    try:
        from rich.console import Console
    except ImportError:
        return None
    console = Console(file=stream, width=_width(stream))
    return console if console.is_terminal and not console.is_dumb_terminal else None


def print_json(value: object) -> None:
    """One line on standard error, where standard output carries a stream's data."""
    print(json.dumps(value), file=sys.stderr, flush=True)
