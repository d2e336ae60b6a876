"""Where the peer's ticket comes from: pasted at the terminal, or a file that somebody writes.

Theory of operation: a line at a time, and each is told what is wrong with it. A paste may be the whole line that the
peer's `simopen meet` printed, and a chat may have broken it: a piece waits for the rest. The terminal is opened anew:
standard input may be data, and an event loop makes what it watches non-blocking, for whoever else has it, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from simopen.cli.arguments import UsageError
from simopen.errors import Flaw, TicketError
from simopen.model.wording import quoted
from simopen.ticket.codec import LONGEST, Ticket, parse_ticket

_COMMAND = re.compile(r"^.*\bsimopen\s+(?:meet|connect)\s+", re.DOTALL)
_LINE = 4096  # bytes: a terminal's longest line (termios(3))


def ticket_in(text: str) -> Ticket:
    """The ticket in a line that the peer's `simopen meet` printed, or in the word alone. Raises: TicketError."""
    return parse_ticket(_COMMAND.sub("", text))


class Assembled:
    """Tickets out of lines, of which some are pieces."""

    def __init__(self) -> None:
        self._before = ""

    def ticket(self, line: str) -> Ticket:
        """Raises: TicketError; where that is CUT_SHORT, the next line may be the rest."""
        begun, self._before = self._before, ""
        try:
            return ticket_in(line)
        except TicketError as error:
            if begun:
                with contextlib.suppress(TicketError):
                    return ticket_in(begun + line)
            if error.flaw is Flaw.CUT_SHORT:
                self._before = line
            raise


def terminal() -> str:
    """The path of the terminal that a person sits at. Raises: UsageError where there is none."""
    try:
        path = os.ttyname(sys.stdin.fileno())
    except (OSError, ValueError):
        path = "/dev/tty"
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NOCTTY))
    except OSError as error:
        raise UsageError(
            "there is no terminal to paste the peer's ticket at: give it as the argument, or a file that it will be in "
            "with --stdio FILE"
        ) from error
    return path


@contextlib.contextmanager
def pasted(path: str) -> Iterator[asyncio.Queue[str | None]]:
    """The lines that are typed at a terminal while inside; None at their end."""
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    fd = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            line = os.read(fd, _LINE)
        except BlockingIOError:
            return
        except OSError:  # the terminal has hung up
            line = b""
        if not line:
            loop.remove_reader(fd)
        lines.put_nowait(line.decode(errors="replace") if line else None)

    loop.add_reader(fd, read)
    try:
        yield lines
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def filed(path: Path) -> str:
    """What is in a file now; nothing where there is none yet. Raises: UsageError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(2 * LONGEST).decode(errors="replace")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"the ticket's file {quoted(str(path))} cannot be read: {why}") from error
