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
import select
import sys
from collections.abc import Iterator
from pathlib import Path

from simopen.cli.arguments import UsageError
from simopen.errors import Flaw, TicketError
from simopen.model.wording import quoted
from simopen.ticket.codec import LONGEST, Ticket, check_hosts, parse_ticket

# The options, too: a chat may have put a quotation mark before them, or made one dash of two.
_COMMAND = re.compile(
    r"""^.*\bsimopen\s+(?:meet|connect)(?:[\s>|"'`]+[-\u2013\u2014]{1,2}[a-z][\w-]*(?![\w-]))*[\s>|"'`]*""",
    re.DOTALL | re.IGNORECASE,
)
_LINE = 4096  # bytes: a terminal's longest line (termios(3))
_WRITING_MS = 50  # for whoever has just opened a FIFO to write: closed sooner, it would be a broken pipe to him


def ticket_in(text: str) -> Ticket:
    """The ticket in a line that the peer's `simopen meet` printed, or in the word alone.

    Raises: TicketError, for one that the format allows and no plan can be made of, too.
    """
    ticket = parse_ticket(_COMMAND.sub("", text))
    check_hosts(ticket)
    return ticket


class Assembled:
    """Tickets out of lines, of which some are pieces."""

    def __init__(self) -> None:
        self._begun: list[str] = []

    def ticket(self, line: str) -> Ticket:
        """Raises: TicketError; where that is CUT_SHORT, the next line may be the rest, or some of it."""
        begun, self._begun = self._begun, []
        told: TicketError | None = None
        for text in (line, *(each + line for each in begun)):
            try:
                return ticket_in(text)
            except TicketError as error:
                if error.flaw is Flaw.CUT_SHORT:
                    self._begun.append(text)
                if told is None or error.flaw is Flaw.CUT_SHORT:
                    told = error
        assert told is not None
        raise told


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
def pasted(path: str, *, anew: bool = False) -> Iterator[asyncio.Queue[str | None]]:
    """The lines that are typed at a terminal while inside; None at their end.

    `anew`: what was typed before answers nothing that was not asked yet.
    """
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    fd = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    if anew:
        import termios  # not on Windows

        termios.tcflush(fd, termios.TCIFLUSH)
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
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)  # a FIFO would wait for its writer
        try:
            return _read(fd).decode(errors="replace")
        finally:
            os.close(fd)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"the ticket's file {quoted(str(path))} cannot be read: {why}") from error


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 2 * LONGEST)
    except BlockingIOError:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return os.read(fd, 2 * LONGEST) if poll.poll(_WRITING_MS) else b""
