"""From two profiles to the shots that get through, with the reason in words.

Theory of operation. Both sides know both profiles and the instant, so each works out its own shots such that they meet
the other's. A side's public endpoint, as its peer will see it, is one of three things (`_Face`):

- *known*: nothing is translated, or one mapping serves all destinations. Or new mappings keep the local port, or a
  constant distance to it: then a local port that has no mapping yet shows what its public port will be.
- *walking*: each destination gets a mapping of its own, and the next ports can be told from the last (`predict`).
- *lost*: each destination gets a mapping of its own at a port that nobody can tell.

Known × known: the SYNs cross. Known × walking: the known side fires at the likeliest next ports.

Walking × walking: a shot must leave from the port that the other aims at, and be aimed at the port that the other
leaves from, and neither is certain. So each side fires VOLLEY shots from as many local ports, all aimed at one port:
the one that the other side's volley most likely takes. Others who take ports meanwhile only shift the volley; it
meets unless somebody takes that very port or the shift exceeds the volley. Each round of it predicts anew, from the
mappings that the rounds before have used up.

Known × lost: the SYN of the lost side gets in through the known side's listener, where that NAT asks for no more than
the address. Where it asks for the port, too, there is the spray (birthday paradox): the lost side fires from
SPRAY_PORTS local ports, so as many mappings await the known side, which fires from one port at up to SPRAY_SHOTS random
ones. Of 64,512 ports, n shots miss all with (1 - 256 / 64,512)^n: 1 % after 1,160 shots, 0.03 % after 2,048. That works
since one mapping carries all n shots; a walking side whose mapping depends on the address alone can do it as well, from
the port that was predicted.

Where each destination *port* costs the sprayer a new mapping, it does not. Shot i leaves from a port of its own, to
which only some of the other side's shots are aimed: of m shots in all, m pairs can meet (not n × m), each with 1 chance
in 64,512: 2,048 shots meet with 3 %. Lost × lost has both ports to guess: 2^32. Both are refused.

Filtering is unknown as a rule, since no STUN server connects back. A known side is tried as if it let addresses in, and
sprayed at later; of one whose mappings depend on the destination, the strictest is assumed.

Pure: profiles and `now` in, values out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain, takewhile
from math import prod
from random import Random
from typing import NamedTuple

from simopen.model.endpoint import Endpoint, Reach, reach, refusal, spelled
from simopen.model.wording import quoted
from simopen.nat.classify import Allocation, Filtering, Mapping, Profile, foresee

MOST_SYNS = 64
"""SYNs of a punch that does not spray, those after a RST included."""
MOST_RESENDS = 9
"""Of one unanswered SYN: as often as Linux sends it again within a window of 10 s, and some more."""
VOLLEY, ROUNDS, ROUND_NS = 8, 7, 400_000_000
AS_GOOD = 0.05
FEWEST_GUESSES, MOST_GUESSES, COVERED = 8, 48, 0.999
LEAST_FORESEEN = 0.05
"""Where all that is foreseen is less likely than this, it is as good as nothing."""
FRESH, FRESH_APART = 4, 98
"""Local ports tried where each keeps its number, as somebody may have one of them already; away from those that the
punch port's further mappings took next to it, and of its parity."""
SPRAY_PORTS, SPRAY_SHOTS = 256, 2048
SPRAY_INTERVAL_NS = 2_250_000  # 444 a second
SPRAY_AFTER_NS = 500_000_000
"""What the listener gets first: most filters let it catch the stream in 1.5 round trips, with one SYN."""
GUESS_LASTS_NS = 900_000_000
"""A guess is given up before the kernel sends it again, after 1 s."""
DISCARD = 9
"""A port that no NAT gives out (RFC 863's), to open one's own filter for an address: at a port that the peer's NAT once
gave out, a lenient one would let this SYN in, in the middle of the peer's."""
SPRAY_AIMS = 3
FIRST_NS, FIRST_LASTS_NS = 500_000_000, 300_000_000
"""More than clocks are apart that somebody keeps, and less than the 1 s after which a kernel sends its SYN again."""
_SPARE_DESCRIPTORS = 32  # streams that strangers bring, the clock's sockets
MOST_HOSTS = 4
_PORTS = range(1024, 65_536)
_LENIENT = {Filtering.ENDPOINT_INDEPENDENT, Filtering.ADDRESS_DEPENDENT}
_OF_OWN = {Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT}
_KEEPING = {Allocation.PRESERVING, Allocation.CONSTANT_DELTA}


