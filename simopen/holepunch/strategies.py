"""How two NATs can be passed, by whether each side's next public endpoint is known, predictable or unpredictable.

Theory of operation. A side's public endpoint, as its peer will see it, is one of three things (`Candidate`):

- *known*: nothing is translated, or one mapping serves all destinations. Or new mappings keep the local port, or a
  constant distance to it: then a local port that has no mapping yet shows what its public port will be.
- *predictable*: each destination gets a mapping of its own, and the next ports can be told from the last
  (`nat.predict`).
- *unpredictable*: each destination gets a mapping of its own at a port that nobody can tell.

Known × known: the SYNs cross. Known × predictable: the known side fires at the likeliest next ports.

Predictable × predictable: a shot must leave from the port that the other aims at, and be aimed at the port that the
other leaves from, and neither is certain. So each side fires VOLLEY shots from as many local ports, all aimed at one
port: the one that the other side's volley most likely takes. Others who take ports meanwhile only shift the volley; it
meets unless somebody takes that very port or the shift exceeds the volley. Each round of it predicts anew, from the
mappings that the rounds before have used up.

Known × unpredictable: the SYN of the unpredictable side gets in through the known side's listener, where that NAT asks
for no more than the address. Where it asks for the port, too, there is the spray (birthday paradox): the unpredictable
side fires from SPRAY_PORTS local ports, so as many mappings await the known side, which fires from one port at up to
SPRAY_SHOTS random ones. Of 64,512 ports, n shots miss all with (1 - 256 / 64,512)^n: 1 % after 1,160 shots, 0.03 %
after 2,048. That works since one mapping carries all n shots; a predictable side whose mapping depends on the address
alone can do it as well, from the port that was predicted.

Where each destination *port* costs the sprayer a new mapping, it does not. Shot i leaves from a port of its own, to
which only some of the other side's shots are aimed: of m shots in all, m pairs can meet (not n × m), each with 1 chance
in 64,512: 2,048 shots meet with 3 %. Unpredictable × unpredictable has both ports to guess: 2^32. Both are refused.

Filtering is unknown as a rule, since no STUN server connects back. A known side is tried as if it let addresses in, and
sprayed at later; of one whose mappings depend on the destination, the strictest is assumed.

Pure: profiles and `now` in, values out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain
from math import prod
from random import Random
from typing import NamedTuple, TypeAlias

from simopen.holepunch.budget import SPRAY_INTERVAL_NS
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Allocation, Filtering, Mapping, Profile
from simopen.model.shot import Shot
from simopen.model.times import UtcNs
from simopen.nat.predict import foresee

VOLLEY, ROUNDS, ROUND_NS = 8, 7, 400_000_000
AS_GOOD = 0.05
FEWEST_GUESSES, MOST_GUESSES, COVERED = 8, 48, 0.999
LEAST_FORESEEN = 0.05
"""Where all that is foreseen is less likely than this, it is as good as nothing."""
FRESH, FRESH_APART = 4, 98
"""Local ports tried where each keeps its number, as somebody may have one of them already; away from those that the
punch port's further mappings took next to it, and of its parity."""
SPRAY_PORTS, SPRAY_SHOTS = 256, 2048
SPRAY_AFTER_NS = 500_000_000
"""What the listener gets first: most filters let it catch the stream in 1.5 round trips, with one SYN."""
GUESS_LASTS_NS = 700_000_000
"""A guess is given up before the kernel sends it again, after 1 s, though this process be late by some of that."""
AWAITED_NS = SPRAY_SHOTS * SPRAY_INTERVAL_NS + GUESS_LASTS_NS
"""What awaits the random shots is kept until the last of them: a NAT that tracks connections, as Linux does, lets no
SYN-ACK pass but the same socket's, since a listener's has another sequence number."""
DISCARD = 9
"""A port that no NAT gives out (RFC 863's), to open one's own filter for an address: at a port that the peer's NAT once
gave out, a lenient one would let this SYN in, in the middle of the peer's."""
SPRAY_AIMS = 3
_PORTS = range(1024, 65_536)
_LENIENT = {Filtering.ENDPOINT_INDEPENDENT, Filtering.ADDRESS_DEPENDENT}
_OF_OWN = {Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT}
_KEEPING = {Allocation.PRESERVING, Allocation.CONSTANT_DELTA}


