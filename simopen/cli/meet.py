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
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simopen.cli import code
from simopen.cli.arguments import UsageError, add_instant, add_time_servers, argument, judged, port, window
from simopen.cli.carry import carry, ended
from simopen.cli.console import Screen, print_json
from simopen.cli.round_line import Line
from simopen.cli.ticket_prompt import Assembled, filed, pasted, terminal, ticket_in
from simopen.errors import Flaw, ImpossiblePair, LinkError, MissedInstant, SelfConnection, TicketError, WindowClosed
from simopen.holepunch.diagnosis import ago

if TYPE_CHECKING:
    from simopen.clock.source import TimeSource
    from simopen.holepunch.rounds import Foreseen
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
_AGAIN_S = 2.0
_MOVED_S = 10.0
"""A clock that is put right by more than this in a round leaves it no sense."""
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
    """What is held, by which clock, and this side's tickets, the latest last.

    `connect`: what tries a round; left out, `api.connect`.
    """

    found: Held
    source: TimeSource
    screen: Screen
    options: argparse.Namespace
    tickets: list[Ticket] = field(default_factory=list)
    connect: Callable[..., Coroutine[Any, Any, tuple[StreamReader, StreamWriter]]] | None = None

    @property
    def mine(self) -> Ticket:
        """What the peer should have."""
        return self.tickets[-1]

    async def begin(self, at: float | None) -> None:
        """Show this side's ticket, for the instant `at` (UTC seconds); None: about two minutes ahead."""
        from simopen.cli.nat_ticket import learn_the_pace

        await learn_the_pace(self.found)
        self._issue(at)

    def _issue(self, at: float | None = None) -> None:
        for note in self.found.notes:
            self.screen.note(note)
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
        pair, at = await self._planned(theirs)
        deadline_s = time.monotonic() + max(0.0, at - self._now_s()) + self.options.for_s
        rounds, last = 0, None
        while True:
            at = await self._next(pair)
            rounds, last = rounds + (at != last), at
            try:
                return await self._round(theirs, at, rounds, deadline_s)
            except _ClockMoved:
                last, rounds = None, rounds - 1
            except OSError as error:  # a route or an address that is gone for a second, too
                if isinstance(error, (ImpossiblePair, SelfConnection)):
                    raise
                self._tell(error)
                if time.monotonic() >= deadline_s or (pair and pair.is_only_try):
                    self._give_up(error, rounds)
                    raise
            self._tell_of_the_mapping()
            if (newer := self._newer(theirs)) is not None:
                theirs, (pair, _) = newer, await self._planned(newer)
            elif self._now_s() < at:
                await asyncio.sleep(_AGAIN_S)  # it failed before its instant, and may be tried again until then

    async def _planned(self, theirs: Ticket) -> tuple[Foreseen | None, float]:
        """What this pair waits for, and its next round's instant; the plan is told.

        Raises: UsageError for a ticket that no plan can be made of.
        """
        from simopen.holepunch.rounds import foreseen
        from simopen.holepunch.targets import possible
        from simopen.ticket.agreement import both_spray

        mine, spray = self.mine, both_spray(self.mine, theirs)
        with judged():
            pair = await asyncio.to_thread(foreseen, mine, theirs)
            at = await self._next(pair)
            at_ns = round(at * 1e9)
            found = await asyncio.to_thread(possible, mine.profile, theirs.profile, now_ns=at_ns, spray=spray)
        self.screen.say(f"simopen: plan: {found.why}")
        return pair, at

    async def _next(self, pair: Foreseen | None) -> float:
        """The next round's instant, UTC seconds, by the best that can be learnt of the time in a moment."""
        from simopen.clock.true_time import LEAST_S, learn
        from simopen.holepunch.rounds import next_round

        await learn(self.source, self.source.limit_s, LEAST_S)
        return next_round(pair, self._now_s())

    def _tell_of_the_mapping(self) -> None:
        if (mapped := self.found.profile.mapped) != self.mine.profile.mapped:
            self.screen.note(
                f"the mapping has changed from {self.mine.profile.mapped} to {mapped}, and your peer fires at the old "
                f"one: if you do not meet, run `simopen meet` anew on both sides"
            )

    def _newer(self, theirs: Ticket) -> Ticket | None:
        """Another ticket that has come into the file since the last look."""
        if self.options.stdio is None:
            return None
        try:
            newer = ticket_in(filed(self.options.stdio))
            return None if newer.key == theirs.key else self.usable(newer)
        except (TicketError, UsageError):  # half of it, or none any more: the one that was taken still counts
            return None

    def _give_up(self, error: OSError, rounds: int) -> None:
        told = f"simopen: not met in {rounds} round{'s' * (rounds != 1)}, {self.options.for_s:g} s"
        if isinstance(error, (WindowClosed, MissedInstant, LinkError)):
            told += (
                ": nobody who has made that ticket answered. Is it the one that your peer's `simopen meet` printed "
                "last, and does that still run?"
            )
        self.screen.say(told)

    def _tell(self, error: OSError) -> None:
        if isinstance(error, LinkError):
            self.screen.note(
                "somebody answers there, and has not proven to be who made that ticket: does your peer have the line "
                f"that was last shown here? ({error})"
            )
        elif not isinstance(error, (WindowClosed, MissedInstant)):
            self.screen.note(f"it is tried again: {error}")

    async def _round(
        self, theirs: Ticket, at: float, number: int, deadline_s: float
    ) -> tuple[StreamReader, StreamWriter]:
        """One try, while a line shows what it is waiting for. Raises: _ClockMoved where the instant is another now."""
        from simopen.holepunch import api
        from simopen.holepunch.rounds import WINDOW_S

        ahead_s = self._ahead_s()
        until = f"round {number}, until {datetime.fromtimestamp(ahead_s + deadline_s, UTC):%H:%M:%S} UTC"
        with Line(self.screen, str(theirs.profile.mapped or "the ticket's owner"), until) as line:
            opening = (self.connect or api.connect)(
                theirs, mine=self.mine, at=at, window=WINDOW_S, clock=self.source, on_event=line.on_event
            )
            meeting = asyncio.ensure_future(_taken_by_both(opening))
            try:
                while not meeting.done():
                    line.count_down(at - self._now_s())
                    await asyncio.wait({meeting}, timeout=_TICK_S)
                    if not (meeting.done() or line.has_fired) and abs(self._ahead_s() - ahead_s) > _MOVED_S:
                        raise _ClockMoved
                return await meeting
            finally:
                meeting.cancel()
                await asyncio.gather(meeting, return_exceptions=True)

    def _ahead_s(self) -> float:
        """What UTC is ahead of CLOCK_MONOTONIC, as far as is known."""
        return self._now_s() - time.monotonic()


async def _taken_by_both(
    opening: Coroutine[Any, Any, tuple[StreamReader, StreamWriter]],
) -> tuple[StreamReader, StreamWriter]:
    """The stream, once the peer has said that it took it, too. Raises: LinkError where it did not."""
    reader, writer = await opening
    try:
        await writer.get_extra_info("simopen_link").answered()
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


class _ClockMoved(Exception):  # noqa: N818 - says what happened
    """The clock was put right before a round's shots left."""
