"""What a NAT does, from observations of it; and where it will put the next mapping.

Theory of operation. An observation says: this local endpoint, seen by that server, had this public endpoint, at this
time. `classify` compares them in RFC 4787's terms. Too little evidence, or evidence that contradicts itself, is
UNKNOWN. What is needed for which verdict, best made within three round trips:

- mapping (RFC 5780 §4.3): the punch port seen from two addresses, and from two ports of one of them. Endpoint-
  independent is told from two addresses alone. More servers catch one that lies or a mapping that changes; asking the
  first server again at the end tells these two apart.
- allocation: one observation each from 6 to 8 further local ports, picked at random and not in a row (in a row, a
  constant delta looks like a sequence). Two local ports tell port-preserving and a constant delta, three mappings of
  two local ports a sequence, five mappings random ports. The busier a sequence, the more it takes to know its step.
- pooling: eight mappings at one address are paired, two addresses are arbitrary.
- none: `local` or one of the hosts is what the server saw.
- layers: 0 without translation; else the outer address of the nearest router, where that tells (`gateway.py`).
- filtering needs somebody who connects back, so here it stays UNKNOWN; hairpinning is the caller's test.

What counts is what is seen from outside: NATs in a row are one NAT, and one that gives a local port the same public
endpoint for every server is endpoint-independent, whatever its table looks like.

How ports follow each other is `walk.py`'s; here each way to allocate is a hypothesis, and the one that explains the
mappings a hundred times better than all others together is the verdict.

Pure: no socket and no clock. Times are ns of any one clock; only their order and their distances count.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import accumulate, combinations, groupby, pairwise
from math import exp, inf, lgamma, log
from typing import TypeAlias

from simopen import walk
from simopen.address import Endpoint
from simopen.flows import Flow

SURE = 0.99
"""An allocation is named where its posterior probability is this high."""
LIE = 0.02
"""Chance that a server saw something else than what the NAT gave (a proxy, a mapping that just changed). Assumed."""
COLLISION = 0.05
"""Chance that a NAT that keeps port numbers cannot, because somebody has that one. Assumed."""
ENOUGH_FOR_RANDOM = 5
ENOUGH_FOR_PAIRED = 8  # a pool of two given out at random looks paired once in 2^7


class Mapping(Enum):
    """Which flows of one local endpoint share a public one (RFC 4787 §4.1)."""

    NONE = "none"
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    UNKNOWN = "unknown"


class Filtering(Enum):
    """From whom a mapping lets packets in (RFC 4787 §5)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    UNKNOWN = "unknown"


class Allocation(Enum):
    """How a new mapping gets its public port (RFC 4787 §4.2.1)."""

    PRESERVING = "port-preserving"
    CONSTANT_DELTA = "constant-delta"
    SEQUENTIAL = "sequential"
    RANDOM = "random"
    UNKNOWN = "unknown"