@dataclass(frozen=True, slots=True)
class Candidate:
    """How the peer will see one side. `known`: local ports and their public endpoints; empty where they cannot be told.

    `likely[k]`: the chance of each public port for the mapping after k others of the volleys; empty where nobody can
    say.
    """

    profile: Profile
    port: int
    known: tuple[tuple[int, Endpoint], ...]
    likely: tuple[dict[int, float], ...]

    @property
    def address(self) -> str:
        return public(self.profile).address

    @property
    def fixed(self) -> bool:
        """Whether one public endpoint serves all of the peer's ports."""
        return bool(self.known) and self.profile.mapping not in _OF_OWN

    @property
    def unpredictable(self) -> bool:
        """Whether nobody can say where it will be seen."""
        return not (self.known or self.likely)

    @property
    def lenient(self) -> bool:
        """Whether it lets in who was called, from any port."""
        return self.profile.filtering in _LENIENT

    @property
    def guessed_lenient(self) -> bool:
        """Whether it is worth trying as if it did."""
        return self.fixed and self.profile.filtering is Filtering.UNKNOWN

    @property
    def by_address(self) -> bool:
        """Whether one mapping serves all of the peer's ports."""
        return self.profile.mapping is Mapping.ADDRESS_DEPENDENT

    def source(self, most: int) -> tuple[int, tuple[Endpoint, ...]]:
        """A local port, and where its first SYN to the peer will be seen: at most so many guesses."""
        if self.known:
            return self.known[0][0], (self.known[0][1],)
        ports = _most_likely(self.likely[0])[:most]
        return self.port, tuple(Endpoint(self.address, each) for each in ports)


@dataclass(frozen=True, slots=True)
class Proposal:
    """What both sides fire, ours first."""

    ours: tuple[Shot, ...]
    theirs: tuple[Shot, ...]
    why: str
    chance: float
    sprays: bool = False


def public(profile: Profile) -> Endpoint:
    """Where servers saw it, which somebody has made sure of."""
    assert profile.mapped is not None
    return profile.mapped


def name_of(profile: Profile) -> tuple[Endpoint, tuple[Endpoint, ...]]:
    """What tells the two sides apart, alike on both."""
    return (profile.mapped or Endpoint("", 0), profile.hosts)


def impossible(why: str, *, sprays: bool = False) -> Proposal:
    """No shots. `sprays`: there would be, if a spray were allowed."""
    return Proposal((), (), why, 0.0, sprays)


def proposed(ours: Profile, theirs: Profile, now_ns: UtcNs, *, spray: bool) -> Proposal:
    """How two sides whose public endpoints were seen meet by these; no shots where they cannot."""
    near, far = _candidate(ours, _ahead(theirs), now_ns), _candidate(theirs, _ahead(ours), now_ns)
    return _best_of(near, far, spray=spray)


def _ahead(other: Profile) -> int:
    """How many mappings it takes to meet that side: volleys of them, unless it waits at one endpoint."""
    return VOLLEY * ROUNDS if other.mapping in _OF_OWN else 1


def _best_of(ours: Candidate, theirs: Candidate, *, spray: bool) -> Proposal:
    if ours.known and theirs.known:
        return _crossing(ours, theirs)
    if (ours.fixed and theirs.likely) or (theirs.fixed and ours.likely):
        return _mirrored(_guessing, ours, theirs, theirs.fixed)
    if (ours.known or ours.likely) and (theirs.known or theirs.likely):
        return _volleys(ours, theirs)
    return _at_unpredictable(ours, theirs, spray=spray)


def _candidate(profile: Profile, ahead: int, now_ns: UtcNs) -> Candidate:
    port, seen = profile.hosts[0].port, public(profile)
    if profile.mapping not in _OF_OWN:
        return Candidate(profile, port, ((port, seen),), ())
    if profile.allocation in _KEEPING:
        fresh = [_port(port, FRESH_APART * number) for number in range(1, FRESH + 1)]
        delta = profile.delta or 0
        return Candidate(profile, port, tuple((each, seen._replace(port=_port(each, delta))) for each in fresh), ())
    return Candidate(profile, port, (), _likely(profile, ahead, now_ns))


@lru_cache(2)  # of two sides, for both of whom the plan is made, or with a spray and without one
def _likely(profile: Profile, ahead: int, now_ns: UtcNs) -> tuple[dict[int, float], ...]:
    """As far ahead as anything can be foreseen: of a busy row, nothing soon."""
    if profile.allocation is not Allocation.SEQUENTIAL:
        return ()
    return foresee(profile, now_ns, ahead, LEAST_FORESEEN)


def _port(port: int, distance: int) -> int:
    """`distance` ports on, round the circle of those above 1023."""
    return _PORTS[(port + distance - _PORTS.start) % len(_PORTS)]


_Strategy: TypeAlias = Callable[[Candidate, Candidate], Proposal]