@dataclass(frozen=True, slots=True)
class Shot:
    """A SYN from a local port, `after_ns` after the instant; before it, where that is negative.

    `once`: a guess: no RST makes it go again. `lasts_ns`: unanswered for so long, it is given up. `ttl`: hops that it
    may go; None for the usual number.
    """

    local_port: int
    remote: Endpoint
    after_ns: int = 0
    once: bool = False
    lasts_ns: int | None = None
    ttl: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What one side fires, best first, and why.

    `shots`: none where the pair cannot connect. `chooses`: where several streams may come up, whether this side picks
    one and the other follows; None where only one can. `chance`: of success, 0 to 1, as far as the profiles tell.
    `sprays`: hundreds of SYNs a second, or it would take them and was not allowed. `notes`: a sentence on each endpoint
    of the peer's that is not fired at.
    """

    shots: tuple[Shot, ...]
    why: str
    chance: float
    chooses: bool | None = None
    sprays: bool = False
    notes: tuple[str, ...] = ()


def opened_first(shots: tuple[Shot, ...], ttl: int) -> tuple[Shot, ...]:
    """The shots, and before the instant one for each that is due at it, which goes no further than `ttl` hops.

    That opens this side's own NAT and does not reach the peer's. A peer who then fires a little early is let in by our
    NAT, which might otherwise answer with a RST, close a mapping, or shut the peer out.
    """
    due = (shot for shot in shots if shot.after_ns <= 0 and not shot.once)
    first = (replace(shot, after_ns=-FIRST_NS, once=True, lasts_ns=FIRST_LASTS_NS, ttl=ttl) for shot in due)
    return (*first, *shots)


def rationed(shots: Iterable[Shot], most: int = MOST_SYNS) -> tuple[tuple[Shot, ...], int, int]:
    """What of the shots may be fired where at most so many SYNs leave, those that the kernel sends again among them.

    With it: how many are left to answer refusals with, and how often the kernel may send again each that lasts. The
    best shots come first, so what does not fit is cut off at the end.
    """
    kept = tuple(shots)[:most]
    while len(kept) + _lasting(kept) > most:
        kept = kept[:-1]
    spare, lasting = most - len(kept), _lasting(kept)
    resends = min(MOST_RESENDS, max(1, spare // (2 * lasting))) if lasting else 0
    return kept, spare - resends * lasting, resends


def _lasting(shots: tuple[Shot, ...]) -> int:
    return sum(shot.lasts_ns is None for shot in shots)


def most_at_once(shots: Iterable[Shot]) -> int:
    """How many file descriptors they take, each local port with a listener."""
    shots = tuple(shots)
    lasting = [shot for shot in shots if shot.lasts_ns is None]
    passing = max((shot.lasts_ns or 0 for shot in shots), default=0) // SPRAY_INTERVAL_NS
    return len(lasting) + min(passing, len(shots)) + len({shot.local_port for shot in shots}) + _SPARE_DESCRIPTORS


@dataclass(frozen=True, slots=True)
class _Face:
    """How the peer will see one side. `known`: local ports and their public endpoints; empty where they cannot be told.

    `likely[k]`: the chance of each public port for the mapping after k others of the volleys; empty where not walking.
    """

    profile: Profile
    port: int
    known: tuple[tuple[int, Endpoint], ...]
    likely: tuple[dict[int, float], ...]

    @property
    def address(self) -> str:
        return _public(self.profile).address

    @property
    def fixed(self) -> bool:
        """Whether one public endpoint serves all of the peer's ports."""
        return bool(self.known) and self.profile.mapping not in _OF_OWN

    @property
    def lost(self) -> bool:
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
class _Way:
    """What both sides fire, ours first."""

    ours: tuple[Shot, ...]
    theirs: tuple[Shot, ...]
    why: str
    chance: float
    sprays: bool = False


