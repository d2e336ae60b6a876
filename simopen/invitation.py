"""`simopen nat --ticket`: a ticket for the peer, and the mapping held until the two have met.

Theory of operation: the ticket goes to whoever copies it, and lies in the `wallet` for `simopen connect`, which runs
beside this program on the same port: it listens and fires, this one only keeps its connections to the servers. Both
tickets carry an instant, and the later one counts, so this side's own may pass while a `connect` still waits: as long
as one does, the mapping is held. A mapping that changes meanwhile makes the ticket stale, and a new one is made.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from simopen import wallet
from simopen.clock import FixedClock, TimeSource
from simopen.discovery import Discovery
from simopen.errors import ClockError
from simopen.instant import next_slot
from simopen.screen import Screen
from simopen.ticket import LATE_S, Ticket, in_utc

LEAD_S = 120.0
"""Until the instant, unless one is named: two people copy, send and paste a word each."""
SLOT_S = 10
"""The instant is a multiple of this: a time of day that can be said aloud."""
PACE_S = 4.0
"""A row of ports is watched for so long: of the rates that `walk` tells apart, the lowest but none, 2 a second, would
show by then with 99 %."""
_TICK_S = 1.0


@dataclass(frozen=True, slots=True)
class Invitation:
    """What is held, by which clock; `show` prints a ticket, and `where` it lies for `simopen connect`."""

    found: Discovery
    source: TimeSource
    screen: Screen
    show: Callable[[Ticket], None]
    where: Path

    async def hold(self, at: float | None = None) -> None:
        """Show a ticket, hold its mapping until its window is over, and show another where the mapping changes.

        `at`: the instant, UTC seconds, rounded up to whole ones; None: about two minutes ahead.

        Raises: ValueError for an instant that has passed; SimopenError where the ticket cannot be left in `where`.
        """
        await self._learn_the_time()
        await self._learn_the_pace()
        ticket = self._made(at)
        while await self._went_stale(ticket):
            stale, ticket = ticket, self._made(None)
            self.screen.say(
                f"simopen: the mapping has changed from {stale.profile.mapped} to {ticket.profile.mapped}, so that "
                f"ticket is of no more use: give your peer the new one, and run `simopen connect` anew on both sides"
            )
        self.screen.say("the instant and its window are over; the mapping is let go")

    async def _learn_the_time(self) -> None:
        bound_s = self.source.now_estimate().bound_s
        if isinstance(self.source, FixedClock) or (bound_s is not None and bound_s <= self.source.limit_s):
            return
        try:
            await self.source.refresh()
        except ClockError as error:
            self.screen.say(f"simopen: note: the clock's offset is not known well, so the ticket goes by it: {error}")

    async def _learn_the_pace(self) -> None:
        """Of a row of ports: the peer must foresee where it will be at the instant, minutes from now."""
        if self.found.walks:
            await self.found.look_again()
            await asyncio.sleep(PACE_S)
            await self.found.look_again()

    def _made(self, at: float | None) -> Ticket:
        now = self.source.now_estimate()
        now_s = now.utc_ns / 1e9
        instant = next_slot(SLOT_S, lead_s=LEAD_S, now=now_s) if at is None else at
        if instant <= now_s:
            raise ValueError("the ticket's instant has passed: name a later one with --at, or leave it out")
        return Ticket(in_utc(self.found.profile, now.utc_at(0)), math.ceil(instant), self.found.port)

    async def _went_stale(self, ticket: Ticket) -> bool:
        """Hold the mapping until nobody needs it any more, or it has changed: then this is True."""
        with wallet.left(ticket, self.where) as wanted:
            self.show(ticket)
            self.screen.say(_to_do(ticket))
            with self.screen.line(self._left(ticket)) as update:
                while self._left_s(ticket) > -LATE_S or wanted():
                    if self.found.profile.mapped != ticket.profile.mapped:
                        return True
                    update(self._left(ticket))
                    await asyncio.sleep(_TICK_S)
        return False

    def _left_s(self, ticket: Ticket) -> float:
        return ticket.instant - self.source.now_estimate().utc_ns / 1e9

    def _left(self, ticket: Ticket) -> str:
        left_s = self._left_s(ticket)
        return (
            f"the mapping is held; {left_s:.0f} s left" if left_s > 0 else "the instant has come; the mapping is held"
        )


def _to_do(ticket: Ticket) -> str:
    at = datetime.fromtimestamp(ticket.instant, UTC)
    here = f" ({at.astimezone():%H:%M:%S} here)" if at.astimezone().utcoffset() else ""
    return (
        f"give this ticket to your peer, and leave this running; with your peer's ticket, before "
        f"{at:%H:%M:%S} UTC{here}, say on this host, in another terminal:\n  simopen connect PEERS-TICKET"
    )
