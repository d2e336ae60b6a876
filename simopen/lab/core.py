"""The core: every packet's way from one host to another.

Theory of operation. A packet leaves its host, is translated by that host's NAT at once, crosses the sender's access,
the core and the receiver's access, and is put before the receiver's NAT when it is due. All loss is decided when the
packet is sent, with one seeded generator per host and direction, so that a run can be repeated: what other hosts do
changes no draw. The due times wait in a heap.

Pure: `offer` takes bytes and `now_ns`, `due_ns` says when to come back, `take_due` gives what to hand over then. No
socket, no clock. The record is kept here too, since every verdict falls here.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from itertools import count
from random import Random

from simopen.lab.conditions import CORE, Addresses, Conditions, router_address
from simopen.lab.nat import Decision, Translator, Unsolicited
from simopen.lab.packet import Headers, Packet
from simopen.lab.record import Origin, Passage, Verdict
from simopen.lab.wire import NotAPacket, aged, is_link_noise, parse, reset_for, time_exceeded_for, with_headers

_DROPPED = {Unsolicited.DROP: Verdict.FILTERED, Unsolicited.RESET: Verdict.RESET}


@dataclass(frozen=True, slots=True)
class Arrival:
    """A packet to hand to a host now."""

    host: str
    data: bytes


@dataclass(slots=True)
class _Entry:
    """A passage in the making."""

    source: str
    destination: str
    origin: Origin
    sent_ns: int
    sent_data: bytes
    verdict: Verdict = Verdict.IN_FLIGHT
    received_ns: int | None = None
    received_data: bytes | None = None

    def passage(self) -> Passage:
        times = (self.sent_ns, self.received_ns)
        return Passage(
            self.source, self.destination, self.origin, self.verdict, *times, self.sent_data, self.received_data
        )


@dataclass(slots=True)
class _Access:
    """One host's way to the core and back."""

    name: str
    conditions: Conditions
    translator: Translator | None
    outward: Random
    inward: Random
    own_addresses: frozenset[str]

    def outbound(self, headers: Headers, now_ns: int) -> Decision:
        if headers.source.address not in self.own_addresses:
            return Unsolicited.DROP  # BCP 38: a forged source goes nowhere
        return headers if self.translator is None else self.translator.outbound(headers, now_ns)

    def inbound(self, headers: Headers, now_ns: int) -> Decision:
        return headers if self.translator is None else self.translator.inbound(headers, now_ns)

    def wait_s(self, draws: Random) -> float:
        jitter_s = self.conditions.jitter_s
        return self.conditions.delay_s + (draws.uniform(0, jitter_s) if jitter_s else 0.0)

    def loses(self, draws: Random) -> bool:
        return bool(self.conditions.loss) and draws.random() < self.conditions.loss


@dataclass(order=True, slots=True)
class _Delivery:
    due_ns: int
    number: int  # packets that are due together keep their order
    entry: _Entry = field(compare=False)
    packet: Packet = field(compare=False)
    access: _Access = field(compare=False)