@lru_cache(8)  # who tells of a plan before a punch, and the punch, ask for the same one
def plan(ours: Profile, theirs: Profile, *, now_ns: int, spray: bool = False) -> Plan:
    """What this side fires at a peer with that profile. The peer, with the two exchanged, gets the matching plan.

    `now_ns`: when the first SYN will leave, by the clock of the profiles' observations. `spray`: whether hundreds of
    SYNs a second are allowed.

    Raises: ValueError for a profile that does not say which port it is of; TypeError or ValueError for one of no sense.
    """
    if not ours.hosts or not theirs.hosts:
        raise ValueError("a profile without hosts does not say which port it is of")
    ours, theirs = _spelled(ours), _spelled(theirs)
    near, far = _beside(ours, theirs), _across(ours, theirs, now_ns, spray=spray)
    return _plan(_both_ways(near, far), ours, theirs)


def _spelled(profile: Profile) -> Profile:
    """With each endpoint in its one spelling, as whoever made it may have written it otherwise.

    Raises: TypeError or ValueError for what is no endpoint, or no share.
    """
    if not 0 <= profile.confidence <= 1:
        raise ValueError(f"a profile's confidence lies between 0 and 1, not at {quoted(profile.confidence)}")
    hosts = tuple(spelled(host, "a profile's") for host in profile.hosts)
    mapped = None if profile.mapped is None else spelled(profile.mapped, "a profile's")
    return replace(profile, hosts=hosts, mapped=mapped)


def _both_ways(near: _Way, far: _Way) -> _Way:
    """The near one first, as far as there is any, and the far one side by side with it."""
    if not near.ours or not far.ours:
        return near if near.ours else far
    ours, theirs = near.ours + far.ours, near.theirs + far.theirs
    return _Way(ours, theirs, f"{near.why}; else, {far.why}", max(near.chance, far.chance), far.sprays)


def _plan(way: _Way, ours: Profile, theirs: Profile) -> Plan:
    several = min(len(way.ours), len(way.theirs)) > 1
    chooses = _name(ours) < _name(theirs) if several else None
    return Plan(way.ours, way.why, way.chance, chooses, way.sprays, tuple(_left_out(theirs)))


def _left_out(theirs: Profile) -> Iterator[str]:
    """What no peer can mean. Private addresses are in most tickets, and only sometimes of use."""
    for host in dict.fromkeys(theirs.hosts):
        if (why := refusal(host, Reach.SITE)) is not None:
            yield f"{host} left out: the peer's profile names {why}"


def _name(profile: Profile) -> tuple[Endpoint, tuple[Endpoint, ...]]:
    """What tells the two sides apart, alike on both."""
    return (profile.mapped or Endpoint("", 0), profile.hosts)


def _beside(ours: Profile, theirs: Profile) -> _Way:
    """By the sides' own addresses: over IPv6 where both have it, and where both have one public address."""
    why = []
    if six := all(any(map(_is_global6, profile.hosts)) for profile in (ours, theirs)):
        why.append("both have IPv6, where nothing is translated")
    if seen_at_one_address(ours, theirs):
        why.append("both have one public address, so they may be in one network")
    at_theirs, at_ours = _named(ours, theirs, six=six), _named(theirs, ours, six=six)
    if not (at_theirs and at_ours):
        return _cannot("neither side's own addresses are of use")
    return _Way(at_theirs, at_ours, "; ".join(why), 0.9)


def _named(one: Profile, other: Profile, *, six: bool) -> tuple[Shot, ...]:
    """One side's shots at the other's own addresses. `six`: over IPv6, from wherever."""
    known, beside = {*one.hosts, other.mapped}, seen_at_one_address(one, other)
    hosts = (host for host in dict.fromkeys(other.hosts) if host not in known and refusal(host, Reach.SITE) is None)
    wanted = [host for host in hosts if beside or (six and _is_global6(host))]
    return tuple(Shot(one.hosts[0].port, host) for host in wanted[:MOST_HOSTS])


