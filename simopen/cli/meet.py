"""`simopen meet`: two people, one command each, and each gives the other one line.

Theory of operation: this host's NATs are asked, and a ticket is shown in the line that the peer has to type. The
mapping that it names is held from then on. Once the peer's ticket is here, from the command line, a paste or a file,
the two try in rounds (`holepunch.rounds`), so nobody has to agree on an instant. Then the stream carries standard input
and output. The private half of this side's key stays in this process, and goes once the peer has proven its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from simopen.cli import code
from simopen.cli.arguments import UsageError, add_instant, add_time_servers, argument, judged, port, window
from simopen.cli.carry import carry, ended
from simopen.cli.console import Screen, countdown, print_json
from simopen.cli.ticket_prompt import Assembled, filed, pasted, terminal, ticket_in
from simopen.errors import Flaw, LinkError, MissedInstant, PunchError, TicketError, WindowClosed
from simopen.holepunch.diagnosis import ago

if TYPE_CHECKING:
    from simopen.clock.source import TimeSource
    from simopen.model.event import Event
    from simopen.ticket.codec import Ticket
    from simopen.ticket.hold import Held

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
_LOOK_S = 0.5
_TICK_S = 0.1
# So long before the instant nothing is drawn any more: it takes some ms with the GIL held, and the shot would wait.
_QUIET_S = 0.3
_PROMPT = "Then paste the line that your peer's `simopen meet` printed, and press Enter:"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `simopen meet` takes."""
    seconds = argument(window)
    parser.add_argument(
        "ticket",
        metavar="CODE|TICKET",
        nargs="?",
        help="the code that the peer's command shows, or - to be asked for it; or the peer's ticket (default: with a "
        "rendezvous, a new code is made; else the ticket is asked for at the terminal)",
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
    parser.add_argument(
        "--spray",
        action="store_true",
        help="where the two NATs leave nothing else, and the peer allows it, too, try very many ports, with up to 450 "
        "SYNs a second for 5 s (default: no)",
    )
    parser.add_argument(
        "--local-port", metavar="N", type=argument(port), help="meet from this port (default: a free one)"
    )
    parser.add_argument(
        "--stun", metavar="HOST[:PORT]", action="append", help="ask this STUN server, over TCP; may be repeated"
    )
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=seconds,
        default="4s",
        help="wait for the servers' answers no longer than this (default: %(default)s)",
    )
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
    theirs = None if options.ticket is None else ticket_in(options.ticket)
    asked = None if theirs is not None or options.stdio is not None else terminal()
    servers = options.stun or DEFAULT_SERVERS
    with judged():
        source = chosen(options.ntp, ask=not options.no_ntp)
        parse_servers(servers)
    async with contextlib.AsyncExitStack() as stack:
        with screen.line("asking what the NATs do ..."):
            at = await learn_the_time(source, screen, options.at)
            held = holding(options.local_port, servers=servers, timeout=options.timeout)
            found = await stack.enter_async_context(held)
        meeting = Meeting(found, source, screen, options)
        await meeting.begin(at)
        theirs = meeting.usable(theirs) if theirs is not None else await meeting.peers(asked)
        reader, writer = await meeting.meet(theirs)
    return await _carry(reader, writer, meeting)


async def _carry(reader: StreamReader, writer: StreamWriter, meeting: Meeting) -> int:
    screen, began_s = meeting.screen, time.monotonic()
    report = writer.get_extra_info("simopen")
    for note in report.notes:
        screen.note(note)
    screen.say(f"{report.summary()}; the clock: {report.clock}")
    screen.say("simopen: proven: the one who made that ticket")
    if sys.stdin.isatty():
        screen.say("simopen: what you type reaches your peer; Ctrl-D ends")
    carried = await carry(reader, writer, screen)
    return ended(meeting.options, screen, {"report": report.as_dict()}, carried, time.monotonic() - began_s)