class Pooling(Enum):
    """Whether all mappings of one host share a public address (RFC 4787 §4.1, "paired")."""

    PAIRED = "paired"
    ARBITRARY = "arbitrary"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Observation:
    """One Binding over TCP: from `local` to `server`, which saw `mapped`. The SYN left at `at_ns`.

    `own`: how many ports of a row this program's other flows took since the new mapping before. `classify` tells.
    """

    local: Endpoint
    server: Endpoint
    mapped: Endpoint
    at_ns: int
    own: int = 0


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of the NATs in front of one punch port, and from what.

    `layers`: NATs in a row, 0 for none; 2 means at least two; None where that cannot be told. `mapped`: the punch
    port's public endpoint as last seen. `hosts`: the punch port on this host's own addresses. `step` and `busy` go with
    SEQUENTIAL: the distance between ports, and the share of steps that others take, 0 to 1; `delta` goes with
    CONSTANT_DELTA: add it to the local port to get the mapped one. `one_row`: whether TCP and UDP take their ports from
    one row; None where that was not seen. `confidence`: the chance, 0 to 1, that mapping
    and allocation are as said. `notes`: what did not fit, one sentence each.
    """

    mapping: Mapping = Mapping.UNKNOWN
    allocation: Allocation = Allocation.UNKNOWN
    filtering: Filtering = Filtering.UNKNOWN
    pooling: Pooling = Pooling.UNKNOWN
    hairpinning: bool | None = None
    layers: int | None = None
    mapped: Endpoint | None = None
    hosts: tuple[Endpoint, ...] = ()
    step: int | None = None
    busy: float | None = None
    delta: int | None = None
    one_row: bool | None = None
    confidence: float = 0.0
    observations: tuple[Observation, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = [
            f"{self.mapping.value} mapping" if self.mapping is not Mapping.NONE else "no translation",
            f"{self.allocation.value} allocation{self._detail()}",
        ]
        said += [f"{self.filtering.value} filtering", f"{self.pooling.value} pooling"]
        where = "" if self.mapped is None else f"; seen as {self.mapped}"
        return f"{', '.join(said)}{where}; {self.confidence:.0%} sure"

    def _detail(self) -> str:
        if self.step is not None and self.busy is not None:
            return f" (step {self.step}, others take {self.busy:.0%})"
        return "" if self.delta is None else f" ({self.delta:+d})"


@dataclass(frozen=True, slots=True)
class Prediction:
    """A public endpoint and the chance, 0 to 1, that the next new mapping gets it."""

    endpoint: Endpoint
    probability: float


def classify(
    observations: Iterable[Observation],
    *,
    hosts: Sequence[Endpoint] = (),
    hairpinning: bool | None = None,
    gateway: str | None = None,
    flows: Sequence[Flow] = (),
) -> Profile:
    """The profile that these observations support. They may come in any order, but of one address family.

    The punch port is that of `hosts`; without hosts, the local port with most observations. `gateway`: the outer
    address of the nearest router, where it is known; one that is not a public one shows that a further NAT follows.
    `flows`: what else this program sent meanwhile, by the observations' clock. Ports that these took are not others'.

    Raises: ValueError for two address families at once.
    """
    seen = tuple(sorted(observations, key=lambda each: each.at_ns))
    if len({end.family for each in seen for end in (each.local, each.mapped)}) > 1:
        raise ValueError("one profile is of one address family: classify IPv4 and IPv6 apart")
    ours = _of_punch_port(seen, hosts)
    mapping, mapping_chance, notes = _mapping(ours, set(hosts))
    seen, one_row = _own_counted(seen, flows, mapping)
    allocation, allocation_chance = _allocation(seen) if mapping is not Mapping.NONE else (Allocation.PRESERVING, 1.0)
    step, busy = _step_and_busy(seen) if allocation is Allocation.SEQUENTIAL else (None, None)
    mapped = ours[-1].mapped if ours else None
    return Profile(
        mapping=mapping,
        allocation=allocation,
        pooling=_pooling(seen, bool(notes)),
        hairpinning=hairpinning,
        layers=_layers(mapping, seen, gateway),
        mapped=mapped,
        hosts=tuple(hosts),
        step=step,
        busy=busy,
        delta=_commonest_delta(seen) if allocation is Allocation.CONSTANT_DELTA else None,
        one_row=one_row if allocation is Allocation.SEQUENTIAL else None,
        confidence=_both(mapping, mapping_chance, allocation, allocation_chance),
        observations=seen,
        notes=notes,
    )


def _both(mapping: Mapping, mapping_chance: float, allocation: Allocation, allocation_chance: float) -> float:
    """The chance that all is right that is said; UNKNOWN says nothing."""
    said = [mapping_chance] * (mapping is not Mapping.UNKNOWN)
    said += [allocation_chance] * (allocation is not Allocation.UNKNOWN)
    return min(said, default=0.0) * max(said, default=0.0) if len(said) == 2 else max(said, default=0.0)


def _punch_port(seen: Sequence[Observation], hosts: Sequence[Endpoint]) -> int | None:
    if hosts:
        return hosts[0].port
    return Counter(each.local.port for each in seen).most_common(1)[0][0] if seen else None


def _of_punch_port(seen: Sequence[Observation], hosts: Sequence[Endpoint]) -> list[Observation]:
    return [each for each in seen if each.local.port == _punch_port(seen, hosts)]


# Is it one mapping (for another port of the same server address, for another address)? RFC 5780 §4.3. None: not
# tested. What is missing here is UNKNOWN: untested, or a contradiction.
_BY_TESTS: dict[tuple[bool | None, bool | None], Mapping] = {
    (True, True): Mapping.ENDPOINT_INDEPENDENT,
    (None, True): Mapping.ENDPOINT_INDEPENDENT,
    (True, False): Mapping.ADDRESS_DEPENDENT,
    (False, False): Mapping.ADDRESS_AND_PORT_DEPENDENT,
    (False, None): Mapping.ADDRESS_AND_PORT_DEPENDENT,
}


def _mapping(ours: Sequence[Observation], hosts: set[Endpoint]) -> tuple[Mapping, float, tuple[str, ...]]:
    """The mapping, the chance that it is that, and what did not fit."""
    untranslated = {each.mapped == each.local or each.mapped in hosts for each in ours}
    if untranslated == {True}:
        return Mapping.NONE, 1 - LIE ** len(ours), ()
    if True in untranslated:
        return Mapping.UNKNOWN, 0.0, ("some servers saw a host's own endpoint, others did not",)
    kept, notes = _since_change(ours)
    mapping = _by_tests(kept)
    if mapping is Mapping.UNKNOWN and len({each.server.address for each in kept}) > 1 and not notes:
        notes = ("the servers contradict each other, or too few ports of theirs were asked",)
    return mapping, 1 - LIE ** _lies_needed(mapping, kept), notes


def mapping_so_far(ours: Sequence[Observation]) -> Mapping:
    """The mapping that observations from one local port tell already; UNKNOWN while more are needed."""
    return _by_tests(list({each.server: each for each in ours}.values()))


def _by_tests(ours: Sequence[Observation]) -> Mapping:
    pairs = list(combinations(ours, 2))
    same_address = {a.mapped == b.mapped for a, b in pairs if a.server.address == b.server.address}
    other_address = {a.mapped == b.mapped for a, b in pairs if a.server.address != b.server.address}
    if len(same_address) > 1 or len(other_address) > 1:
        return Mapping.UNKNOWN
    return _BY_TESTS.get((next(iter(same_address), None), next(iter(other_address), None)), Mapping.UNKNOWN)


def _lies_needed(mapping: Mapping, ours: Sequence[Observation]) -> int:
    """How many observations would have to be wrong for another mapping to be the true one."""
    addresses = len({each.server.address for each in ours})
    if mapping is Mapping.ADDRESS_DEPENDENT:
        return addresses - 1
    if mapping is Mapping.ADDRESS_AND_PORT_DEPENDENT:
        return len({each.server for each in ours}) - addresses
    return len(ours)  # all wrong in the same way


def _since_change(ours: Sequence[Observation]) -> tuple[Sequence[Observation], tuple[str, ...]]:
    """One observation of each server. Where one server saw two endpoints, only what came after a clear change."""
    by_server: dict[Endpoint, set[Endpoint]] = defaultdict(set)
    for each in ours:
        by_server[each.server].add(each.mapped)
    latest = list({each.server: each for each in ours}.values())
    if all(len(mapped) == 1 for mapped in by_server.values()):
        return latest, ()
    eras = [list(era) for _, era in groupby(ours, key=lambda each: each.mapped)]
    note = f"the mapping changed under way, from {eras[-2][-1].mapped} to {eras[-1][0].mapped}"
    # Two eras: before and after. More than two: nobody can say what was before and what after, so nothing is kept.
    return (eras[-1] if len(eras) == 2 else ()), (note,)


def new_mappings(seen: Sequence[Observation]) -> list[Observation]:
    """The first observation of each mapping, in order."""
    first: dict[tuple[Endpoint, Endpoint], Observation] = {}
    for each in seen:
        first.setdefault((each.local, each.mapped), each)
    return list(first.values())


def _runs(seen: Sequence[Observation]) -> dict[str, walk.Run]:
    """The new mappings at each public address: each has ports of its own."""
    runs: dict[str, list[walk.Taken]] = defaultdict(list)
    for each in new_mappings(seen):
        runs[each.mapped.address].append(_taken(each))
    return {key: tuple(run) for key, run in runs.items()}


def _runs_of_each_port(seen: Sequence[Observation]) -> dict[tuple[str, int], walk.Run]:
    """The same, of each local port apart, without times and other flows: the next free number is what is taken."""
    runs: dict[tuple[str, int], list[walk.Taken]] = defaultdict(list)
    for each in new_mappings(seen):
        runs[each.mapped.address, each.local.port].append(_taken(each)._replace(at_s=0.0, own=0))
    return {key: tuple(run) for key, run in runs.items()}


def _taken(each: Observation) -> walk.Taken:
    return walk.Taken(each.mapped.port, each.local.port, each.at_ns / 1e9, each.own)


ONE_ROW = 0.3
"""The chance that a NAT counts TCP's and UDP's ports in one row, before anything is seen. Assumed."""
SURE_OF_ROW = 0.9
_Key: TypeAlias = Callable[[int, Endpoint], Hashable]
_MAPPING_KEYS: dict[Mapping, _Key] = {
    Mapping.ENDPOINT_INDEPENDENT: lambda port, remote: port,
    Mapping.ADDRESS_DEPENDENT: lambda port, remote: (port, remote.address),
    Mapping.ADDRESS_AND_PORT_DEPENDENT: lambda port, remote: (port, remote),
}
_PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))  # RFC 1918


def _own_counted(
    seen: Sequence[Observation], flows: Sequence[Flow], mapping: Mapping
) -> tuple[tuple[Observation, ...], bool | None]:
    """The observations with the steps of this program's other flows, and whether those of UDP took any.

    What no evidence tells apart is None. Of several public addresses, nobody knows at which one a flow was mapped.
    """
    if len({each.mapped.address for each in seen}) != 1 or mapping is Mapping.NONE:
        return tuple(seen), None
    ours = _unseen(seen, flows, mapping)
    apart, together = _with_own(seen, [flow for flow in ours if flow.is_tcp]), _with_own(seen, ours)
    if apart == together:
        return apart, None
    fit_apart, fit_together = (_fit_of_sequence(tuple(_runs(each).values())) for each in (apart, together))
    odds = fit_together + log(ONE_ROW) - fit_apart - log(1 - ONE_ROW)
    return (together if odds > 0 else apart), (odds > 0 if abs(odds) > log(SURE_OF_ROW / (1 - SURE_OF_ROW)) else None)


def _unseen(seen: Sequence[Observation], flows: Sequence[Flow], mapping: Mapping) -> list[Flow]:
    """The flows that got mappings of their own which no observation shows, in order."""
    key = _MAPPING_KEYS.get(mapping, _MAPPING_KEYS[Mapping.ADDRESS_AND_PORT_DEPENDENT])
    shown: dict[Hashable, int] = {}
    for each in seen:
        shown.setdefault((True, key(each.local.port, each.server)), each.at_ns)
    found: dict[Hashable, Flow] = {}
    for flow in sorted(flows, key=lambda each: each.at_ns):
        name = flow.is_tcp, key(flow.local_port, flow.remote)
        # One that came before what was observed of its like had a mapping that ended.
        if flow.at_ns < shown.get(name, flow.at_ns + 1) and crosses_nat(flow.remote, seen[0].server):
            found.setdefault(name, flow)
    return list(found.values())


def taken_since(profile: Profile, flows: Sequence[Flow]) -> int:
    """How many ports of a SEQUENTIAL profile's row the flows have taken that left after its last observation."""
    in_a_row = profile.allocation is Allocation.SEQUENTIAL and profile.mapping in _NEW_FOR_OTHERS
    if not in_a_row or not profile.observations:
        return 0
    return len(
        _unseen(profile.observations, [flow for flow in flows if flow.is_tcp or profile.one_row], profile.mapping)
    )