def _is_global6(host: Endpoint) -> bool:
    return ":" in host.address and reach(host.address) is Reach.GLOBAL


def _nearest(one: Profile, other: Profile) -> Reach:
    """How near to `one` the other side can be: in the network that both are seen from, or beyond it.

    Where the servers saw `one` at a private address, it met them inside of that network, and can meet the peer there.
    """
    inside = seen_at_one_address(one, other) or reach(_public(one).address) is Reach.SITE
    return Reach.SITE if inside else Reach.GLOBAL


def _across(ours: Profile, theirs: Profile, now_ns: int, *, spray: bool) -> _Way:
    """The way by the public endpoints."""
    for profile, whose in ((ours, "this side's"), (theirs, "the peer's")):
        if profile.mapped is None:
            return _cannot(f"nobody saw {whose} public endpoint")
    for one, other, whose in ((theirs, ours, "this side's"), (ours, theirs, "the peer's")):
        if (why := refusal(_public(other), _nearest(one, other))) is not None:
            return _cannot(f"{whose} public endpoint is said to be {_public(other)}: that is {why}")
    if _public(ours).family != _public(theirs).family:
        return _cannot("one side is reached over IPv4 only, the other over IPv6 only")
    translated = Mapping.NONE not in (ours.mapping, theirs.mapping)
    if translated and seen_at_one_address(ours, theirs) and False in (ours.hairpinning, theirs.hairpinning):
        return _cannot("both are behind one NAT, and it does not let its hosts meet at its public address")
    near, far = _face(ours, _ahead(theirs), now_ns), _face(theirs, _ahead(ours), now_ns)
    return _between(near, far, spray=spray)


def _ahead(other: Profile) -> int:
    """How many mappings it takes to meet that side: volleys of them, unless it waits at one endpoint."""
    return VOLLEY * ROUNDS if other.mapping in _OF_OWN else 1


def _public(profile: Profile) -> Endpoint:
    assert profile.mapped is not None
    return profile.mapped


def seen_at_one_address(ours: Profile, theirs: Profile) -> bool:
    """Whether both may be in one network, or on one host: by what the servers, or the peer, said."""
    return None not in (ours.mapped, theirs.mapped) and _public(ours).address == _public(theirs).address


def _cannot(why: str, *, sprays: bool = False) -> _Way:
    return _Way((), (), why, 0.0, sprays)


def _face(profile: Profile, ahead: int, now_ns: int) -> _Face:
    port, public = profile.hosts[0].port, _public(profile)
    if profile.mapping not in _OF_OWN:
        return _Face(profile, port, ((port, public),), ())
    if profile.allocation in _KEEPING:
        fresh = [_port(port, FRESH_APART * number) for number in range(1, FRESH + 1)]
        delta = profile.delta or 0
        return _Face(profile, port, tuple((each, Endpoint(public.address, _port(each, delta))) for each in fresh), ())
    return _Face(profile, port, (), _likely(profile, ahead, now_ns))


def _likely(profile: Profile, ahead: int, now_ns: int) -> tuple[dict[int, float], ...]:
    """As far ahead as anything can be foreseen: of a busy row, nothing soon."""
    if profile.allocation is not Allocation.SEQUENTIAL:
        return ()
    foreseen = foresee(profile, now_ns, ahead)
    return tuple(takewhile(lambda chances: sum(chances.values()) >= LEAST_FORESEEN, foreseen))


def _port(port: int, distance: int) -> int:
    """`distance` ports on, round the circle of those above 1023."""
    return _PORTS[(port + distance - _PORTS.start) % len(_PORTS)]


def _between(ours: _Face, theirs: _Face, *, spray: bool) -> _Way:
    if ours.known and theirs.known:
        return _crossing(ours, theirs)
    if (ours.fixed and theirs.likely) or (theirs.fixed and ours.likely):
        return _mirrored(_guessing, ours, theirs, theirs.fixed)
    if (ours.known or ours.likely) and (theirs.known or theirs.likely):
        return _volleys(ours, theirs)
    return _at_lost(ours, theirs, spray=spray)


