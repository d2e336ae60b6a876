"""Which ports of a NAT's row this program's own other flows have taken, so that they are not taken for others'.

Theory of operation: every flow that crosses the NAT and makes a mapping of its own takes one port of the row, those of
UDP only where the NAT counts both protocols in one. `own_counted` tells which of the two by what fits the ports seen;
`own_taken_out` gives the row as a peer needs it, who knows nothing of these flows.

Pure: no socket and no clock. `own_flows.py` notes what is sent.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from math import log
from typing import TypeAlias

from simopen.model.endpoint import Endpoint
from simopen.model.nat import NEW_FOR_OTHERS, Allocation, Mapping, Observation, Profile
from simopen.nat import port_sequence
from simopen.nat.observations import new_mappings, runs_of_each_address
from simopen.net.own_flows import Flow

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


def own_counted(
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
    fit_apart, fit_together = (
        port_sequence.fit_of_sequence(tuple(runs_of_each_address(each).values())) for each in (apart, together)
    )
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
    """How far the flows that left after its last observation have moved a SEQUENTIAL profile's row.

    In new mappings of the punch port: where parity is kept, flows of both parities take fewer ports than its own do.
    """
    in_a_row = profile.allocation is Allocation.SEQUENTIAL and profile.mapping in NEW_FOR_OTHERS
    if not in_a_row or not profile.observations:
        return 0
    counted = [flow for flow in flows if flow.is_tcp or profile.one_row]
    ours, step = _unseen(profile.observations, counted, profile.mapping), profile.step or 1
    if step < 0 or not _keeps_parity(profile.observations):
        return len(ours)
    begun = port = profile.observations[-1].mapped.port
    for flow in ours:
        port += step
        port += (port ^ flow.local_port) & 1
    return round((port - begun) / (step + (step & 1)))


def _keeps_parity(seen: Sequence[Observation]) -> bool:
    return not any((each.mapped.port ^ each.local.port) & 1 for each in seen)


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
    (run,) = port_sequence.in_order(runs_of_each_address(here)).values()
    keeps_parity = _keeps_parity(here)
    gone = [port_sequence.without_own(before, taken, profile.step) for before, taken in pairwise(run)]
    moved: dict[tuple[int, int], int] = {}
    for taken, steps in zip(reversed(run), accumulate(reversed(gone), initial=0), strict=True):
        distance = steps * profile.step
        moved[taken.port, taken.local] = port_sequence.wrapped(taken.port + distance - (distance & 1 & keeps_parity))
    return [
        replace(each, mapped=each.mapped._replace(port=moved[each.mapped.port, each.local.port]), own=0)
        for each in here
    ]
