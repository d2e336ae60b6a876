"""Whom a host can meet, with the NATs that it has: its profile planned against those of typical peers.

Pure. What a typical peer's NAT does is assumed; that it exists is known from any survey of NATs (Ford et al. 2005;
Richter et al. 2016 for the carriers).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from simopen.holepunch.plan import plan
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Allocation, Mapping, Observation, Profile
from simopen.model.shot import Plan
from simopen.model.times import UtcNs

# Documentation addresses (RFC 5737) and a benchmarking one (RFC 2544): no host has them.
_HOST, _PUBLIC, _SERVER = Endpoint("198.18.0.10", 40_000), Endpoint("192.0.2.1", 50_000), "198.51.100.1"
_SEEN = 12  # mappings of a row: as many as `discover` sees


class Prospect(NamedTuple):
    """A kind of peer, whether it can be met, and why, each a phrase."""

    peer: str
    verdict: str
    why: str


@dataclass(frozen=True, slots=True)
class _Peer:
    behind: str
    profile: Profile


@lru_cache(2)
def prospects(profile: Profile) -> tuple[Prospect, ...]:
    """Whom this profile's host can meet; nobody where its public endpoint is unknown.

    The first time it may take 0.1 s of CPU: in a thread, where a loop has more to do.
    """
    if profile.mapped is None or not profile.hosts:
        return ()
    now_ns = UtcNs(max((each.at_ns for each in profile.observations), default=0))
    public = Endpoint("2001:db8::1", 50_000) if ":" in profile.mapped.address else _PUBLIC
    return tuple(_prospect(profile, each, now_ns) for each in _peers(public, now_ns))


def _prospect(profile: Profile, peer: _Peer, now_ns: UtcNs) -> Prospect:
    calm, spraying = (plan(profile, peer.profile, now_ns=now_ns, spray=spray) for spray in (False, True))
    return Prospect(peer.behind, _verdict(calm, spraying), calm.why if calm.shots else spraying.why)


def _verdict(calm: Plan, spraying: Plan) -> str:
    if calm.shots:
        return "perhaps; else with --spray" if calm.sprays else "yes"
    return "with --spray" if spraying.shots else "no"


def _peers(public: Endpoint, now_ns: UtcNs) -> tuple[_Peer, ...]:
    known = Profile(Mapping.ENDPOINT_INDEPENDENT, Allocation.PRESERVING, mapped=public, hosts=(_HOST,), confidence=1.0)
    moving = replace(known, mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM)
    row = replace(moving, allocation=Allocation.SEQUENTIAL, step=1, busy=0.0, observations=_row(public, now_ns))
    return (
        _Peer("a home router, or none", known),
        _Peer("a NAT with ports in a row", row),
        _Peer("a NAT with random ports", moving),
    )


def _row(public: Endpoint, now_ns: UtcNs) -> tuple[Observation, ...]:
    ports = range(public.port - _SEEN + 1, public.port + 1)
    return tuple(Observation(_HOST, Endpoint(_SERVER, port), public._replace(port=port), now_ns) for port in ports)