def _mirrored(way: Callable[[_Face, _Face], _Way], ours: _Face, theirs: _Face, turned: bool) -> _Way:
    """`way(ours, theirs)`; where `turned`, worked out from the peer's side and turned round."""
    if not turned:
        return way(ours, theirs)
    found = way(theirs, ours)
    return replace(found, ours=found.theirs, theirs=found.ours)


def _sure(*faces: _Face) -> float:
    """The chance that both sides' classes are right; one that is UNKNOWN is as good as a coin."""
    chances = (0.5 if face.profile.mapping is Mapping.UNKNOWN else face.profile.confidence for face in faces)
    return prod(chances)


def _crossing(ours: _Face, theirs: _Face) -> _Way:
    """Each of one side's endpoints at one of the other's: where it keeps the port, only for a single destination."""
    pairs = [(ours.known[n % len(ours.known)], theirs.known[n % len(theirs.known)]) for n in range(FRESH)]
    pairs = list(dict.fromkeys(pairs))
    why = "both public endpoints are known, so the SYNs cross"
    if len(pairs) > 1:
        why = "a new mapping keeps the local port's number, so both public endpoints are known, and the SYNs cross"
    ours_at, theirs_at = zip(*((Shot(a, f), Shot(b, e)) for (a, e), (b, f) in pairs), strict=True)
    return _Way(ours_at, theirs_at, why, _sure(ours, theirs))


def _guessing(fixed: _Face, walking: _Face) -> _Way:
    """One side's SYN leaves from a port that the other foresees."""
    (port, endpoint), chances = fixed.known[0], walking.likely[0]
    ports = _most_likely(chances)
    covered = sum(chances[each] for each in ports)
    why = f"one side's next port can be told from its last, {covered:.0%} surely by {len(ports)} guesses"
    aimed = tuple(_guess(port, Endpoint(walking.address, each)) for each in ports)
    return _Way(aimed, (Shot(walking.port, endpoint),), why, _sure(fixed, walking) * min(1.0, covered))


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