def _mirrored(strategy: _Strategy, ours: Candidate, theirs: Candidate, turned: bool) -> Proposal:
    """`strategy(ours, theirs)`; where `turned`, worked out from the peer's side and turned round."""
    if not turned:
        return strategy(ours, theirs)
    found = strategy(theirs, ours)
    return replace(found, ours=found.theirs, theirs=found.ours)


def _sure(*candidates: Candidate) -> float:
    """The chance that both sides' classes are right; one that is UNKNOWN is as good as a coin."""
    chances = (0.5 if one.profile.mapping is Mapping.UNKNOWN else one.profile.confidence for one in candidates)
    return prod(chances)


def _crossing(ours: Candidate, theirs: Candidate) -> Proposal:
    """Each of one side's endpoints at one of the other's: where it keeps the port, only for a single destination."""
    pairs = [(ours.known[n % len(ours.known)], theirs.known[n % len(theirs.known)]) for n in range(FRESH)]
    pairs = list(dict.fromkeys(pairs))
    why = "both public endpoints are known, so the SYNs cross"
    if len(pairs) > 1:
        why = "a new mapping keeps the local port's number, so both public endpoints are known, and the SYNs cross"
    ours_at, theirs_at = zip(*((Shot(a, f), Shot(b, e)) for (a, e), (b, f) in pairs), strict=True)
    return Proposal(ours_at, theirs_at, why, _sure(ours, theirs))


def _guessing(fixed: Candidate, other: Candidate) -> Proposal:
    """One side's SYN leaves from a port that the other foresees."""
    (port, endpoint), chances = fixed.known[0], other.likely[0]
    ports = _most_likely(chances)
    covered = sum(chances[each] for each in ports)
    why = f"one side's next port can be told from its last, {covered:.0%} surely by {len(ports)} guesses"
    aimed = tuple(_guess(port, Endpoint(other.address, each)) for each in ports)
    return Proposal(aimed, (Shot(other.port, endpoint),), why, _sure(fixed, other) * min(1.0, covered))


def _most_likely(chances: dict[int, float]) -> list[int]:
    """The likeliest ports, as many as it takes to cover nearly all that can be foreseen."""
    covered, enough = 0.0, COVERED * sum(chances.values())
    ports = []
    for port in sorted(chances, key=lambda port: -chances[port])[:MOST_GUESSES]:
        ports.append(port)
        covered += chances[port]
        if covered >= enough and len(ports) >= FEWEST_GUESSES:
            break
    return ports


