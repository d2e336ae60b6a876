"""`simopen receive`: what the one who made the code sends, once the person here has said yes.

Theory of operation: what is offered is shown before anything is written. Files are complete when they get their names,
and nothing is overwritten; what came of a transfer that broke is kept, said so, and not sent again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from simopen.cli import code
from simopen.cli.arguments import UsageError, add_punch
from simopen.cli.console import Screen, answer, print_json, printable
from simopen.cli.console import shown as fitting
from simopen.cli.send import described, moved
from simopen.errors import TransferError
from simopen.model.wording import LONGEST, amount, listed, path_shown, quoted, shown
from simopen.net.os_errors import reason

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Sequence

    from simopen.apps.transfer.messages import Offer

EXAMPLE = """\
one$    simopen send report.pdf
other$  simopen receive 7-croissant-zucchini
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `simopen receive` takes."""
    parser.add_argument(
        "code",
        metavar="CODE|@NAME",
        nargs="?",
        help="the code that the sender's command shows, or a peer that was met before (default: it is asked for)",
    )
    parser.add_argument(
        "--into", metavar="DIR", type=Path, default=Path(), help="the folder that it comes into (default: this one)"
    )
    parser.add_argument("--yes", action="store_true", help="take it unasked, whatever it is")
    code.add_arguments(parser)
    add_punch(parser)


async def run(options: argparse.Namespace, screen: Screen) -> int:
    """The whole command. Returns the exit status.

    Raises: UsageError; TransferError where it does not get across; and as `simopen.meet`.
    """
    from simopen.apps.transfer.api import LIMIT, ending, offered, receive, telling

    if not options.yes and not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask at whether to take it: say --yes")
    if not options.into.is_dir():
        raise UsageError(f"--into {quoted(str(options.into))} is no folder")
    if not os.access(options.into, os.W_OK | os.X_OK):  # before a code is used up
        raise UsageError(f"--into {quoted(str(options.into))} is a folder that you cannot write to")
    typed = code.given(options, options.code)
    fits = ("simopen receive", "simopen send")
    reader, writer, report = await code.met(options, screen, typed, "", channel="transfer", purpose=fits, limit=LIMIT)
    async with telling(reader, writer):
        offer = await offered(reader)
    result = {"report": report.as_dict(), "received": list(offer.names)}
    if offer.message is not None:
        async with ending(reader, writer):
            answer(printable(offer.message) if sys.stdout.isatty() else offer.message)
            await receive(reader, writer, None)
        if options.json:
            print_json({**result, "text": offer.message})
        return 0
    began_s = time.monotonic()
    if not await _files(options, screen, reader, writer, offer):
        return 1
    took_s = time.monotonic() - began_s
    if options.json:
        print_json({**result, "bytes": offer.size, "into": str(options.into), "seconds": took_s})
    return 0


async def _files(
    options: argparse.Namespace, screen: Screen, reader: StreamReader, writer: StreamWriter, offer: Offer
) -> bool:
    """Ask, and take them. Returns whether the person wanted it."""
    from simopen.apps.transfer.api import receive, refuse, unless_gone
    from simopen.apps.transfer.incoming import Incoming

    try:
        incoming = Incoming(offer, options.into)
    except TransferError as error:
        await refuse(writer, str(error))
        raise
    except (OSError, UnicodeError) as error:  # a name that this host's file system, or its encoding, has no room for
        why = f"what is offered cannot be written there: {reason(error)}"
        await refuse(writer, why)
        raise TransferError(why) from error
    try:
        with incoming:
            where = listed((path_shown(str(options.into / name)) for name in _told_first(offer.names)), ", ", 4)
            what = f"receiving {described(offer)} into: {where}"
            if not options.yes and not await unless_gone(reader, writer, _asked(f"{what[0].upper()}{what[1:]}. ok?")):
                await refuse(writer, "the person there does not want it")
                screen.say("simopen: not taken; the sender is told")
                return False
            if options.yes:
                screen.say(f"simopen: {what}")
            began_s = time.monotonic()
            with screen.progress(f"receiving {listed(map(path_shown, offer.names), ', ', 2)}", offer.size) as update:
                size = await receive(reader, writer, incoming, update)
            rate = moved(size, incoming.skipped, time.monotonic() - began_s)
            screen.say(f"simopen: received {where}: {amount(size)} in {rate}")
            return True
    except asyncio.CancelledError:
        if incoming.is_complete:
            screen.say(f"simopen: received {where}, before it was interrupted; the sender is told")
        raise
    finally:
        if (kept := incoming.kept) is not None:
            more = "; to go on from there, send the same again with a new code" * (offer.size is not None)
            screen.say(f"simopen: what came so far is kept in {shown(str(kept), LONGEST)}{more}")


def _told_first(names: Sequence[str]) -> list[str]:
    """Hidden ones first, as a shell may run what they hold: of many names only the first few are shown."""
    return sorted(names, key=lambda name: not name.startswith("."))


async def _asked(question: str) -> bool:
    """Whether the person at the terminal says yes."""
    from simopen.cli.ticket_prompt import pasted, terminal

    with pasted(terminal(), anew=True) as lines:
        print(f"{fitting(question, sys.stderr)} (y/N) ", end="", file=sys.stderr, flush=True)
        said = await lines.get()
    return (said or "").strip().lower() in {"y", "yes"}
