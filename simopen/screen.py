"""What a person sees: one live line and sentences on standard error, tables on standard output.

Theory of operation: with rich (extra [cli]) and a terminal the line is live and tables are drawn; without, the same
words come as plain lines. What is shown is text, never rich's markup or emoji codes: `[fe80::1]` and `2001:db8::b:1`
would not survive them.

Nothing is drawn by a timer or a thread, only when told: a drawing under way holds the GIL, and a shot would wait.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console


class Screen:
    """Says things to whoever sits there; nothing where `quiet`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def say(self, text: str) -> None:
        """One line, or several."""
        if not self._quiet:
            print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def line(self, text: str) -> Iterator[Callable[[str], None]]:
        """A line that is redrawn by calling what this yields; said once where nothing can be redrawn."""
        console = None if self._quiet else _terminal(sys.stderr)
        if console is None:
            self.say(text)
            yield lambda _: None
            return
        from rich.live import Live
        from rich.text import Text

        live = Live(
            Text(text),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,  # the stream's data go there
            redirect_stderr=False,
        )
        with live:
            yield lambda new: live.update(Text(new), refresh=True)

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], file: TextIO | None = None
    ) -> None:
        """A table with a title, on standard output unless told otherwise; padded where there is no rich or terminal."""
        file = file or sys.stdout
        if self._quiet:
            return
        console = _terminal(file)
        if console is None:
            print(f"{title}\n{plain_table(columns, rows)}", file=file, flush=True)
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(*columns, title=title, title_justify="left")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell."""
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (columns, *rows))
    return "\n".join(line.rstrip() for line in lines)


def _terminal(stream: TextIO) -> Console | None:
    """The stream as a terminal that rich can draw on; None where it is none, or rich is missing."""
    try:
        from rich.console import Console
    except ImportError:
        return None
    console = Console(file=stream)
    return console if console.is_terminal and not console.is_dumb_terminal else None