def crosses_nat(remote: Endpoint, server: Endpoint) -> bool:
    """Whether a flow to `remote` passes the NATs that one to `server` passes: not one that stays near."""
    ip = ipaddress.ip_address(remote.address.partition("%")[0])
    if remote.family != server.family or ip.is_loopback or ip.is_link_local or ip.is_multicast:
        return False
    return not _is_private(remote) or _is_private(server)


def _is_private(end: Endpoint) -> bool:
    ip = ipaddress.ip_address(end.address.partition("%")[0])
    return any(ip in network for network in _PRIVATE)


def _with_own(seen: Sequence[Observation], flows: Sequence[Flow]) -> tuple[Observation, ...]:
    """Each new mapping with the number of flows that left since the one before."""
    times = [flow.at_ns for flow in flows]
    counted, before = {}, 0
    for number, each in enumerate(new_mappings(seen)):
        until = bisect_left(times, each.at_ns)
        counted[each] = until - before if number else 0
        before = until
    return tuple(replace(each, own=counted.get(each, 0)) for each in seen)


def own_taken_out(profile: Profile) -> list[Observation]:
    """The new mappings at the address last seen, as if no other flow of this program's had taken a port among them.

    The last one is where it is; whoever knows these alone foresees the same as who knows all.
    """
    if profile.mapped is None:
        return []
    here = [each for each in new_mappings(profile.observations) if each.mapped.address == profile.mapped.address]
    if profile.step is None or not any(each.own for each in here):
        return here
    (run,) = _in_order(_runs(here)).values()
    keeps_parity = not any((each.mapped.port ^ each.local.port) & 1 for each in here)
    gone = [walk.without_own(before, taken, profile.step) for before, taken in pairwise(run)]
    moved: dict[tuple[int, int], int] = {}
    for taken, steps in zip(reversed(run), accumulate(reversed(gone), initial=0), strict=True):
        distance = steps * profile.step
        moved[taken.port, taken.local] = walk.wrapped(taken.port + distance - (distance & 1 & keeps_parity))
    return [
        replace(each, mapped=each.mapped._replace(port=moved[each.mapped.port, each.local.port]), own=0)
        for each in here
    ]


