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
_TICK_S = 1.0


async def hold(
    found: Discovery,
    source: TimeSource,
    at: float | None,
    screen: Screen,
    show: Callable[[Ticket], None],
    where: Path,
) -> None:
    """Show a ticket, hold its mapping until its window is over, and show another where the mapping changes.

    `at`: the instant, UTC seconds, rounded up to whole ones; None: about two minutes ahead. `where`: the wallet.

    Raises: ValueError for an instant that has passed; SimopenError where the ticket cannot be left for `connect`.
    """
    await _learn_the_time(source, screen)
    ticket = _made(found, source, at)
    while await _went_stale(ticket, found, source, screen, show, where):
        stale, ticket = ticket, _made(found, source, None)
        screen.say(_stale(stale, ticket))
    screen.say("the instant and its window are over; the mapping is let go")


def _stale(before: Ticket, now: Ticket) -> str:
    return (
        f"simopen: the mapping has changed from {before.profile.mapped} to {now.profile.mapped}, so that ticket is of no "
        f"more use: give your peer the new one, and run `simopen connect` anew on both sides"
    )


async def _learn_the_time(source: TimeSource, screen: Screen) -> None:
    bound_s = source.now_estimate().bound_s
    if isinstance(source, FixedClock) or (bound_s is not None and bound_s <= source.limit_s):
        return
    try:
        await source.refresh()
    except ClockError as error:
        screen.say(f"simopen: note: the clock's offset is not known well, and the ticket's times are its own: {error}")


def _made(found: Discovery, source: TimeSource, at: float | None) -> Ticket:
    now = source.now_estimate()
    now_s = now.utc_ns / 1e9
    instant = next_slot(SLOT_S, lead_s=LEAD_S, now=now_s) if at is None else at
    if instant <= now_s:
        raise ValueError("the ticket's instant has passed: name a later one with --at, or leave it out")
    return Ticket(in_utc(found.profile, now.utc_at(0)), math.ceil(instant), found.port)


async def _went_stale(
    ticket: Ticket,
    found: Discovery,
    source: TimeSource,
    screen: Screen,
    show: Callable[[Ticket], None],
    where: Path,
) -> bool:
    """Hold the mapping until nobody needs it any more, or it has changed: then this is True."""
    with wallet.left(ticket, where) as wanted:
        show(ticket)
        with screen.line(_to_do(ticket, source)) as update:
            while _left_s(ticket, source) > -LATE_S or wanted():
                if found.profile.mapped != ticket.profile.mapped:
                    return True
                update(_to_do(ticket, source))
                await asyncio.sleep(_TICK_S)
    return False


def _left_s(ticket: Ticket, source: TimeSource) -> float:
    return ticket.instant - source.now_estimate().utc_ns / 1e9


def _to_do(ticket: Ticket, source: TimeSource) -> str:
    left_s = _left_s(ticket, source)
    if left_s <= 0:
        return "the ticket's instant has come; the mapping is held a little longer"
    return (
        f"give the ticket to your peer, and run `simopen connect PEERS-TICKET` here, in another terminal, before "
        f"{datetime.fromtimestamp(ticket.instant, UTC):%H:%M:%S} UTC, in {left_s:.0f} s; the mapping is held until then"
    )
