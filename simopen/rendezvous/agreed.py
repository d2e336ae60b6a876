"""What two agree on for a round, their common time, a ticket each and the instant; and what of it nobody can mean."""

from __future__ import annotations

import time

from simopen.errors import ClockError, PeerLeft, TicketError
from simopen.model.estimate import Estimate, Reading, Source
from simopen.model.times import MonoNs
from simopen.model.wording import span
from simopen.rendezvous.exchange import Go
from simopen.ticket.codec import END_S, Ticket, check_hosts, parse_ticket

_FAR_NS = 15_000_000_000
"""An instant is set for when both are ready: a second from now at most."""
_ARMING_NS = 30_000_000
_PLANNING_NS = 300_000_000
"""A row of ports takes so long to be foreseen."""


def possible(clock: Estimate) -> Estimate:
    """What tickets have room for. Raises: PeerLeft, ClockError."""
    if 0 <= clock.utc_at(MonoNs(time.monotonic_ns())) < END_S * 10**9:
        return clock
    if clock.source is Source.PEER:
        raise PeerLeft("the peer's time stamps cannot be: is its clock set?")
    raise ClockError("this computer's clock is out of any century: set it, roughly, and try again")


def require_near(left_ns: int) -> None:
    """Raises: PeerLeft for an instant that nobody has who is ready."""
    if left_ns > _FAR_NS:
        raise PeerLeft(f"the peer wants to fire in {span(left_ns / 1e9)}, though both are ready: make a new code")


def parsed(text: str) -> Ticket:
    """The peer's. Raises: PeerLeft."""
    try:
        ticket = parse_ticket(text)
        check_hosts(ticket)
    except TicketError as error:
        raise PeerLeft(f"the peer's ticket cannot be used: {error}") from error
    return ticket


def soon(clock: Estimate, tickets: tuple[Ticket, Ticket], own: Reading) -> Go:
    """As soon as both can: what is said takes half of the least round trip, and a plan may take its time.

    A side that hears of it late fires at once.
    """
    now_ns = clock.utc_at(MonoNs(time.monotonic_ns()))
    bound_ns = clock.bound_ns or 0
    walks = any(each.profile.step is not None or each.spray for each in tickets)
    at_ns = now_ns + bound_ns + _ARMING_NS + walks * _PLANNING_NS
    # By the wall clock as it stood at the beginning: nobody who steps it meanwhile moves what is told.
    difference_ns = clock.utc_at(MonoNs(own.monotonic_ns)) - own.realtime_ns
    return Go(at_ns, difference_ns, bound_ns)