_ANY_PORT = -log(walk.SPAN)
_PRIORS = {
    Allocation.PRESERVING: log(0.4),
    Allocation.SEQUENTIAL: log(0.2),
    Allocation.RANDOM: log(0.3),
    Allocation.CONSTANT_DELTA: log(0.1),
}
_BLOCKS = (*(2**bits for bits in range(9, 16)), walk.SPAN)  # carriers give each user a block (RFC 7422)


def _allocation(seen: Sequence[Observation]) -> tuple[Allocation, float]:
    """The allocation with a posterior of `SURE`, and that; UNKNOWN where there is none."""
    taken = new_mappings(seen)
    if not taken:
        return Allocation.UNKNOWN, 0.0
    runs, each_port = tuple(_runs(seen).values()), tuple(_runs_of_each_port(seen).values())
    delta = _commonest_delta(seen)
    fits = {
        Allocation.PRESERVING: _fit_of_delta(each_port, 0),
        Allocation.CONSTANT_DELTA: _ANY_PORT + _fit_of_delta(each_port, delta),
        Allocation.SEQUENTIAL: _fit_of_sequence(runs),
        Allocation.RANDOM: _fit_of_chance(runs),
    }
    logs = {allocation: fit + _PRIORS[allocation] for allocation, fit in fits.items()}
    best = max(logs, key=logs.__getitem__)
    chance = exp(logs[best] - walk.log_sum(list(logs.values())))
    enough = {
        # That all numbers were taken explains any ports; and any port is some delta away from one local port.
        Allocation.PRESERVING: len(_agreeing(taken, 0)) >= 1,
        Allocation.CONSTANT_DELTA: len(_agreeing(taken, delta)) >= 2,
        Allocation.RANDOM: len(taken) >= ENOUGH_FOR_RANDOM,
    }
    return (best, chance) if chance >= SURE and enough.get(best, True) else (Allocation.UNKNOWN, 0.0)


