"""Whom a punch fires at, and from where: what the caller named, or what two profiles call for.

Theory of operation: names are looked up, or a plan is made; then whom this host cannot reach, or must not, is left out
with a note, and what is left is counted, where somebody else than the user named it. Nothing is sent here but a
question to a name server; `api` decides when to fire, `runner` fires.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from socket import AF_INET6, EAI_AGAIN, gaierror, getaddrinfo

from simopen import _logs
from simopen.clock.source import TimeSource
from simopen.clock.true_time import When
from simopen.errors import ImpossiblePair, LocalEndpointError, PunchError, ResolutionError
from simopen.holepunch.budget import most_at_once, opened_first, rationed
from simopen.holepunch.diagnosis import impossible
from simopen.holepunch.pair import self_connection
from simopen.holepunch.plan import may_be_one_host, plan, seen_at_one_address
from simopen.model.endpoint import (
    ANY,
    Endpoint,
    Local,
    Peer,
    Reach,
    is_single,
    literal,
    local_endpoint,
    peer_endpoints,
    reach,
)
from simopen.model.nat import Profile
from simopen.model.outcome import passes
from simopen.model.report import MOST_TOLD
from simopen.model.shot import Plan, Shot
from simopen.model.times import NEVER, MonoNs, UtcNs
from simopen.model.wording import FEW, listed, quoted
from simopen.net.aside import aside
from simopen.net.resolve import Ask, Resolved, resolved
from simopen.net.routes import NO_WAY, is_own, source_address
from simopen.net.sockets import make_room, open_socket, sockaddr

logger = _logs.PACKAGE

# What a name server cannot tell at the moment it may tell soon: while the network comes up, say.
_RETRY_S = 0.5
LOOK_UP_S = 30.0
"""What a resolver may take for a name: it asks each of three servers twice, for 5 s (resolv.conf(5))."""
FEWEST_REPEATED = 4
"""SYNs that a plan may repeat after RSTs, where it sprays."""


@dataclass(frozen=True, slots=True)
class Order:
    """When, for how long, and by which clock."""

    when: When
    window_ns: int
    clock: TimeSource

    def until_end_s(self) -> float:
        """How long the window is still open, as far as is known now; at least as long as it is."""
        estimate = self.clock.now_estimate()
        to_instant_ns = 0 if self.when.is_now else self.when.utc_ns(estimate) - estimate.utc_ns
        return (max(0, to_instant_ns) + self.window_ns) / 1e9


@dataclass(frozen=True, slots=True)
class Aim:
    """What is fired, and from where; `plan` says why, where profiles decided that.

    `names`: the (host, port) pairs that the caller gave, where a name is among them; `asked_ns`: when they were looked
    up (CLOCK_MONOTONIC), and `look_up` by what.
    """

    local: tuple[str | None, int]
    shots: tuple[Shot, ...]
    notes: tuple[str, ...] = ()
    chooses: bool | None = None
    plan: str | None = None
    spray: bool | None = None
    mine: Profile | None = None
    names: tuple[tuple[str, int], ...] = ()
    asked_ns: MonoNs = NEVER
    look_up: Ask = getaddrinfo

    @property
    def peers(self) -> tuple[Endpoint, ...]:
        """The endpoints to name to people."""
        return tuple(dict.fromkeys(shot.remote for shot in self.shots))[: None if self.plan is None else MOST_TOLD]


async def named(peer: Peer, local: Local, order: Order) -> Aim:
    """One shot for each endpoint that the caller named."""
    pairs = peer_endpoints(peer)
    bound = local_endpoint(local, pairs[0][1])
    names = pairs if any(literal(host) is None for host, _ in pairs) else ()
    found = await looked_up(pairs, order.until_end_s())
    shots, notes = reachable(tuple(Shot(bound[1], each) for each in found.endpoints), bound[0])
    return Aim(bound, shots, found.notes + notes, names=names, asked_ns=MonoNs(time.monotonic_ns()))


async def looked_up(pairs: Sequence[tuple[str, int]], left_s: float, ask: Ask = getaddrinfo) -> Resolved:
    """The endpoints of these names, asked for until there is an answer, or for as long as one can be used.

    Raises:
        ResolutionError: a name has no address, or nobody told it in time.
    """
    names = dict.fromkeys(quoted(host) for host, _ in pairs if literal(host) is None)
    timeout_s = min(left_s, LOOK_UP_S)
    vain: list[ResolutionError] = []
    try:
        async with asyncio.timeout(timeout_s if names else None):  # for addresses nobody is asked, and none is late
            found = await _resolved_patiently(pairs, ask, vain)
    except TimeoutError as error:
        if vain:
            raise vain[-1] from vain[-1].__cause__
        raise ResolutionError(
            f"no name server told the address of {listed(names, ', ')} within {timeout_s:.1f} s; is the network up? Or "
            f"give an IP address"
        ) from error
    logger.info("to fire at: %s", listed(found.endpoints, ", "))
    return found


async def planned(theirs: Profile, mine: Profile, order: Order, *, spray: bool, known: Plan | None = None) -> Aim:
    """The shots that the two profiles call for; `known`: these, worked out already for a peer that has shown who it is.

    Worked out in a thread, long before the instant: a row of ports takes up to 0.3 s (measured).
    """
    estimate = order.clock.now_estimate()
    now_ns = estimate.utc_ns if order.when.is_now else order.when.utc_ns(estimate)
    found = known if known is not None else await aside(possible, mine, theirs, now_ns=now_ns, spray=spray)
    logger.info("plan: %d shots: %s", len(found.shots), found.why)
    beside = seen_at_one_address(mine, theirs) or (known is not None and may_be_one_host(mine, theirs))
    shots, notes = reachable(found.shots, None, strangers=not beside)
    make_room(most_at_once(shots))
    sprayed = spray if found.sprays else None
    notes = found.notes + notes
    return Aim((None, mine.hosts[0].port), shots, notes, found.chooses, found.why, sprayed, mine)


async def _resolved_patiently(pairs: Sequence[tuple[str, int]], ask: Ask, vain: list[ResolutionError]) -> Resolved:
    """As `resolved`, again and again where no name server can tell at the moment, until cancelled: see `vain` then."""
    while True:
        try:
            return await resolved(pairs, ask=ask)
        except ResolutionError as error:
            if not (isinstance(error.__cause__, gaierror) and error.__cause__.errno == EAI_AGAIN):
                raise
            vain.append(error)
        await asyncio.sleep(_RETRY_S)


def budgeted(aim: Aim, hops: int | None) -> tuple[tuple[Shot, ...], int | None, int]:
    """What is fired, first shots of so many hops included; how many SYNs may follow; and how often the kernel resends.

    What the user named is the user's will. Whom a ticket or a name server names may be anybody: so that is counted.
    """
    shots = aim.shots if hops is None else opened_first(aim.shots, hops)
    if aim.plan is None and not aim.names:
        return shots, None, 0
    return (shots, FEWEST_REPEATED, 0) if aim.spray else rationed(shots)


def possible(ours: Profile, theirs: Profile, *, now_ns: UtcNs, spray: bool, by_hosts: bool = False) -> Plan:
    """`plan`, where it has any shots. Raises: ImpossiblePair where it has none; ValueError as `plan` does."""
    found = plan(ours, theirs, now_ns=now_ns, spray=spray, by_hosts=by_hosts)
    if not found.shots:
        why = f"these two NATs leave no way: {found.why}"
        raise ImpossiblePair(why, diagnosis=impossible(why, sprays=found.sprays))
    return found


def reachable(
    shots: Sequence[Shot], bound: str | None, *, strangers: bool = False
) -> tuple[tuple[Shot, ...], tuple[str, ...]]:
    """The shots that this host can fire from the address `bound`, and notes on the endpoints that it cannot fire at.

    `strangers`: the endpoints are the word of somebody in another network, who cannot mean this host.
    """
    routes = {
        address: _route(remote, bound)
        for address, remote in {shot.remote.address: shot.remote for shot in shots}.items()
    }
    if strangers:
        routes = {address: _OWN if is_own(address) else route for address, route in routes.items()}
    own = _own_ends(shots, bound)
    ends = dict.fromkeys(shot.remote for shot in shots)
    refusals = {end: routes[end.address].refused or own.get(end) for end in ends}
    kept = tuple(shot for shot in shots if refusals[shot.remote] is None)
    notes = tuple(_refused(refusals, others=bool(kept)))
    if not kept:
        raise _nothing_left(notes, routes.values(), next((shot for shot in shots if shot.remote in own), None), bound)
    return kept, notes


def _refused(refusals: dict[Endpoint, str | None], *, others: bool) -> Iterator[str]:
    """One note a reason. Where no others remain, nothing is left out."""
    by_reason = defaultdict(list)
    for remote, reason in refusals.items():
        by_reason[reason].append(remote)
    for reason, remotes in by_reason.items():
        told = listed(remotes, ", ", FEW)
        if reason is not None:
            yield f"{told} left out: {reason}" if others else f"cannot fire at {told}: {reason}"


def _nothing_left(notes: Sequence[str], routes: Iterable[_Route], own: Shot | None, bound: str | None) -> PunchError:
    why = "; ".join(notes)
    if local := next((route.error for route in routes if route.error is not None), None):
        return local
    if _OWN in routes:
        return ImpossiblePair(why, diagnosis=impossible(why))
    if own is not None:
        local_end = (bound or ANY[own.remote.family], own.local_port)
        open_socket(local_end, own.remote.family).close()  # a port that cannot be had is the nearer reason
        return self_connection(own.remote)
    return ResolutionError(why)


def _own_ends(shots: Sequence[Shot], bound: str | None) -> dict[Endpoint, str]:
    """Whom a shot's own listener, or the very socket that fires it, would answer."""
    ports = {shot.local_port for shot in shots}
    ends = dict.fromkeys(shot.remote for shot in shots if shot.remote.port in ports)
    mine = [end for end in ends if (is_own(end.address) if bound in (None, ANY[end.family]) else end.address == bound)]
    return dict.fromkeys(mine, "it is this host's own endpoint: the socket would be connected to itself")