def _volleys(ours: Candidate, theirs: Candidate) -> Proposal:
    """Rounds of volleys, each side's at the port that the other's most likely takes."""
    count = min(ROUNDS, *(-(-len(one.likely) // VOLLEY) for one in (ours, theirs) if one.likely))
    rounds = [(_volley(ours, number), _volley(theirs, number)) for number in range(count)]
    mine = (_fired(one, other, number) for number, (one, other) in enumerate(rounds))
    its = (_fired(other, one, number) for number, (one, other) in enumerate(rounds))
    missed = prod(1 - one.chance * other.chance for one, other in rounds)
    why = "each side's next ports can be told from its last, so volleys of SYNs meet at the likeliest"
    shots = tuple(chain.from_iterable(mine)), tuple(chain.from_iterable(its))
    return Proposal(*shots, why, _sure(ours, theirs) * (1 - missed))


class _Volley(NamedTuple):
    """One round of one side: the local ports, the public endpoint that one of them most likely has, and how likely."""

    ports: tuple[int, ...]
    at: Endpoint
    chance: float


def _volley(one: Candidate, number: int) -> _Volley:
    if one.known:  # it keeps the port for one destination, so there is one local port for each round
        port, at = one.known[number % len(one.known)]
        return _Volley((port,), at, 1.0)
    taken: Counter[int] = Counter()
    for chances in one.likely[number * VOLLEY : (number + 1) * VOLLEY]:
        taken.update(chances)
    best = max(taken.values())
    # In the middle of those that are as good: what nobody saw may have moved the row a little, either way.
    begun = public(one.profile).port
    good = sorted((port for port in taken if taken[port] >= best - AS_GOOD), key=lambda port: _behind(begun, port))
    port = good[len(good) // 2]
    chance = taken[port]
    return _Volley(_ports_of(one.port, number * VOLLEY, VOLLEY), Endpoint(one.address, port), min(1.0, chance))


def _behind(begun: int, port: int) -> int:
    return (port - begun) % len(_PORTS)


def _ports_of(port: int, first: int, count: int) -> tuple[int, ...]:
    """Local ports of the punch port's parity (RFC 4787 §4.2.2), itself the first."""
    return tuple(_port(port, 2 * number) for number in range(first, first + count))


def _fired(one: _Volley, other: _Volley, number: int) -> tuple[Shot, ...]:
    return tuple(_guess(port, other.at, number * ROUND_NS) for port in one.ports)


def _at_unpredictable(ours: Candidate, theirs: Candidate, *, spray: bool) -> Proposal:
    """At least one side's port cannot be told; the other one tries, or, where both are unpredictable, one of them."""
    if ours.unpredictable and theirs.unpredictable:
        turned = (ours.lenient, name_of(ours.profile)) > (theirs.lenient, name_of(theirs.profile))
    else:
        turned = ours.unpredictable
    return _mirrored(partial(_reaching, spray=spray), ours, theirs, turned)


def _reaching(trier: Candidate, other: Candidate, *, spray: bool) -> Proposal:
    """What lets the unpredictable side in: the trier's listener, else the spray."""
    caught = _caught(trier, other)
    source = _spray_source(trier, other)
    if source is None:
        return caught or impossible(_HOPELESS[trier.unpredictable])
    if not spray:
        return replace(caught, sprays=True) if caught else impossible(f"{_odds(source)}: allow the spray", sprays=True)
    sprayed = _sprayed(trier, other, source, SPRAY_AFTER_NS if caught else 0)
    if caught is None:
        return sprayed
    ours, theirs = caught.ours + sprayed.ours, caught.theirs + sprayed.theirs
    return Proposal(ours, theirs, f"{caught.why}; else, {sprayed.why}", sprayed.chance, sprays=True)


_HOPELESS = {
    True: "both sides' public ports differ for each destination and cannot be told: 2^32 pairs of them to guess",
    False: "one side's public ports cannot be told, and each guess at them would cost the other side a new port",
}


def _caught(trier: Candidate, other: Candidate) -> Proposal | None:
    """The trier's own SYN opens its NAT for the other's address; the other's comes in, from whatever port."""
    if trier.unpredictable or not (trier.lenient or trier.guessed_lenient):
        return None
    port, endpoints = trier.source(FEWEST_GUESSES)
    opener = _guess(port, Endpoint(other.address, DISCARD))
    why = "one side's public port cannot be told, but the other's NAT lets its SYN in"
    why += "" if trier.lenient else ", if it asks for no more than the address"
    aimed = tuple(_guess(other.port, each) if len(endpoints) > 1 else Shot(other.port, each) for each in endpoints)
    chance = _sure(trier, other) * (1.0 if trier.lenient else 0.5)
    return Proposal((opener,), aimed, why, chance)


_Source: TypeAlias = tuple[int, tuple[Endpoint, ...]]


def _spray_source(trier: Candidate, other: Candidate) -> _Source | None:
    """The local port that the trier's random shots leave from, and where the other side sees them come from.

    None where the mappings of the unpredictable side's would not let them in.
    """
    if not trier.unpredictable and (trier.fixed or trier.by_address):
        return trier.source(SPRAY_AIMS)
    return (trier.port, (public(trier.profile),)) if other.lenient else None


def _odds(source: _Source) -> str:
    return f"{SPRAY_SHOTS} shots at random ports meet one of {SPRAY_PORTS * len(source[1])} mappings"


def _sprayed(trier: Candidate, other: Candidate, source: _Source, after_ns: int) -> Proposal:
    """Many mappings of the unpredictable side's await the trier's random shots."""
    port, endpoints = source
    draws = Random(repr((name_of(trier.profile), name_of(other.profile))))
    shots = ((port, Endpoint(other.address, each)) for each in draws.sample(_PORTS, SPRAY_SHOTS))
    waiting = ((each, at) for at in endpoints for each in _ports_of(other.port, 1, SPRAY_PORTS))
    chance = _sure(trier, other) * (1 - (1 - SPRAY_PORTS / len(_PORTS)) ** SPRAY_SHOTS)
    # A kernel sends each again every second: those at one endpoint are few enough for that.
    awaiting = _paced(waiting, after_ns, AWAITED_NS if len(endpoints) == 1 else GUESS_LASTS_NS)
    return Proposal(_paced(shots, after_ns, GUESS_LASTS_NS), awaiting, _odds(source), chance, sprays=True)


def _paced(flows: Iterable[tuple[int, Endpoint]], after_ns: int, lasts_ns: int) -> tuple[Shot, ...]:
    return tuple(_guess(*flow, after_ns + number * SPRAY_INTERVAL_NS, lasts_ns) for number, flow in enumerate(flows))


def _guess(local_port: int, remote: Endpoint, after_ns: int = 0, lasts_ns: int = GUESS_LASTS_NS) -> Shot:
    """No RST makes it go again."""
    return Shot(local_port, remote, after_ns, once=True, lasts_ns=lasts_ns)