def _agreeing(taken: Sequence[Observation], delta: int) -> set[int]:
    """The local ports with a mapping that far away."""
    return {each.local.port for each in taken if each.mapped.port - each.local.port == delta}


def _commonest_delta(seen: Sequence[Observation]) -> int:
    firsts = [run[0] for run in _runs_of_each_port(seen).values()]
    deltas = Counter(taken.port - taken.local for taken in firsts if taken.port != taken.local)
    return deltas.most_common(1)[0][0] if deltas else 0


def _fit_of_delta(runs: tuple[walk.Run, ...], delta: int) -> float:
    """The log likelihood where each local port's first mapping is `delta` away, and further ones walk on or jump."""
    met = [run[0].port == run[0].local + delta for run in runs]
    firsts = sum(log(1 - COLLISION) if hit else log(COLLISION) + _ANY_PORT for hit in met)
    further = sum(len(run) - 1 for run in runs)
    if not further:
        return firsts
    return firsts + log(0.5) + walk.log_sum([walk.evidence(runs), further * _ANY_PORT])


def _fit_of_sequence(runs: tuple[walk.Run, ...]) -> float:
    return len(runs) * _ANY_PORT + walk.log_sum(_fits_of_orders(runs))


def _fits_of_orders(runs: tuple[walk.Run, ...]) -> tuple[float, float]:
    """As the SYNs left; or, rarely, in another order, where some were overtaken or sent again."""
    ways = sum(map(_log_ways, runs))
    return log(0.9) + walk.evidence(runs), log(0.1) - ways + walk.evidence(tuple(map(_by_port, runs)))