@dataclass(slots=True)
class Meeting:
    """What is held, by which clock, and this side's tickets, the latest last."""

    found: Held
    source: TimeSource
    screen: Screen
    options: argparse.Namespace
    tickets: list[Ticket] = field(default_factory=list)

    @property
    def mine(self) -> Ticket:
        """What the peer should have."""
        return self.tickets[-1]

    async def begin(self, at: float | None) -> None:
        """Show this side's ticket, for the instant `at` (UTC seconds); None: about two minutes ahead."""
        from simopen.cli.nat_ticket import learn_the_pace

        for note in self.found.notes:
            self.screen.note(note)
        await learn_the_pace(self.found)
        self._issue(at)

    def _issue(self, at: float | None = None) -> None:
        self.tickets.append(self.found.ticket(at, self.source.now_estimate(), spray=self.options.spray))
        line = f"simopen meet {'--spray ' * self.options.spray}{self.mine.encode()}"
        if self.options.json:
            print_json({"ticket": self.mine.encode(), "line": line})
        self.screen.say("Send this line to your peer, and leave this running:\n")
        self.screen.verbatim(line)
        self.screen.say("")

    def _now_s(self) -> float:
        return self.source.now_estimate().utc_ns / 1e9

    def _renew(self) -> bool:
        """Show another ticket where the latest has become useless before anybody answered."""
        moved = self.found.profile.mapped != self.mine.profile.mapped
        over = (self.found.walks or self.options.spray) and self._now_s() > self.mine.instant
        if moved:
            self.screen.say(
                f"simopen: the mapping has changed from {self.mine.profile.mapped} to {self.found.profile.mapped}, so "
                f"that line is of no more use"
            )
        elif over:
            self.screen.say("simopen: that line was good until now: what it foresees is over")
        if moved or over:
            self._issue()
        return moved or over

    async def peers(self, terminal_path: str | None) -> Ticket:
        """The peer's ticket, waited for; the mapping is held, and the line shown anew where it must be."""
        assembled = Assembled()
        async for text in self._texts(terminal_path):
            try:
                return self.usable(assembled.ticket(text))
            except TicketError as error:
                self.screen.say(f"simopen: {error}")
                if terminal_path is not None:
                    self.screen.say(_PROMPT)
        raise UsageError("no ticket of the peer's was given, so nobody was met")

    async def _texts(self, terminal_path: str | None) -> AsyncIterator[str]:
        """What may be the ticket, one after the other."""
        if terminal_path is None:
            async for text in self._in_file(self.options.stdio):
                yield text
            return
        self.screen.say(_PROMPT)
        with pasted(terminal_path) as lines:
            while True:
                try:
                    line = await asyncio.wait_for(lines.get(), _LOOK_S)
                except TimeoutError:
                    if self._renew():
                        self.screen.say(_PROMPT)
                    continue
                if line is None:
                    return
                if line.strip():
                    yield line

    async def _in_file(self, path: Path) -> AsyncIterator[str]:
        seen = ""
        self.screen.say(f"simopen: waiting for the peer's ticket in {path} ...")
        while True:
            text = filed(path)
            if text.strip() and text != seen:
                yield text
            seen = text
            await asyncio.sleep(_LOOK_S)
            self._renew()

    def usable(self, theirs: Ticket) -> Ticket:
        """The ticket, if it can be the peer's. Raises: TicketError for one of this side's own."""
        from simopen.ticket.agreement import session

        if theirs.key in [each.key for each in self.tickets]:
            raise TicketError(Flaw.OWN, "give the one that your peer's `simopen meet` printed")
        session(self.mine, theirs)
        if (late_s := self._now_s() - theirs.instant) > 0:
            self.screen.note(
                f"your peer's ticket was for {datetime.fromtimestamp(theirs.instant, UTC):%Y-%m-%d %H:%M:%S} UTC, "
                f"{ago(round(late_s * 1e9))} ago: it works only if that `simopen meet` has been running since; else "
                f"ask for a new one"
            )
        return theirs

    async def meet(self, theirs: Ticket) -> tuple[StreamReader, StreamWriter]:
        """Try in rounds. Raises: PunchError, the last round's, where the time is over; others at once."""
        from simopen.holepunch.rounds import foreseen, next_round
        from simopen.holepunch.targets import possible
        from simopen.ticket.agreement import both_spray

        mine, spray = self.mine, both_spray(self.mine, theirs)
        pair = await asyncio.to_thread(foreseen, mine, theirs)
        now_s = self._now_s()
        at_ns = round(next_round(pair, now_s) * 1e9)
        found = await asyncio.to_thread(possible, mine.profile, theirs.profile, now_ns=at_ns, spray=spray)
        self.screen.say(f"simopen: plan: {found.why}")
        until_s, rounds = max(now_s, at_ns / 1e9) + self.options.for_s, 0
        while True:
            at = next_round(pair, self._now_s())
            rounds += 1
            try:
                streams = await self._round(theirs, at, rounds, until_s)
            except (WindowClosed, MissedInstant, LinkError) as error:
                self._tell(error)
                if self._now_s() >= until_s or (pair and pair.is_only_try):
                    self.screen.say(
                        f"simopen: not met in {rounds} round{'s' * (rounds > 1)}, {self.options.for_s:g} s: nobody who "
                        f"has made that ticket answered. Is it the one that your peer's `simopen meet` printed last, "
                        f"and does that still run?"
                    )
                    raise
                continue
            return streams

    def _tell(self, error: PunchError) -> None:
        if isinstance(error, LinkError):
            self.screen.note(
                "somebody answers there, and has not proven to be who made that ticket: does your peer have the line "
                f"that was last shown here? ({error})"
            )

    async def _round(self, theirs: Ticket, at: float, number: int, until_s: float) -> tuple[StreamReader, StreamWriter]:
        """One try, while a line shows what it is waiting for."""
        from simopen.holepunch import api
        from simopen.holepunch.rounds import WINDOW_S

        until = f"round {number}, until {datetime.fromtimestamp(until_s, UTC):%H:%M:%S} UTC"
        with Line(self.screen, str(theirs.profile.mapped or "the ticket's owner"), until) as line:
            meeting = asyncio.ensure_future(
                api.connect(
                    theirs,
                    mine=self.mine,
                    at=at,
                    window=WINDOW_S,
                    clock=self.source,
                    on_event=line.on_event,
                )
            )
            try:
                while not meeting.done():
                    line.count_down(at - self._now_s())
                    await asyncio.wait({meeting}, timeout=_TICK_S)
                return await meeting
            finally:
                meeting.cancel()
                await asyncio.gather(meeting, return_exceptions=True)


class Line:
    """The live line of one round: a countdown, then what has happened."""

    _STEPS: ClassVar = {"fired": "SYN out to {}", "up": "{} answered", "verified": "{} is proven"}

    def __init__(self, screen: Screen, whom: str, until: str) -> None:
        self._drawing = screen.line(f"meeting {whom} ({until})")
        self._whom, self._until = whom, until
        self._shown = ""

    def __enter__(self) -> Line:
        self._update = self._drawing.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._drawing.__exit__(*error)

    def count_down(self, left_s: float) -> None:
        """So many seconds are left until the instant."""
        if left_s >= _QUIET_S:
            self._show(f"meeting {self._whom} in {left_s:.0f} s", countdown(left_s))

    def on_event(self, event: Event) -> None:
        """Called at each step."""
        if words := self._STEPS.get(event.step):
            self._show(words.format(self._whom), event.step)

    def _show(self, text: str, step: str) -> None:
        if text != self._shown:
            self._shown = text
            self._update(f"{text} ({self._until})", step)