class Core:
    """The paths between all hosts of a network."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._accesses: dict[str, _Access] = {}
        self._routes: dict[str, _Access] = {}
        self._queue: list[_Delivery] = []
        self._numbers = count()
        self._last_due_ns: dict[tuple[str, str], int] = {}
        self._entries: list[_Entry] = []

    def attach(self, name: str, conditions: Conditions, addresses: Addresses) -> None:
        """Add a host. Its name is new, and is not the core's."""
        translator = Translator(conditions.nat, addresses.public) if conditions.nat is not None else None
        own = frozenset({addresses.private, addresses.private6})
        outward, inward = Random(f"{self._seed}/{name}/outward"), Random(f"{self._seed}/{name}/inward")
        access = _Access(name, conditions, translator, outward, inward, own)
        self._accesses[name] = access
        self._routes[addresses.public] = self._routes[addresses.public6] = access

    @property
    def due_ns(self) -> int | None:
        """When the next packet is due; None while nothing is under way."""
        return self._queue[0].due_ns if self._queue else None

    def offer(self, host: str, data: bytes, now_ns: int) -> None:
        """A host has sent this. What is no IP packet, or never leaves a link, is passed over in silence."""
        try:
            packet = parse(data)
        except NotAPacket:
            return
        if is_link_noise(packet):
            return
        access = self._accesses[host]
        self._send(access, packet, access.outbound(packet.headers, now_ns), now_ns, Origin.HOST)

    def take_due(self, now_ns: int) -> Arrival | None:
        """The next packet that is due and gets past its receiver's NAT; None when none is due (any more)."""
        while self._queue and self._queue[0].due_ns <= now_ns:
            arrival = self._arrive(heapq.heappop(self._queue), now_ns)
            if arrival is not None:
                return arrival
        return None

    def passages(self) -> list[Passage]:
        """The record so far."""
        return [entry.passage() for entry in self._entries]

    def forget_passages(self) -> None:
        """Begin the record anew. Packets under way arrive, and are not in it."""
        self._entries = []

    def _send(self, access: _Access, packet: Packet, decision: Decision, now_ns: int, origin: Origin) -> None:
        entry = self._note(access.name, origin, packet, now_ns)
        if isinstance(decision, Unsolicited):
            entry.verdict = Verdict.FILTERED
            return
        destination = self._routes.get(decision.destination.address)
        if destination is None or destination is access:
            entry.verdict = Verdict.UNROUTABLE
            return
        entry.destination = destination.name
        self._cross(entry, with_headers(packet, decision), access, destination)

    def _cross(self, entry: _Entry, packet: Packet, source: _Access, destination: _Access) -> None:
        # Every draw is made for every packet: one packet's fate never shifts the next one's.
        lost = (source.loses(source.outward), destination.loses(destination.inward))
        wait_s = source.wait_s(source.outward) + destination.wait_s(destination.inward)
        hops = source.conditions.hops + destination.conditions.hops
        if any(lost):
            entry.verdict = Verdict.LOST
        elif packet.ttl <= hops:
            self._expire(entry, packet, source, destination)
        else:
            self._queue_up(entry, aged(packet, hops), source, destination, round(wait_s * 1e9))

    def _queue_up(self, entry: _Entry, packet: Packet, source: _Access, destination: _Access, wait_ns: int) -> None:
        due_ns, path = entry.sent_ns + wait_ns, (source.name, destination.name)
        if not (source.conditions.reorder or destination.conditions.reorder):
            due_ns = max(due_ns, self._last_due_ns.get(path, 0))
        self._last_due_ns[path] = due_ns
        heapq.heappush(self._queue, _Delivery(due_ns, next(self._numbers), entry, packet, destination))

    def _expire(self, entry: _Entry, packet: Packet, source: _Access, destination: _Access) -> None:
        """Send the ICMP error back from the router at which the hops ran out, after the time to there and back."""
        entry.verdict = Verdict.EXPIRED
        if packet.headers.quoted is not None:
            return  # RFC 1122 §3.2.2: no error about an error
        router = router_address(packet.ttl, ipv6=":" in packet.source.address)
        error = time_exceeded_for(packet, router)
        answer = self._note(CORE, Origin.CORE, error, entry.sent_ns)
        answer.destination = source.name
        wait_ns = round(2e9 * _delay_to_hop_s(packet.ttl, source.conditions, destination.conditions))
        due_ns = entry.sent_ns + wait_ns
        heapq.heappush(self._queue, _Delivery(due_ns, next(self._numbers), answer, error, source))

    def _arrive(self, delivery: _Delivery, now_ns: int) -> Arrival | None:
        entry, packet, access = delivery.entry, delivery.packet, delivery.access
        decision = access.inbound(packet.headers, now_ns)
        if isinstance(decision, Unsolicited):
            entry.verdict = _DROPPED[decision]
            if decision is Unsolicited.RESET:
                reset = reset_for(packet)
                self._send(access, reset, reset.headers, now_ns, Origin.NAT)
            return None
        data = with_headers(packet, decision).data
        entry.verdict, entry.received_ns, entry.received_data = Verdict.DELIVERED, now_ns, data
        return Arrival(access.name, data)

    def _note(self, source: str, origin: Origin, packet: Packet, now_ns: int) -> _Entry:
        entry = _Entry(source, "", origin, now_ns, packet.data)
        self._entries.append(entry)
        return entry


def _delay_to_hop_s(hop: int, source: Conditions, destination: Conditions) -> float:
    """One way to a path's `hop`-th router, counted from 1, the delay of each access spread evenly over its hops."""
    if hop <= source.hops:
        return source.delay_s * hop / source.hops
    return source.delay_s + destination.delay_s * (hop - source.hops) / destination.hops