@dataclass(frozen=True, slots=True)
class _Route:
    """Why this host cannot fire at an address from the one that it is to fire from; None where it can."""

    refused: str | None = None
    error: LocalEndpointError | None = None


_OWN = _Route("it is this host's own address, and the peer is not seen at the same public address as this host")


def _route(peer: Endpoint, bound: str | None) -> _Route:
    if (why := _unfit(peer, bound)) is not None:
        return _Route(why)
    try:
        reached = source_address(peer, bound) is not None
        if reached or (bound is not None and source_address(peer, None) is not None):
            return _Route()
    except LocalEndpointError as error:
        # Where nobody can be asked at the moment, the shots will tell.
        return _Route() if passes(error.errno or 0, had=True) else _Route(str(error), error)
    version = 6 if peer.family == AF_INET6 else 4
    return _Route(f"{NO_WAY}; is the network up, and does it carry IPv{version}?")


def _unfit(peer: Endpoint, bound: str | None) -> str | None:
    if not is_single(peer.address):
        return "that is no single host's address"
    if bound is not None and Endpoint(bound, peer.port).family != peer.family:
        return f"the local address {bound} is of the other address family"
    if peer.family == AF_INET6 and reach(peer.address) is Reach.LINK and "%" not in peer.address:
        return "a link-local address must say on which of this host's links, as in fe80::1%eth0"
    with contextlib.suppress(ResolutionError):
        sockaddr(peer)
        return None
    return "this host has no interface of that name"
