"""Views of what servers saw of this host's ports: new mappings alone, and the runs that their ports make."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from simopen.model.endpoint import Endpoint
from simopen.model.nat import Observation
from simopen.nat import port_sequence

COLLISION = 0.05
"""Chance that a NAT that keeps port numbers cannot, because somebody has that one. Assumed."""


def punch_port(seen: Sequence[Observation], hosts: Sequence[Endpoint]) -> int | None:
    if hosts:
        return hosts[0].port
    return Counter(each.local.port for each in seen).most_common(1)[0][0] if seen else None


def of_punch_port(seen: Sequence[Observation], hosts: Sequence[Endpoint]) -> list[Observation]:
    return [each for each in seen if each.local.port == punch_port(seen, hosts)]


def new_mappings(seen: Sequence[Observation]) -> list[Observation]:
    """The first observation of each mapping, in order."""
    first: dict[tuple[Endpoint, Endpoint], Observation] = {}
    for each in seen:
        first.setdefault((each.local, each.mapped), each)
    return list(first.values())


def runs_of_each_address(seen: Sequence[Observation]) -> dict[str, port_sequence.Run]:
    """The new mappings at each public address: each has ports of its own."""
    runs: dict[str, list[port_sequence.Taken]] = defaultdict(list)
    for each in new_mappings(seen):
        runs[each.mapped.address].append(_taken(each))
    return {key: tuple(run) for key, run in runs.items()}


def runs_of_each_port(seen: Sequence[Observation]) -> dict[tuple[str, int], port_sequence.Run]:
    """The same, of each local port apart, without times and other flows: the next free number is what is taken."""
    runs: dict[tuple[str, int], list[port_sequence.Taken]] = defaultdict(list)
    for each in new_mappings(seen):
        runs[each.mapped.address, each.local.port].append(_taken(each)._replace(at_s=0.0, own=0))
    return {key: tuple(run) for key, run in runs.items()}


def _taken(each: Observation) -> port_sequence.Taken:
    return port_sequence.Taken(each.mapped.port, each.local.port, each.at_ns / 1e9, each.own)
