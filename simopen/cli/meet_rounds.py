"""What `simopen meet` does from its ticket on: the peer's is waited for, and the two try in rounds until they have met.

Theory of operation: the mapping that the latest ticket names is held, and another ticket is shown where that one has
become useless before anybody answered. With both tickets there is a round at every full ten seconds; `holepunch.rounds`
says when. A file may hold a ticket of an earlier day: it is looked at between the rounds and until one's shots leave,
and what is new there takes the place of what it held before.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simopen.cli.arguments import UsageError, judged
from simopen.cli.console import Screen, print_json
from simopen.cli.round_line import Line
from simopen.cli.ticket_prompt import Assembled, filed, pasted, ticket_in
from simopen.errors import Flaw, ImpossiblePair, LinkError, MissedInstant, SelfConnection, TicketError, WindowClosed
from simopen.holepunch.diagnosis import ago
from simopen.model.times import UtcNs
from simopen.net.aside import aside

if TYPE_CHECKING:
    from simopen.clock.source import TimeSource
    from simopen.holepunch.rounds import Foreseen
    from simopen.ticket.codec import Ticket
    from simopen.ticket.hold import Held

_LOOK_S = 0.5
_TICK_S = 0.1
_AGAIN_S = 2.0
_MOVED_S = 10.0
"""A clock that is put right by more than this in a round leaves it no sense."""
_STILL_S = 1.0
"""So long before a round's instant no file is read any more: it takes the GIL, and the shot would wait."""
_PROMPT = "Waiting for the peer's ticket: paste the line that your peer's `simopen meet` printed, and press Enter:"


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
        until_s = time.monotonic() + self.options.for_s
        pair, planned, rounds, last, lost = None, None, 0, None, None
        while True:
            try:
                if planned is not theirs:
                    pair, planned = await self._planned(theirs), theirs
                at = await self._next(pair)
            except TicketError as error:
                if (newer := await self._replaced(theirs, error, until_s)) is None:
                    raise self._given_up(lost, rounds) or error from None
                theirs = newer
                continue
            if last is None and lost is None:
                until_s = time.monotonic() + max(0.0, at - self._now_s()) + self.options.for_s
            rounds, last, newer = rounds + (at != last), at, None
            try:
                return await self._round(theirs, at, rounds, until_s)
            except _Anew as change:
                last, rounds, newer = None, rounds - 1, change.newer
            except OSError as error:  # a route or an address that is gone for a second, too
                if isinstance(error, (ImpossiblePair, SelfConnection)):
                    raise
                lost = error
                self._tell(error)
                if time.monotonic() >= until_s or (pair and pair.is_only_try and self.options.stdio is None):
                    self._given_up(error, rounds)
                    raise
            self._tell_of_the_mapping()
            if newer := newer or self._newer(theirs):
                theirs = newer
            elif self._now_s() < at:
                await asyncio.sleep(_AGAIN_S)  # it failed before its instant, and may be tried again until then

    async def _planned(self, theirs: Ticket) -> Foreseen | None:
        """What this pair waits for; the plan is told.

        Raises: TicketError for a pair whose only try is over; UsageError for a ticket that no plan can be made of.
        """
        from simopen.holepunch.rounds import foreseen
        from simopen.holepunch.targets import possible
        from simopen.ticket.agreement import both_spray

        mine, spray = self.mine, both_spray(self.mine, theirs)
        with judged():
            pair = await aside(foreseen, mine, theirs)
            at_ns = UtcNs(round(await self._next(pair) * 1e9))
            found = await aside(possible, mine.profile, theirs.profile, now_ns=at_ns, spray=spray)
        self.screen.say(f"simopen: plan: {found.why}")
        return pair

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

    async def _replaced(self, theirs: Ticket, over: TicketError, until_s: float) -> Ticket | None:
        """What comes into the file in the place of a ticket that leaves no try any more; None where nothing does."""
        if self.options.stdio is None:
            return None
        self.screen.say(
            f"simopen: the ticket in {self.options.stdio} is {over.flaw.value}, and these two NATs leave but one try, "
            f"by a spray: waiting for the peer's next ticket there ..."
        )
        while time.monotonic() < until_s:
            if (newer := self._newer(theirs)) is not None:
                return newer
            await asyncio.sleep(_LOOK_S)
        return None

    def _given_up(self, error: OSError | None, rounds: int) -> OSError | None:
        """The error, once it is told what it took."""
        if error is None:
            return None
        told = f"simopen: not met in {rounds} round{'s' * (rounds != 1)}, {self.options.for_s:g} s"
        if isinstance(error, (WindowClosed, MissedInstant, LinkError)):
            told += (
                ": nobody who has made that ticket answered. Is it the one that your peer's `simopen meet` printed "
                "last, and does that still run?"
            )
        self.screen.say(told)
        return error

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
        """One try, while a line shows what it is waiting for. Raises: _Anew where it has lost its sense before."""
        from simopen.holepunch import api
        from simopen.holepunch.rounds import WINDOW_S

        ahead_s = self._ahead_s()
        until = f"round {number}, until {datetime.fromtimestamp(ahead_s + deadline_s, UTC):%H:%M:%S} UTC"
        with Line(self.screen, str(theirs.profile.mapped or "the ticket's owner"), until, at - self._now_s()) as line:
            opening = (self.connect or api.connect)(
                theirs, mine=self.mine, at=at, window=WINDOW_S, clock=self.source, on_event=line.on_event
            )
            meeting = asyncio.ensure_future(_taken_by_both(opening))
            try:
                while not meeting.done():
                    line.count_down(at - self._now_s())
                    await asyncio.wait({meeting}, timeout=_TICK_S)
                    if not (meeting.done() or line.has_fired):
                        self._check(theirs, at, ahead_s)
                return await meeting
            finally:
                meeting.cancel()
                await asyncio.gather(meeting, return_exceptions=True)

    def _check(self, theirs: Ticket, at: float, ahead_s: float) -> None:
        """Raises: _Anew where the instant is another now, or the file has another ticket."""
        if abs(self._ahead_s() - ahead_s) > _MOVED_S:
            raise _Anew
        if at - self._now_s() > _STILL_S and (newer := self._newer(theirs)) is not None:
            raise _Anew(newer)

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


class _Anew(Exception):  # noqa: N818 - says what to do
    """Before a round's shots left, the clock was put right, or the peer's ticket replaced, by `newer`."""

    def __init__(self, newer: Ticket | None = None) -> None:
        super().__init__()
        self.newer = newer
