"""From two profiles to the shots that get through, with the reason in words.

Theory of operation. Both sides know both profiles and the instant, so each works out its own shots such that they meet
the other's. They may meet beside their NATs, by their own addresses, or across these by their public endpoints; how
that can go is `strategies.py`'s. What a profile names that no peer can have is fired at in neither.

Pure: profiles and `now` in, values out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from simopen.holepunch.strategies import Proposal, impossible, name_of, proposed, public
from simopen.model.endpoint import Endpoint, Reach, reach, refusal, spelled
from simopen.model.nat import Mapping, Profile, check, check_time
from simopen.model.shot import Plan, Shot
from simopen.model.times import UtcNs

MOST_HOSTS = 4


@lru_cache(8)  # who tells of a plan before a punch, and the punch, ask for the same one
def plan(ours: Profile, theirs: Profile, *, now_ns: UtcNs, spray: bool = False, by_hosts: bool = False) -> Plan:
    """What this side fires at a peer with that profile. The peer, with the two exchanged, gets the matching plan.

    `now_ns`: when the first SYN will leave, by the clock of the profiles' observations. `spray`: whether hundreds of
    SYNs a second are allowed. `by_hosts`: whether a side that no server saw is tried at its own addresses, private ones
    too, on both sides alike: for a peer that has shown who it is.

    Raises: ValueError for a profile that does not say which port it is of; TypeError or ValueError for one of no
    sense, and for a time of none.
    """
    check_time(now_ns, "now_ns")
    if not ours.hosts or not theirs.hosts:
        raise ValueError("a profile without hosts does not say which port it is of")
    ours, theirs = _spelled(ours), _spelled(theirs)
    near, far = (
        _beside(ours, theirs, unseen=by_hosts and None in (ours.mapped, theirs.mapped)),
        _across(ours, theirs, now_ns, spray=spray),
    )
    return _plan(_both_ways(near, far), ours, theirs)


def _spelled(profile: Profile) -> Profile:
    """With each endpoint in its one spelling, as whoever made it may have written it otherwise.

    Raises: as `check`; TypeError or ValueError for what is no IP address and port.
    """
    check(profile)
    hosts = tuple(spelled(host, "a profile's") for host in profile.hosts)
    mapped = None if profile.mapped is None else spelled(profile.mapped, "a profile's")
    return replace(profile, hosts=hosts, mapped=mapped)


def _both_ways(near: Proposal, far: Proposal) -> Proposal:
    """The near one first, as far as there is any, and the far one side by side with it."""
    if not near.ours or not far.ours:
        return near if near.ours else far
    ours, theirs = near.ours + far.ours, near.theirs + far.theirs
    return Proposal(ours, theirs, f"{near.why}; else, {far.why}", max(near.chance, far.chance), far.sprays)


def _plan(found: Proposal, ours: Profile, theirs: Profile) -> Plan:
    several = min(len(found.ours), len(found.theirs)) > 1
    chooses = name_of(ours) < name_of(theirs) if several else None
    return Plan(found.ours, found.why, found.chance, chooses, found.sprays, tuple(_left_out(theirs)))


def _left_out(theirs: Profile) -> Iterator[str]:
    """What no peer can mean. Private addresses are in most tickets, and only sometimes of use."""
    for host in dict.fromkeys(theirs.hosts):
        if (why := refusal(host, Reach.SITE)) is not None:
            yield f"{host} left out: the peer's profile names {why}"


def _beside(ours: Profile, theirs: Profile, *, unseen: bool) -> Proposal:
    """By the sides' own addresses: over IPv6 where both have it, and where both have, or may have, one public one."""
    why = []
    if six := all(any(map(_is_global6, profile.hosts)) for profile in (ours, theirs)):
        why.append("both have IPv6, where nothing is translated")
    if unseen:
        why.append("no STUN server saw both sides, so they are tried at their own addresses")
    if seen_at_one_address(ours, theirs):
        why.append("both have one public address, so they may be in one network")
    at_theirs, at_ours = _named(ours, theirs, six=six, unseen=unseen), _named(theirs, ours, six=six, unseen=unseen)
    if not (at_theirs and at_ours):
        return impossible("neither side's own addresses are of use")
    return Proposal(at_theirs, at_ours, "; ".join(why), 0.5 if unseen and not six else 0.9)


def _named(one: Profile, other: Profile, *, six: bool, unseen: bool) -> tuple[Shot, ...]:
    """One side's shots at the other's own addresses. `six`: over IPv6, from wherever.

    Where a side is unseen, there is no way across, so the public endpoint of the one that was seen is tried here: a
    directly reachable host meets it there. Nor can anybody say that they are in different networks: private addresses
    are tried, as ICE does with host candidates (RFC 8445 §6.1.2).
    """
    beside = unseen or seen_at_one_address(one, other)
    crosses = not unseen and None not in (one.mapped, other.mapped) and public(one).family == public(other).family
    known = {*one.hosts, other.mapped} if crosses else {*one.hosts}
    ends = [other.mapped, *other.hosts] if unseen and other.mapped else other.hosts
    hosts = (host for host in dict.fromkeys(ends) if host not in known and refusal(host, Reach.SITE) is None)
    wanted = [host for host in hosts if beside or (six and _is_global6(host))]
    return tuple(Shot(one.hosts[0].port, host) for host in wanted[:MOST_HOSTS])


def _is_global6(host: Endpoint) -> bool:
    return ":" in host.address and reach(host.address) is Reach.GLOBAL


def _nearest(one: Profile, other: Profile) -> Reach:
    """How near to `one` the other side can be: in the network that both are seen from, or beyond it.

    Where the servers saw `one` at a private address, it met them inside of that network, and can meet the peer there.
    """
    inside = seen_at_one_address(one, other) or reach(public(one).address) is Reach.SITE
    return Reach.SITE if inside else Reach.GLOBAL


def _across(ours: Profile, theirs: Profile, now_ns: UtcNs, *, spray: bool) -> Proposal:
    """By the public endpoints."""
    for profile, whose in ((ours, "this side's"), (theirs, "the peer's")):
        if profile.mapped is None:
            return impossible(f"nobody saw {whose} public endpoint")
    for one, other, whose in ((theirs, ours, "this side's"), (ours, theirs, "the peer's")):
        if (why := refusal(public(other), _nearest(one, other))) is not None:
            return impossible(f"{whose} public endpoint is said to be {public(other)}: that is {why}")
    if public(ours).family != public(theirs).family:
        return impossible("one side is reached over IPv4 only, the other over IPv6 only")
    translated = Mapping.NONE not in (ours.mapping, theirs.mapping)
    if translated and seen_at_one_address(ours, theirs) and False in (ours.hairpinning, theirs.hairpinning):
        return impossible("both are behind one NAT, and it does not let its hosts meet at its public address")
    return proposed(ours, theirs, now_ns, spray=spray)


def seen_at_one_address(ours: Profile, theirs: Profile) -> bool:
    """Whether both may be in one network, or on one host: by what the servers, or the peer, said."""
    return None not in (ours.mapped, theirs.mapped) and public(ours).address == public(theirs).address


def may_be_one_host(ours: Profile, theirs: Profile) -> bool:
    """Whether two sides of which one was not seen have the same own addresses: one of them may be bound to a few."""
    one, other = ({host.address for host in profile.hosts if "%" not in host.address} for profile in (ours, theirs))
    return None in (ours.mapped, theirs.mapped) and (one <= other or other <= one)
