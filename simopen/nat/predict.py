"""Where a NAT will put the next mappings, by a profile of it.

Theory of operation: a mapping that serves the peer already is used again; else the allocation tells. How ports follow
each other is `port_sequence.py`'s, and how a row of them goes on `port_forecast.py`'s.

Pure: no socket and no clock. Times are ns of any one clock; only their order and their distances count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from math import exp

from simopen.model.endpoint import Endpoint
from simopen.model.nat import NEW_FOR_OTHERS, Allocation, Mapping, Observation, Profile, check_time, check_whole
from simopen.model.times import AnyNs
from simopen.nat import port_forecast, port_sequence
from simopen.nat.observations import (
    COLLISION,
    new_mappings,
    of_punch_port,
    punch_port,
    runs_of_each_address,
    runs_of_each_port,
)
from simopen.nat.own_ports import own_taken_out

MOST_TOLD = 24
"""Of a row's new mappings, only the latest tell where it goes on: discovery makes 14, and each costs 1 ms to weigh."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A public endpoint and the chance, 0 to 1, that the next new mapping gets it."""

    endpoint: Endpoint
    probability: float


def predict(
    profile: Profile, now_ns: AnyNs, most: int = 64, *, remote: Endpoint | None = None, before: int = 0
) -> tuple[Prediction, ...]:
    """Where the punch port's next new mapping will be, best first, at most `most`; none where nobody can say.

    `now_ns`: when its SYN will leave, by the observations' clock. `remote`: to whom, where that is known: a mapping
    that already serves it is used again. `before`: how many other new mappings the punch port will make until then,
    right before it. The probabilities add up to 1 at most; the rest is what is not listed or cannot be foreseen.

    Raises: TypeError, ValueError for a time or a number of no sense.
    """
    _check(now_ns, most=most, before=before)
    again = _used_again(profile, of_punch_port(profile.observations, profile.hosts), remote)
    if again is not None:
        return (Prediction(again, profile.confidence),)[:most]
    port = punch_port(profile.observations, profile.hosts)
    if profile.mapping not in NEW_FOR_OTHERS or port is None or not profile.observations:
        return ()
    chances = _next_ports(profile, port, now_ns / 1e9, before)
    best = sorted(chances, key=lambda each: -each.probability)
    return tuple(best[:most])


def foresee(profile: Profile, now_ns: AnyNs, count: int, least: float = 0.0) -> tuple[dict[int, float], ...]:
    """For each of the next `count` new mappings of a SEQUENTIAL profile, the chance of each port; else nothing.

    It ends before the first of them of whose chances there is less than `least` in all. Raises: as `predict`.

    The first one's SYN leaves at `now_ns`, by the observations' clock; the others follow right behind it, from local
    ports of the punch port's parity. The ports are those of the address last seen.
    """
    _check(now_ns, count=count)
    port = punch_port(profile.observations, profile.hosts)
    if profile.allocation is not Allocation.SEQUENTIAL or profile.mapped is None or port is None:
        return ()
    runs = port_sequence.in_order(_foretelling(profile))
    if profile.mapped.address not in runs:
        return ()
    last = runs[profile.mapped.address][-1]
    weights = port_sequence.weigh(tuple(runs.values()))
    foreseen = port_forecast.each_ahead(weights, last, port, now_ns / 1e9, count)
    return tuple(takewhile(lambda chances: sum(chances.values()) >= least, foreseen))


def _check(now_ns: AnyNs, **counts: int) -> None:
    check_time(now_ns, "now_ns")
    for name, count in counts.items():
        check_whole(count, name, 0, port_sequence.HIGHEST + 1)


def _foretelling(profile: Profile) -> dict[str, port_sequence.Run]:
    """The runs, by which both sides foresee: of what is this program's own, the peer is told nothing."""
    latest = new_mappings(profile.observations)[-MOST_TOLD:]
    if any(each.own for each in latest):  # so there is but one address
        return runs_of_each_address(own_taken_out(replace(profile, observations=tuple(latest))))
    return runs_of_each_address(latest)


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
        runs = port_sequence.in_order(_foretelling(profile))
        chances = _ports_after(port_sequence.weigh(tuple(runs.values())), runs, local, at_s, before)
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


def _ports_after(
    weights: port_sequence.Weights, runs: dict[str, port_sequence.Run], local: int, at_s: float, before: int
) -> dict[str, dict[int, float]]:
    return {address: port_forecast.ahead(weights, run[-1], local, at_s, before) for address, run in runs.items()}


def _keeping(profile: Profile, local: int, before: int) -> dict[str, dict[int, float]]:
    """The number itself where it is new at an address. It is not there twice, so from then on a walk, if anything."""
    runs = runs_of_each_port(profile.observations)
    known = tuple(runs.values())
    jumps = sum(len(run) - 1 for run in known) * port_sequence.ANY_PORT
    in_sequence = exp(port_sequence.evidence(known) - port_sequence.log_sum([port_sequence.evidence(known), jumps]))
    # Others are in the way of a walk to the next free number only where they have that very one.
    weights = port_sequence.weigh(known).items()
    quiet = {each: weight for each, weight in weights if each.busy <= 2 * COLLISION and not each.rate}
    ours = {address: run for (address, port), run in runs.items() if port == local}
    on = _ports_after(quiet, ours, local, 0.0, before)
    fresh = {} if before else {port_sequence.wrapped(local + (profile.delta or 0)): 1 - COLLISION}
    chances = {address: {port: in_sequence * chance for port, chance in ports.items()} for address, ports in on.items()}
    return {address: chances.get(address, fresh) for address, _ in runs}
