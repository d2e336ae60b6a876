"""What a person sees on standard error: one live line, sentences, tables.

Theory of operation: with rich (extra [cli]) and a terminal the line is live and tables are drawn; without, the same
words come as plain lines. Standard output is never touched: it belongs to the stream's data. What is shown is text,
never rich's markup or emoji codes: `[fe80::1]` and `2001:db8::b:1` would not survive them.

Nothing is drawn by a timer or a thread, only when told: a drawing under way holds the GIL, and a shot would wait.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


class Screen:
    """Standard error, drawn on by rich where it is there."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = None if quiet else _console()

    def say(self, text: str) -> None:
        """One line, or several."""
        if not self._quiet:
            print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def line(self, text: str) -> Iterator[Callable[[str], None]]:
        """A line that is redrawn by calling what this yields; said once where nothing can be redrawn."""
        if self._console is None or not self._console.is_terminal:
            self.say(text)
            yield lambda _: None
            return
        from rich.live import Live
        from rich.text import Text

        with Live(Text(text), console=self._console, auto_refresh=False, transient=True, **_UNTOUCHED) as live:
            yield lambda new: live.update(Text(new), refresh=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table with a title; columns are padded with spaces where rich is missing."""
        if self._quiet:
            return
        if self._console is None:
            self.say(f"{title}\n{plain_table(columns, rows)}")
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(*columns, title=title, title_justify="left")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._console.print(table)


# Live would otherwise put itself between the program and standard output.
_UNTOUCHED = {"redirect_stdout": False, "redirect_stderr": False}


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell."""
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (columns, *rows))
    return "\n".join(line.rstrip() for line in lines)


def _console() -> Console | None:
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(stderr=True)
