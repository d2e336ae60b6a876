"""`simopen meet`: two people, one command each, and each gives the other one line.

Theory of operation: this host's NATs are asked, and a ticket is shown in the line that the peer has to type. The
mapping that it names is held from then on. Once the peer's ticket is here, from the command line, a paste or a file,
the two try in rounds (`holepunch.rounds`), so nobody has to agree on an instant. Then the stream carries standard input
and output. The private half of this side's key stays in this process, and goes once the peer has proven its own.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from asyncio import StreamReader, StreamWriter
from pathlib import Path

from simopen.cli import code, known
from simopen.cli.arguments import UsageError, add_instant, add_punch, add_time_servers, argument, judged, window
from simopen.cli.carry import carry, ended
from simopen.cli.console import Screen
from simopen.cli.meet_rounds import Meeting
from simopen.cli.ticket_prompt import terminal, ticket_in
from simopen.errors import Flaw, TicketError
from simopen.model.wording import quoted
from simopen.ticket.codec import Ticket

EXAMPLE = """\
by a code, through a rendezvous, which passes the first messages on:
  one$    simopen meet --via wss://example.org/v1
  other$  simopen meet --via wss://example.org/v1 7-croissant-zucchini
or by tickets, without a rendezvous:
one runs it, and gives the other the line that it prints; the other types that,
and gives back the line that it prints in turn, which the first one pastes:
  one$    simopen meet
  other$  simopen meet ONES-TICKET
what each then types, the other reads; with < FILE and > FILE, a file crosses
for ssh, where the peer's ticket will be in FILE:
  ssh -o ProxyCommand='simopen meet --stdio FILE' host
"""
_FOR_S = 300.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `simopen meet` takes."""
    seconds = argument(window)
    parser.add_argument(
        "ticket",
        metavar="CODE|@NAME|TICKET",
        nargs="?",
        help="the code that the peer's command shows, or - to be asked for it; @NAME of a peer that was met before; or "
        "the peer's ticket (default: with a rendezvous, a new code is made; else the ticket is asked for at the "
        "terminal)",
    )
    parser.add_argument(
        "--stdio",
        metavar="FILE",
        type=Path,
        help="ask for nothing, as standard input and output are a program's: the peer's ticket will be in FILE",
    )
    parser.add_argument(
        "--for",
        dest="for_s",
        metavar="S",
        type=seconds,
        default=_FOR_S,
        help="with both tickets, try for so long, every ten seconds (default: %(default)g s)",
    )
    add_punch(parser)
    add_instant(parser, "the full ten seconds two minutes ahead; it counts where the two NATs leave but one try")
    add_time_servers(parser)
    code.add_arguments(parser)


async def run(options: argparse.Namespace, screen: Screen) -> int:
    """The whole command. Returns the exit status.

    Raises: UsageError for what cannot be meant; TicketError for a ticket that cannot be used; StunError where no server
    answered; PunchError where the two did not meet.
    """
    if options.stdio is None and code.is_meant(options, options.ticket):
        return await code.run(options, screen)
    from simopen.cli.nat_ticket import learn_the_time
    from simopen.clock.source import chosen
    from simopen.nat.stun_tcp import DEFAULT_SERVERS, parse_servers
    from simopen.ticket.hold import holding

    if options.ticket is not None and options.stdio is not None:
        raise UsageError("leave out TICKET or --stdio FILE: both say what the peer's ticket is")
    known.require_name(options)
    theirs = None if options.ticket is None else _typed(options.ticket)
    asked = None if theirs is not None or options.stdio is not None else terminal()
    servers = options.stun or DEFAULT_SERVERS
    with judged():
        source = chosen(options.ntp, ask=not options.no_ntp)
        parse_servers(servers)
    async with contextlib.AsyncExitStack() as stack:
        with screen.line("asking what the NATs do ..."):
            at = await learn_the_time(source, screen, options.at, options.timeout)
            held = holding(options.local_port, servers=servers, timeout=options.timeout)
            found = await stack.enter_async_context(held)
        meeting = Meeting(found, source, screen, options)
        await meeting.begin(at)
        theirs = meeting.usable(theirs) if theirs is not None else await meeting.peers(asked)
        reader, writer = await meeting.meet(theirs)
    return await _carry(reader, writer, meeting)


def _typed(text: str) -> Ticket:
    """The peer's ticket. Raises: TicketError; UsageError for what is none, and was taken for none of the others."""
    try:
        return ticket_in(text)
    except TicketError as error:
        if error.flaw is not Flaw.NO_TICKET:
            raise
        raise UsageError(
            f"{quoted(text)} is no code, as in 7-croissant-zucchini, no @NAME of a peer that was met before, and no "
            f"ticket"
        ) from error


async def _carry(reader: StreamReader, writer: StreamWriter, meeting: Meeting) -> int:
    screen, began_s = meeting.screen, time.monotonic()
    report = writer.get_extra_info("simopen")
    for note in report.notes:
        screen.note(note)
    screen.say(f"{report.summary()}; the clock: {report.clock}")
    screen.say("simopen: proven: the one who made that ticket")
    await known.remembered(meeting.options, screen, writer, None)
    if sys.stdin.isatty():
        screen.say("simopen: what you type reaches your peer; Ctrl-D ends")
    carried = await carry(reader, writer, screen)
    return ended(meeting.options, screen, {"report": report.as_dict()}, carried, time.monotonic() - began_s)