def _volleys(ours: _Face, theirs: _Face) -> _Way:
    """Rounds of volleys, each side's at the port that the other's most likely takes."""
    count = min(ROUNDS, *(-(-len(face.likely) // VOLLEY) for face in (ours, theirs) if face.likely))
    rounds = [(_volley(ours, number), _volley(theirs, number)) for number in range(count)]
    mine = (_fired(one, other, number) for number, (one, other) in enumerate(rounds))
    its = (_fired(other, one, number) for number, (one, other) in enumerate(rounds))
    missed = prod(1 - one.chance * other.chance for one, other in rounds)
    why = "each side's next ports can be told from its last, so volleys of SYNs meet at the likeliest"
    shots = tuple(chain.from_iterable(mine)), tuple(chain.from_iterable(its))
    return _Way(*shots, why, _sure(ours, theirs) * (1 - missed))


class _Volley(NamedTuple):
    """One round of one side: the local ports, the public endpoint that one of them most likely has, and how likely."""

    ports: tuple[int, ...]
    at: Endpoint
    chance: float


def _volley(face: _Face, number: int) -> _Volley:
    if face.known:  # it keeps the port for one destination, so there is one local port for each round
        port, at = face.known[number % len(face.known)]
        return _Volley((port,), at, 1.0)
    taken: Counter[int] = Counter()
    for chances in face.likely[number * VOLLEY : (number + 1) * VOLLEY]:
        taken.update(chances)
    best = max(taken.values())
    # In the middle of those that are as good: what nobody saw may have moved the row a little, either way.
    good = [port for port in taken if taken[port] >= best - AS_GOOD]
    port = good[len(good) // 2]
    chance = taken[port]
    return _Volley(_ports_of(face.port, number * VOLLEY, VOLLEY), Endpoint(face.address, port), min(1.0, chance))


def _ports_of(port: int, first: int, count: int) -> tuple[int, ...]:
    """Local ports of the punch port's parity (RFC 4787 §4.2.2), itself the first."""
    return tuple(_port(port, 2 * number) for number in range(first, first + count))


def _fired(one: _Volley, other: _Volley, number: int) -> tuple[Shot, ...]:
    return tuple(_guess(port, other.at, number * ROUND_NS) for port in one.ports)


def _at_lost(ours: _Face, theirs: _Face, *, spray: bool) -> _Way:
    """At least one side's port cannot be told; the other one tries, or, where both are lost, one of them."""
    if ours.lost and theirs.lost:
        turned = (ours.lenient, _name(ours.profile)) > (theirs.lenient, _name(theirs.profile))
    else:
        turned = ours.lost
    return _mirrored(partial(_reaching, spray=spray), ours, theirs, turned)


def _reaching(trier: _Face, lost: _Face, *, spray: bool) -> _Way:
    """What lets the lost side in: the trier's listener, else the spray."""
    caught, sprayed = _caught(trier, lost), _sprayed(trier, lost)
    if sprayed is None:
        return caught or _cannot(_HOPELESS[trier.lost])
    if not spray:
        return replace(caught, sprays=True) if caught else _cannot(f"{sprayed.why}: allow the spray", sprays=True)
    if caught is None:
        return sprayed
    ours = (*caught.ours, *_later(sprayed.ours))
    why = f"{caught.why}; else, {sprayed.why}"
    return _Way(ours, (*caught.theirs, *_later(sprayed.theirs)), why, sprayed.chance, sprays=True)


_HOPELESS = {
    True: "both sides' public ports differ for each destination and cannot be told: 2^32 pairs of them to guess",
    False: "one side's public ports cannot be told, and each guess at them would cost the other side a new port",
}


def _later(shots: tuple[Shot, ...]) -> Iterator[Shot]:
    return (replace(shot, after_ns=shot.after_ns + SPRAY_AFTER_NS) for shot in shots)


def _caught(trier: _Face, lost: _Face) -> _Way | None:
    """The lost side's SYN comes in through the trier's listener, whatever port it has; the trier's opens the way."""
    if trier.lost or not (trier.lenient or trier.guessed_lenient):
        return None
    port, endpoints = trier.source(FEWEST_GUESSES)
    opener = _guess(port, Endpoint(lost.address, DISCARD))
    why = "one side's public port cannot be told, but the other's NAT lets its SYN in"
    why += "" if trier.lenient else ", if it asks for no more than the address"
    aimed = tuple(_guess(lost.port, each) if len(endpoints) > 1 else Shot(lost.port, each) for each in endpoints)
    chance = _sure(trier, lost) * (1.0 if trier.lenient else 0.5)
    return _Way((opener,), aimed, why, chance)


def _sprayed(trier: _Face, lost: _Face) -> _Way | None:
    """Many mappings of the lost side's await the trier's random shots."""
    one_source = not trier.lost and (trier.fixed or trier.by_address)
    if not (one_source or lost.lenient):
        return None
    port, endpoints = trier.source(SPRAY_AIMS) if one_source else (trier.port, (_public(trier.profile),))
    draws = Random(repr((_name(trier.profile), _name(lost.profile))))
    shots = (_guess(port, Endpoint(lost.address, each)) for each in draws.sample(_PORTS, SPRAY_SHOTS))
    waiting = (_guess(each, at) for at in endpoints for each in _ports_of(lost.port, 1, SPRAY_PORTS))
    why = f"{SPRAY_SHOTS} shots at random ports meet one of {SPRAY_PORTS * len(endpoints)} mappings"
    chance = _sure(trier, lost) * (1 - (1 - SPRAY_PORTS / len(_PORTS)) ** SPRAY_SHOTS)
    return _Way(tuple(_paced(shots)), tuple(_paced(waiting)), why, chance, sprays=True)


def _paced(shots: Iterable[Shot]) -> Iterator[Shot]:
    for number, shot in enumerate(shots):
        yield replace(shot, after_ns=number * SPRAY_INTERVAL_NS)


def _guess(local_port: int, remote: Endpoint, after_ns: int = 0) -> Shot:
    """None is sent twice: what awaits the peer's SYN is the mapping, and the listener behind it."""
    return Shot(local_port, remote, after_ns, once=True, lasts_ns=GUESS_LASTS_NS)
