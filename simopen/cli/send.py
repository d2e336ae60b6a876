"""`simopen send`: files, folders or a text, to whoever has the code.

Theory of operation: what is to be sent is looked at before a code is made, so that nobody waits for what cannot be
read. The command ends with status 0 once the receiver has said that all is on its disk.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Self

from simopen.cli import code, known
from simopen.cli.arguments import UsageError, add_punch
from simopen.cli.console import Screen, print_json
from simopen.cli.interrupts import Blocking
from simopen.model.wording import amount, listed, path_shown, quoted
from simopen.net.aside import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from simopen.apps.transfer.messages import Offer

EXAMPLE = """\
one$    simopen send report.pdf
other$  simopen receive 7-croissant-zucchini
what was interrupted goes on from where it was: send it again, with a new code
"""
_STDIN = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `simopen send` takes."""
    parser.add_argument(
        "paths",
        metavar="FILE|DIR|@NAME",
        nargs="*",
        help="what to send; - is standard input, as a file called stdin; @NAME is a peer that was met before, to whom "
        "it goes without a code (a file of that name is ./@NAME)",
    )
    parser.add_argument(
        "--text", metavar="TEXT", help="send this text, which the other side prints; - is standard input"
    )
    parser.add_argument(
        "--exclude",
        metavar="PATTERN",
        action="append",
        default=[],
        help="leave out what has this name, or this path in the folder: *.o, build, docs/*.pdf; may be repeated",
    )
    code.add_arguments(parser)
    add_punch(parser)


async def run(options: argparse.Namespace, screen: Screen) -> int:
    """The whole command. Returns the exit status.

    Raises: UsageError; TransferError for what cannot be read, or does not get across; and as `simopen.meet`.
    """
    from simopen.apps.transfer.api import LIMIT, send
    from simopen.apps.transfer.outgoing import Outgoing, text

    paths, peer = _addressed(options.paths)
    if (options.text is None) == (not paths):
        raise UsageError("name a file or a folder, or give --text, and not both")
    if options.text == "-" or "-" in paths:
        code.require_input(options, sends=True)
    if known.named(options, peer) is None:
        known.require_name(options)
        code.named_rendezvous(options)
    outgoing: Outgoing | Offer
    if options.text is not None:
        outgoing = offer = text(_text(options.text))
    else:
        outgoing = await in_thread("simopen-walk", Outgoing, paths, exclude=options.exclude, stdin=_STDIN)
        offer = outgoing.offer
        for note in outgoing.notes():
            screen.note(note)
    what = described(offer)
    screen.say(f"simopen: sending {what}")
    typed = code.given(options, peer)
    reader, writer, report = await code.met(
        options,
        screen,
        typed,
        "simopen receive {}",
        channel="transfer",
        purpose=("simopen send", "simopen receive"),
        limit=LIMIT,
    )
    with _Told(screen, offer) as done:
        await send(reader, writer, outgoing, done)
    took_s = time.monotonic() - done.began_s
    for note in outgoing.notes() if isinstance(outgoing, Outgoing) else ():  # each is said once
        screen.note(note)
    rate = f" in {moved(done.size, getattr(outgoing, 'skipped', 0), took_s)}" * bool(offer.names)
    screen.say(f"simopen: sent {what}{rate}; the other side has all of it")
    if options.json:
        print_json({"report": report.as_dict(), "sent": list(offer.names), "bytes": done.size, "seconds": took_s})
    return 0


def _addressed(words: list[str]) -> tuple[list[str], str | None]:
    """The paths, and the peer that is among them. Raises: UsageError for more than one."""
    peers = [each for each in words if each.startswith(known.AT)]
    if len(peers) > 1:
        raise UsageError(f"{listed(map(quoted, peers), ', ')}: one peer at a time; a file of that name is ./{peers[0]}")
    return [each for each in words if each not in peers], peers[0] if peers else None


class _Told:
    """What is shown meanwhile: that the other side is asked; and from when it takes it on, how far that is."""

    def __init__(self, screen: Screen, offer: Offer) -> None:
        self._screen, self._offer = screen, offer
        self._shown = contextlib.ExitStack()
        self._update: Callable[[int], None] | None = None
        self.size, self.began_s = 0, time.monotonic()

    def __enter__(self) -> Self:
        self._shown.enter_context(self._screen.line("waiting for the other side to take it ..."))
        return self

    def __exit__(self, *_: object) -> None:
        self._shown.close()

    def __call__(self, done: int) -> None:
        if self._update is None:
            self._shown.close()
            what = f"sending {listed(map(path_shown, self._offer.names), ', ', 2) or 'text'}"
            self._update = self._shown.enter_context(self._screen.progress(what, self._offer.size))
            self.began_s = time.monotonic()
        self.size = done
        self._update(done)


def _text(typed: str) -> str:
    if typed != "-":
        return typed
    if sys.stdin.isatty():
        print("The text; Ctrl-D ends it:", file=sys.stderr, flush=True)
    from simopen.apps.transfer.messages import MOST_TEXT

    found = b""
    with Blocking():
        while len(found) <= MOST_TEXT and (piece := os.read(_STDIN, 2**16)):
            found += piece
    if len(found) > MOST_TEXT:
        return found.decode("ascii", "replace")  # too long, whatever it says
    return found.decode("utf-8", "surrogateescape")  # what is no UTF-8 is refused with the text


def moved(size: int, skipped: int, took_s: float) -> str:
    """In what time, and how fast: `3.2 s (6.6 MB/s)`; and what of it was there already."""
    before = f"; {amount(skipped)} of it were there already" * bool(skipped)
    return f"{took_s:.1f} s ({amount((size - skipped) / max(took_s, 1e-3))}/s{before})"


def described(offer: Offer) -> str:
    """What is offered, for people: `file report.pdf (21.0 MB)`, `folder photos (12 files, 48.1 MB)`."""
    if offer.message is not None:
        return "a text"
    size = "of unknown size" if offer.size is None else amount(offer.size)
    files = f"{offer.files:,} file{'s' * (offer.files != 1)}"
    if offer.folders > max(offer.files, 1):
        files += f" in {offer.folders:,} folders"
    if len(offer.names) > 1:
        return f"{len(offer.names)} things, {listed(map(path_shown, offer.names), ', ', 4)} ({files}, {size})"
    name = path_shown(offer.names[0])
    return f"folder {name} ({files}, {size})" if offer.folders else f"file {name} ({size})"