def _log_ways(run: walk.Run) -> float:
    """The log of how many orders are no further from that of the ports than this one: which were late, and where."""
    places = {(each.port, each.local): place for place, each in enumerate(_by_port(run))}
    rising: list[int] = []  # at each index the lowest end of a rising subsequence of that length
    for each in run:
        place = places[each.port, each.local]
        at = bisect_left(rising, place)
        rising[at : at + 1] = [place]
    late = len(run) - len(rising)
    return min(2 * late * log(len(run)), lgamma(len(run) + 1))


def _in_order(runs: dict[str, walk.Run]) -> dict[str, walk.Run]:
    as_sent, by_port = _fits_of_orders(tuple(runs.values()))
    return runs if as_sent >= by_port else {address: _by_port(run) for address, run in runs.items()}


def _step_and_busy(seen: Sequence[Observation]) -> tuple[int, float]:
    runs = tuple(_in_order(_runs(seen)).values())
    return walk.likeliest(walk.weigh(runs), runs)


def _by_port(run: walk.Run) -> walk.Run:
    """In ascending order round the circle of ports, from behind the widest gap; times in order, too."""
    ports = sorted(run)
    gaps = [(taken.port - ports[index - 1].port) % walk.SPAN for index, taken in enumerate(ports)]
    start = gaps.index(max(gaps))
    times = sorted(taken.at_s for taken in run)
    # How many other flows of our own left before each: one that comes late was not the last to leave.
    left = dict(zip(run, accumulate(taken.own for taken in run), strict=True))
    ordered = ports[start:] + ports[:start]
    most = list(accumulate((left[taken] for taken in ordered), max))
    return tuple(
        each._replace(at_s=at_s, own=now - before)
        for each, at_s, now, before in zip(ordered, times, most, most[:1] + most, strict=False)
    )


def _fit_of_chance(runs: tuple[walk.Run, ...]) -> float:
    """Any port of a block of unknown size and place, all alike; or only those of the local port's parity."""
    taken = [each for run in runs for each in run]
    keeps = all(not (each.port ^ each.local) & 1 for each in taken)
    parity = log(0.8 + 0.2 * 2 ** len(taken) * keeps)
    return parity + walk.log_sum([_fit_of_block(taken, width) - log(len(_BLOCKS)) for width in _BLOCKS])


def _fit_of_block(taken: Sequence[walk.Taken], width: int) -> float:
    ports = [each.port for each in taken]
    places = width - (max(ports) - min(ports))
    return -inf if places <= 0 else log(places / walk.SPAN) - len(ports) * log(width)


def _pooling(seen: Sequence[Observation], contradicted: bool) -> Pooling:
    addresses = {each.mapped.address for each in seen}
    if len(addresses) > 1:
        return Pooling.UNKNOWN if contradicted else Pooling.ARBITRARY
    return Pooling.PAIRED if len(new_mappings(seen)) >= ENOUGH_FOR_PAIRED else Pooling.UNKNOWN


def _layers(mapping: Mapping, seen: Sequence[Observation], gateway: str | None) -> int | None:
    """A public address that no server saw tells nothing: a router may have several ways out."""
    if mapping is Mapping.NONE:
        return 0
    if not seen or gateway is None:
        return None
    if gateway in {each.mapped.address for each in seen}:
        return 1
    return None if ipaddress.ip_address(gateway).is_global else 2


def predict(
    profile: Profile, now_ns: int, most: int = 64, *, remote: Endpoint | None = None, before: int = 0
) -> tuple[Prediction, ...]:
    """Where the punch port's next new mapping will be, best first, at most `most`; none where nobody can say.

    `now_ns`: when its SYN will leave, by the observations' clock. `remote`: to whom, where that is known: a mapping
    that already serves it is used again. `before`: how many other new mappings the punch port will make until then,
    right before it. The probabilities add up to 1 at most; the rest is what is not listed or cannot be foreseen.
    """
    again = _used_again(profile, _of_punch_port(profile.observations, profile.hosts), remote)
    if again is not None:
        return (Prediction(again, profile.confidence),)[:most]
    port = _punch_port(profile.observations, profile.hosts)
    if profile.mapping not in _NEW_FOR_OTHERS or port is None or not profile.observations:
        return ()
    chances = _next_ports(profile, port, now_ns / 1e9, before)
    best = sorted(chances, key=lambda each: -each.probability)
    return tuple(best[:most])


