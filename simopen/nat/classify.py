"""What a NAT does, from observations of it.

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
- layers: 0 without translation; else the outer address of the nearest router, where that tells (`nat_pmp.py`).
- filtering needs somebody who connects back (`filtering.py`), and hairpinning is the caller's test, too.

What counts is what is seen from outside: NATs in a row are one NAT, and one that gives a local port the same public
endpoint for every server is endpoint-independent, whatever its table looks like.

The words are `model/nat.py`'s, how ports follow each other is `port_sequence.py`'s, and where the next mapping will
be is `predict.py`'s. Here each way to allocate is a hypothesis, and the one that explains the mappings a hundred times
better than all others together is the verdict.

Pure: no socket and no clock. Times are ns of any one clock; only their order and their distances count.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations, groupby
from math import exp, inf, log

from simopen.model.endpoint import Endpoint
from simopen.model.nat import Allocation, Filtering, Mapping, Observation, Pooling, Profile
from simopen.nat import port_sequence
from simopen.nat.observations import COLLISION, new_mappings, of_punch_port, runs_of_each_address, runs_of_each_port
from simopen.nat.own_ports import own_counted
from simopen.net.own_flows import Flow

SURE = 0.99
"""An allocation is named where its posterior probability is this high."""
LIE = 0.02
"""Chance that a server saw something else than what the NAT gave (a proxy, a mapping that just changed). Assumed."""
ENOUGH_FOR_RANDOM = 5
ENOUGH_FOR_PAIRED = 8  # a pool of two given out at random looks paired once in 2^7


def classify(
    observations: Iterable[Observation],
    *,
    hosts: Sequence[Endpoint] = (),
    hairpinning: bool | None = None,
    filtering: Filtering = Filtering.UNKNOWN,
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
    ours = of_punch_port(seen, hosts)
    mapping, mapping_chance, notes = _mapping(ours, set(hosts))
    seen, one_row = own_counted(seen, flows, mapping)
    allocation, allocation_chance = _allocation(seen) if mapping is not Mapping.NONE else (Allocation.PRESERVING, 1.0)
    step, busy = _step_and_busy(seen) if allocation is Allocation.SEQUENTIAL else (None, None)
    mapped = ours[-1].mapped if ours else None
    return Profile(
        mapping=mapping,
        allocation=allocation,
        pooling=_pooling(seen, bool(notes)),
        filtering=filtering,
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


_PRIORS = {
    Allocation.PRESERVING: log(0.4),
    Allocation.SEQUENTIAL: log(0.2),
    Allocation.RANDOM: log(0.3),
    Allocation.CONSTANT_DELTA: log(0.1),
}
_BLOCKS = (*(2**bits for bits in range(9, 16)), port_sequence.SPAN)  # carriers give each user a block (RFC 7422)


def _allocation(seen: Sequence[Observation]) -> tuple[Allocation, float]:
    """The allocation with a posterior of `SURE`, and that; UNKNOWN where there is none."""
    taken = new_mappings(seen)
    if not taken:
        return Allocation.UNKNOWN, 0.0
    runs, each_port = tuple(runs_of_each_address(seen).values()), tuple(runs_of_each_port(seen).values())
    delta = _commonest_delta(seen)
    fits = {
        Allocation.PRESERVING: _fit_of_delta(each_port, 0),
        Allocation.CONSTANT_DELTA: port_sequence.ANY_PORT + _fit_of_delta(each_port, delta),
        Allocation.SEQUENTIAL: port_sequence.fit_of_sequence(runs),
        Allocation.RANDOM: _fit_of_chance(runs),
    }
    logs = {allocation: fit + _PRIORS[allocation] for allocation, fit in fits.items()}
    best = max(logs, key=logs.__getitem__)
    chance = exp(logs[best] - port_sequence.log_sum(list(logs.values())))
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
    firsts = [run[0] for run in runs_of_each_port(seen).values()]
    deltas = Counter(taken.port - taken.local for taken in firsts if taken.port != taken.local)
    return deltas.most_common(1)[0][0] if deltas else 0


def _fit_of_delta(runs: tuple[port_sequence.Run, ...], delta: int) -> float:
    """The log likelihood where each local port's first mapping is `delta` away, and further ones walk on or jump."""
    met = [run[0].port == run[0].local + delta for run in runs]
    firsts = sum(log(1 - COLLISION) if hit else log(COLLISION) + port_sequence.ANY_PORT for hit in met)
    further = sum(len(run) - 1 for run in runs)
    if not further:
        return firsts
    return firsts + log(0.5) + port_sequence.log_sum([port_sequence.evidence(runs), further * port_sequence.ANY_PORT])


def _step_and_busy(seen: Sequence[Observation]) -> tuple[int, float]:
    runs = tuple(port_sequence.in_order(runs_of_each_address(seen)).values())
    return port_sequence.likeliest(port_sequence.weigh(runs), runs)


def _fit_of_chance(runs: tuple[port_sequence.Run, ...]) -> float:
    """Any port of a block of unknown size and place, all alike; or only those of the local port's parity."""
    taken = [each for run in runs for each in run]
    keeps = all(not (each.port ^ each.local) & 1 for each in taken)
    parity = log(0.8 + 0.2 * 2 ** len(taken) * keeps)
    return parity + port_sequence.log_sum([_fit_of_block(taken, width) - log(len(_BLOCKS)) for width in _BLOCKS])


def _fit_of_block(taken: Sequence[port_sequence.Taken], width: int) -> float:
    ports = [each.port for each in taken]
    places = width - (max(ports) - min(ports))
    return -inf if places <= 0 else log(places / port_sequence.SPAN) - len(ports) * log(width)


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
