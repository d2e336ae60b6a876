"""`simopen nat --ticket`: a ticket for the peer, and the mapping held until the two have met.

Theory of operation: the ticket goes to whoever copies it, and lies in the `store` for `simopen connect`, which runs
beside this program on the same port: it listens and fires, this one only keeps its connections to the servers. Both
tickets carry an instant, and the later one counts, so this side's own may pass while a `connect` still waits: as long
as one does, the mapping is held. A mapping that changes before the instant makes the ticket stale, and a new one is
made; where that one goes stale as soon, so would the next, and it ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from simopen.cli.arguments import UsageError
from simopen.cli.console import Screen, countdown
from simopen.clock.instant import Instant
from simopen.clock.source import CHECK_TIMEOUT_S, TimeSource
from simopen.clock.true_time import When, correction, learn, local_note, zone_hint
from simopen.errors import SimopenError
from simopen.model.wording import span
from simopen.ticket import store
from simopen.ticket.agreement import FARTHEST_S, LATE_S
from simopen.ticket.codec import Ticket
from simopen.ticket.hold import LEAD_S, Held

PACE_S = 4.0
"""A row of ports is watched for so long: of the rates that `port_sequence` tells apart, the lowest but none, 2 a
second, would show by then with 99 %."""
_TICK_S = 1.0


async def learn_the_time(
    source: TimeSource, screen: Screen, at: Instant = None, timeout_s: float = CHECK_TIMEOUT_S
) -> float | None:
    """What comes first, as the ticket goes by it. Returns the instant that is meant, UTC seconds; None: none is named.

    `timeout_s`: how long servers are waited for; time servers no longer than usual.

    Raises: UsageError for an instant (`at`) that has passed, or that is years away.
    """
    when = When.told(at, source)
    learnt = await learn(source, source.limit_s, min(timeout_s, CHECK_TIMEOUT_S))
    if learnt.doubt is not None:
        screen.note(f"the clock's offset is not known well, so the ticket goes by it: {learnt.doubt}")
    elif text := correction(learnt.estimate):
        screen.note(text)
    if when.is_now:
        return None
    instant_s = when.utc_ns(learnt.estimate) / 1e9
    _refuse_useless(instant_s, source)
    if text := local_note(when, learnt.estimate):
        screen.note(text)
    return instant_s


def _refuse_useless(at: float | None, source: TimeSource) -> None:
    """Raises: UsageError for an instant that has passed, or that is further away than a ticket may say."""
    if at is None:
        return
    late_s = source.now_estimate().utc_ns / 1e9 - at
    if late_s >= 0:
        hint = f"; {zone_hint(at, late_s)}".removesuffix("; ")
        raise UsageError(f"the ticket's instant has passed: name a later one with --at, or leave it out{hint}")
    if -late_s > FARTHEST_S:
        raise UsageError(f"a ticket's instant is a year away at most, not {span(-late_s)}: name a nearer one with --at")


async def learn_the_pace(found: Held) -> None:
    """Of a row of ports: the peer must foresee where it will be at the instant, minutes from now."""
    if found.walks:
        await found.look_again()
        await asyncio.sleep(PACE_S)
        await found.look_again()


@dataclass(frozen=True, slots=True)
class Invitation:
    """What is held, by which clock; `show` prints a ticket, and `where` it lies for `simopen connect`.

    `spray`: whether its tickets allow a spray.
    """

    found: Held
    source: TimeSource
    screen: Screen
    show: Callable[[Ticket], None]
    where: store.Places
    spray: bool = False

    async def hold(self, at: float | None = None) -> None:
        """Show a ticket, hold its mapping until its window is over, and show another where the mapping changes.

        `at`: the instant, UTC seconds, rounded up to whole ones; None: about two minutes ahead.

        Raises: UsageError for an instant that has passed or is years away; SimopenError where the ticket cannot be
        left in `where`, or the mapping changes sooner than a new ticket could be of use.
        """
        await learn_the_pace(self.found)
        _refuse_useless(at, self.source)
        ticket, is_first = self._made(at), True
        while (lasted_s := await self._went_stale(ticket)) is not None:
            if not is_first and lasted_s < LEAD_S:
                raise SimopenError(_FORGETS.format(lasted_s))
            stale, ticket, is_first = ticket, self._made(None), False
            self.screen.say(
                f"simopen: the mapping has changed from {stale.profile.mapped} to {ticket.profile.mapped}, so that "
                f"ticket is of no more use: give your peer the new one, and run `simopen connect` anew on both sides"
            )

    def _made(self, at: float | None) -> Ticket:
        return self.found.ticket(at, self.source.now_estimate(), spray=self.spray)

    async def _went_stale(self, ticket: Ticket) -> float | None:
        """Hold the mapping until nobody needs it any more (None), or it has changed: after so many seconds."""
        began_s = time.monotonic()
        with store.left(ticket, self.where) as wanted:
            self.show(ticket)
            self.screen.say(_to_do(ticket))
            try:
                changed, was_wanted = await self._watched(ticket, wanted)
            except asyncio.CancelledError:
                self.screen.say("the mapping is let go, and the ticket is void")
                raise
        if changed:
            return time.monotonic() - began_s
        self.screen.say(_END[was_wanted])
        return None

    async def _watched(self, ticket: Ticket, wanted: Callable[[], bool]) -> tuple[bool, bool]:
        """Whether the mapping changed before the instant (later, a new ticket is of no use), and was ever wanted."""
        was_wanted = False
        with self.screen.line(self._left(ticket)) as update:
            while (is_wanted := wanted()) or self._left_s(ticket) > -LATE_S:
                if self._left_s(ticket) > 0 and self.found.profile.mapped != ticket.profile.mapped:
                    return True, was_wanted
                was_wanted |= is_wanted
                update(self._left(ticket), countdown(self._left_s(ticket)))
                await asyncio.sleep(_TICK_S)
        return False, was_wanted

    def _left_s(self, ticket: Ticket) -> float:
        return ticket.instant - self.source.now_estimate().utc_ns / 1e9

    def _left(self, ticket: Ticket) -> str:
        left_s = self._left_s(ticket)
        if left_s <= 0:
            return "this ticket's instant has come; the mapping is held"
        return f"both fire in {left_s:.0f} s ({_time_of(ticket)}) at the earliest; the mapping is held"


_FORGETS = (
    "the mapping has changed again, after {:.0f} s: this NAT seems to forget an idle mapping within that time, so "
    "agree on an instant that is nearer, on both sides: simopen nat --ticket --at +20s"
)
_END = {
    True: "`simopen connect` was run here and is done with the mapping; it is let go",
    False: "no `simopen connect` was seen here in time, and the mapping is let go: if you have not met, start again on "
    "both sides, with more time: simopen nat --ticket --at +5m",
}


def _to_do(ticket: Ticket) -> str:
    return (
        f"1. Send this ticket to your peer; leave this running.\n"
        f"2. In another terminal on this host, before {_time_of(ticket)}: simopen connect PEERS-TICKET"
    )


def _time_of(ticket: Ticket) -> str:
    at = datetime.fromtimestamp(ticket.instant, UTC)
    here = f", {at.astimezone():%H:%M:%S} here" if at.astimezone().utcoffset() else ""
    return f"{at:%H:%M:%S} UTC{here}"