def foresee(profile: Profile, now_ns: int, count: int) -> tuple[dict[int, float], ...]:
    """For each of the next `count` new mappings of a SEQUENTIAL profile, the chance of each port; else nothing.

    The first one's SYN leaves at `now_ns`, by the observations' clock; the others follow right behind it, from local
    ports of the punch port's parity. The ports are those of the address last seen.
    """
    port = _punch_port(profile.observations, profile.hosts)
    if profile.allocation is not Allocation.SEQUENTIAL or profile.mapped is None or port is None:
        return ()
    runs = _in_order(_foretelling(profile))
    if profile.mapped.address not in runs:
        return ()
    last = runs[profile.mapped.address][-1]
    return walk.each_ahead(walk.weigh(tuple(runs.values())), last, port, now_ns / 1e9, count)


def _foretelling(profile: Profile) -> dict[str, walk.Run]:
    """The runs, by which both sides foresee: of what is this program's own, the peer is told nothing."""
    if any(each.own for each in profile.observations):  # so there is but one address
        return _runs(own_taken_out(profile))
    return _runs(profile.observations)


_NEW_FOR_OTHERS = {Mapping.ADDRESS_DEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT}


def _used_again(profile: Profile, ours: Sequence[Observation], remote: Endpoint | None) -> Endpoint | None:
    if profile.mapping in {Mapping.NONE, Mapping.ENDPOINT_INDEPENDENT}:
        return profile.mapped
    if remote is None or profile.mapping is Mapping.UNKNOWN:
        return None
    by_address = profile.mapping is Mapping.ADDRESS_DEPENDENT
    same = [each for each in ours if each.server == remote or (by_address and each.server.address == remote.address)]
    return same[-1].mapped if same else None


def _next_ports(profile: Profile, local: int, at_s: float, before: int) -> list[Prediction]:
    if profile.allocation is Allocation.SEQUENTIAL:
        runs = _in_order(_foretelling(profile))
        chances = _walking_on(walk.weigh(tuple(runs.values())), runs, local, at_s, before)
    elif profile.allocation in {Allocation.PRESERVING, Allocation.CONSTANT_DELTA}:
        chances = _keeping(profile, local, before)
    else:
        return []
    return [
        Prediction(Endpoint(address, port), profile.confidence * share * chance)
        for address, share in _shares(profile).items()
        for port, chance in chances.get(address, {}).items()
    ]


def _shares(profile: Profile) -> dict[str, float]:
    """How likely each public address is to be the next one's. What is seen once hints at what was not seen yet."""
    counts = Counter(each.mapped.address for each in new_mappings(profile.observations))
    if len(counts) == 1:
        return dict.fromkeys(counts, 1.0)
    unseen = sum(count == 1 for count in counts.values()) / counts.total()  # I. J. Good's estimate, 1953
    return dict.fromkeys(counts, (1 - unseen) / len(counts))


def _walking_on(
    weights: walk.Weights, runs: dict[str, walk.Run], local: int, at_s: float, before: int
) -> dict[str, dict[int, float]]:
    return {address: walk.ahead(weights, run[-1], local, at_s, before) for address, run in runs.items()}


def _keeping(profile: Profile, local: int, before: int) -> dict[str, dict[int, float]]:
    """The number itself where it is new at an address. It is not there twice, so from then on a walk, if anything."""
    runs = _runs_of_each_port(profile.observations)
    known = tuple(runs.values())
    jumps = sum(len(run) - 1 for run in known) * _ANY_PORT
    walks = exp(walk.evidence(known) - walk.log_sum([walk.evidence(known), jumps]))
    # Others are in the way of a walk to the next free number only where they have that very one.
    quiet = {each: weight for each, weight in walk.weigh(known).items() if each.busy <= 2 * COLLISION and not each.rate}
    ours = {address: run for (address, port), run in runs.items() if port == local}
    on = _walking_on(quiet, ours, local, 0.0, before)
    fresh = {} if before else {walk.wrapped(local + (profile.delta or 0)): 1 - COLLISION}
    chances = {address: {port: walks * chance for port, chance in ports.items()} for address, ports in on.items()}
    return {address: chances.get(address, fresh) for address, _ in runs}
