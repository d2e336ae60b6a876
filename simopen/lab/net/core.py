"""The core: every packet's way from one host to another.

Theory of operation. A packet leaves its host, is translated by that host's NATs at once, crosses the sender's access,
the core and the receiver's access, and is put before the receiver's NATs when it is due. Chance is drawn when the
packet is sent, from one seeded generator per access and direction, so that a run can be repeated: what other hosts do
changes no draw. An access with a bandwidth is a first-in, first-out queue each way: the sender's before the delay, the
receiver's after it. Hosts behind the same NATs reach each other's own addresses directly, and their public ones only
where a NAT hairpins; neither takes time. What is to happen later waits in a heap.

Pure: `offer` takes bytes and `now_ns`, `due_ns` says when to come back, `take_due` gives what to hand over then. No
socket, no clock. The record is kept here too, since every verdict falls here.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from random import Random
from typing import NamedTuple

from simopen.lab.nat.chain import Chain, Outcome
from simopen.lab.nat.model import HOLD_NS, Unsolicited
from simopen.lab.nat.translator import Translator
from simopen.lab.net.conditions import CORE, QUEUE_S, Addresses, Conditions, router_address
from simopen.lab.net.linux_router import first_router
from simopen.lab.net.record import Origin, Passage, Step, Verdict
from simopen.lab.net.wire import (
    NotAPacket,
    aged,
    echo_reply_for,
    is_link_noise,
    numbers_of,
    parse,
    port_unreachable_for,
    reset_for,
    time_exceeded_for,
    with_headers,
)
from simopen.lab.packet import Numbers, Packet

_VERDICTS = {
    Unsolicited.DROP: Verdict.FILTERED,
    Unsolicited.RESET: Verdict.RESET,
    Unsolicited.ICMP: Verdict.REFUSED_ICMP,
    Unsolicited.HOLD: Verdict.HELD,
    Unsolicited.ACCEPT: Verdict.ACCEPTED,
}
_ANSWERS: dict[Unsolicited, Callable[[Packet], Packet | None]] = {
    Unsolicited.RESET: reset_for,
    Unsolicited.ICMP: port_unreachable_for,
    Unsolicited.ACCEPT: echo_reply_for,
}


@dataclass(frozen=True, slots=True)
class Arrival:
    """A packet to hand to a host now."""

    host: str
    data: bytes


_Action = Callable[[int], Arrival | None]
"""What to do when the time has come, which it is told."""


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
    decided_by: str = ""
    steps: list[Step] = field(default_factory=list)

    def pass_nats(self, host: str, outcome: Outcome, now_ns: int) -> None:
        """Note what a row of NATs did with it."""
        self.steps += [Step(host, nat, now_ns, headers) for nat, headers in outcome.passed]
        if outcome.nat is not None:
            self.steps.append(Step(host, outcome.nat, now_ns, None))

    def passage(self) -> Passage:
        ends, times = (self.source, self.destination), (self.sent_ns, self.received_ns)
        data = (self.sent_data, self.received_data)
        return Passage(*ends, self.origin, self.verdict, *times, *data, self.decided_by, tuple(self.steps))


class _Queue:
    """One direction of an access's link: packets go one after the other, each in its time."""

    def __init__(self, bandwidth_bps: float | None) -> None:
        self._bandwidth_bps = bandwidth_bps
        self._free_ns = 0

    def take(self, size: int, now_ns: int) -> int | None:
        """When a packet of that many bytes is through; None where too much is before it."""
        if self._bandwidth_bps is None:
            return now_ns
        begin_ns = max(now_ns, self._free_ns)
        if begin_ns - now_ns > QUEUE_S * 1e9:
            return None
        self._free_ns = begin_ns + round(size * 8e9 / self._bandwidth_bps)
        return self._free_ns


@dataclass(slots=True)
class _Access:
    """The way to the core and back that the hosts of one LAN share. Its name is the first host's."""

    name: str
    conditions: Conditions
    chain: Chain
    outward: Random
    inward: Random
    up: _Queue
    down: _Queue
    hosts: dict[str, str] = field(default_factory=dict)  # address -> name

    def name_nat(self, index: int | None) -> str:
        return "" if index is None else f"{self.name}/{index}"

    def numbers(self, packet: Packet) -> Numbers | None:
        """What its NATs want to know of a segment beyond its headers."""
        return numbers_of(packet) if self.chain.tracks else None

    def wait_s(self, draws: Random) -> float:
        jitter_s = self.conditions.jitter_s
        return self.conditions.delay_s + (draws.uniform(0, jitter_s) if jitter_s else 0.0)

    def loses(self, draws: Random) -> bool:
        return bool(self.conditions.loss) and draws.random() < self.conditions.loss

    def duplicates(self, draws: Random) -> bool:
        return bool(self.conditions.duplicate) and draws.random() < self.conditions.duplicate


class _Held(NamedTuple):
    """A SYN that a NAT keeps: as that NAT saw it, whose NAT, and since when."""

    packet: Packet
    access: _Access
    nat: int
    since_ns: int


class Core:
    """The paths between all hosts of a network."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._accesses: dict[str, _Access] = {}  # by host
        self._own: dict[str, frozenset[str]] = {}  # each host's addresses
        self._routes: dict[str, _Access] = {}
        self._agenda: list[tuple[int, int, _Action]] = []
        self._numbers = count()  # what is due together keeps its order
        self._last_due_ns: dict[tuple[str, str], int] = {}
        self._entries: list[_Entry] = []

    def attach(self, name: str, conditions: Conditions, addresses: Addresses, beside: str | None = None) -> None:
        """Add a host. Its name is new, and is not the core's; `beside` is one with which it shares its access."""
        access = self._new_access(name, conditions, addresses) if beside is None else self._accesses[beside]
        own = frozenset({addresses.private, addresses.private6} | ({addresses.second} if addresses.second else set()))
        self._accesses[name], self._own[name] = access, own
        access.hosts.update(dict.fromkeys(own, name))
        outermost = next((pool for pool in reversed(addresses.pools) if pool), (addresses.public,))
        second = (addresses.second,) if addresses.second else ()
        self._routes.update(dict.fromkeys((*outermost, addresses.public6, *second), access))

    def route_through(self, host: str, address: str) -> None:
        """What has that address is behind this host, which is a router."""
        access = self._accesses[host]
        self._own[host] |= {address}
        access.hosts[address], self._routes[address] = host, access

    @property
    def due_ns(self) -> int | None:
        """When to come back; None while nothing is under way."""
        return self._agenda[0][0] if self._agenda else None

    def offer(self, host: str, data: bytes, now_ns: int) -> None:
        """A host has sent this. What is no IP packet, or never leaves a link, is passed over in silence."""
        try:
            packet = parse(data)
        except NotAPacket:
            return
        if is_link_noise(packet):
            return
        access, entry = self._accesses[host], self._note(host, Origin.HOST, packet, now_ns)
        if packet.source.address not in self._own[host]:
            entry.verdict = Verdict.FILTERED  # BCP 38: a forged source goes nowhere
        elif packet.ttl <= 1 and access.chain.tracks:
            self._stop(entry, packet, access, now_ns)
        elif access.hosts.get(packet.destination.address, host) == host:
            outcome = access.chain.outbound(packet.headers, now_ns, numbers=access.numbers(packet))
            self._send(entry, packet, access, outcome)
        elif access.conditions.isolated:
            entry.verdict = Verdict.FILTERED
        else:
            self._hand_over(entry, packet, access, now_ns)

    def take_due(self, now_ns: int) -> Arrival | None:
        """The next packet that is due and gets past its receiver's NATs; None when none is due (any more)."""
        while self._agenda and self._agenda[0][0] <= now_ns:
            arrival = heapq.heappop(self._agenda)[2](now_ns)
            if arrival is not None:
                return arrival
        return None

    def passages(self) -> list[Passage]:
        """The record so far."""
        return [entry.passage() for entry in self._entries]

    def forget_passages(self) -> None:
        """Begin the record anew. Packets under way arrive, and are not in it."""
        self._entries = []

    def _new_access(self, name: str, conditions: Conditions, addresses: Addresses) -> _Access:
        seed = f"{self._seed}/{name}"
        translators = [
            Translator(nat, *pool, seed=f"{seed}/nat {index}")
            for index, (nat, pool) in enumerate(zip(conditions.nats, addresses.pools, strict=True))
        ]
        draws = Random(f"{seed}/outward"), Random(f"{seed}/inward")
        queues = _Queue(conditions.bandwidth_bps), _Queue(conditions.bandwidth_bps)
        return _Access(name, conditions, Chain(translators), *draws, *queues)

    def _at(self, due_ns: int, action: _Action) -> None:
        heapq.heappush(self._agenda, (due_ns, next(self._numbers), action))

    def _stop(self, entry: _Entry, packet: Packet, access: _Access, now_ns: int) -> None:
        """Let a packet's hops run out at the first NAT, where that is a Linux router's model: it is a router too."""
        access.chain.translators[0].stop(packet.headers, now_ns)
        entry.verdict = Verdict.EXPIRED
        if packet.headers.quoted is None:
            error = time_exceeded_for(packet, first_router(packet.source.address))
            self._hand_over(self._note(access.name, Origin.NAT, error, now_ns), error, access, now_ns)

    def _send(self, entry: _Entry, packet: Packet, access: _Access, outcome: Outcome) -> None:
        """Send what left the hosts of an access, as its NATs decided."""
        entry.pass_nats(access.name, outcome, entry.sent_ns)
        if isinstance(outcome.decision, Unsolicited):
            self._refuse(entry, packet, access, outcome, entry.sent_ns)
            return
        packet = with_headers(packet, outcome.decision)
        destination = self._routes.get(packet.destination.address)
        if outcome.inside:
            self._hand_over(entry, packet, access, entry.sent_ns)
        elif destination is None or destination is access:
            entry.verdict = Verdict.UNROUTABLE
        else:
            entry.destination = destination.name
            self._cross(entry, packet, access, destination)

    def _hand_over(self, entry: _Entry, packet: Packet, access: _Access, now_ns: int) -> None:
        """Deliver on the LAN, at once."""
        entry.destination = access.hosts[packet.destination.address]
        self._at(now_ns, partial(self._deliver, entry, packet))

    def _cross(self, entry: _Entry, packet: Packet, source: _Access, destination: _Access) -> None:
        # Every draw is made for every packet: one packet's fate never shifts the next one's.
        lost = (source.loses(source.outward), destination.loses(destination.inward))
        wait_s = source.wait_s(source.outward) + destination.wait_s(destination.inward)
        copies = source.duplicates(source.outward) + destination.duplicates(destination.inward)
        hops = source.conditions.hops + destination.conditions.hops
        left_ns = source.up.take(len(packet.data), entry.sent_ns)
        if any(lost) or left_ns is None:
            entry.verdict = Verdict.LOST
        elif packet.ttl <= hops:
            self._expire(entry, packet, source, destination, left_ns)
        else:
            due_ns = self._due_ns(left_ns + round(wait_s * 1e9), source, destination)
            for each in (entry, *(self._copy(entry) for _ in range(copies))):
                self._at(due_ns, partial(self._come_down, each, aged(packet, hops), destination))

    def _due_ns(self, due_ns: int, source: _Access, destination: _Access) -> int:
        path = (source.name, destination.name)
        if not (source.conditions.reorder or destination.conditions.reorder):
            due_ns = max(due_ns, self._last_due_ns.get(path, 0))
        self._last_due_ns[path] = due_ns
        return due_ns

    def _expire(self, entry: _Entry, packet: Packet, source: _Access, destination: _Access, left_ns: int) -> None:
        """Send the ICMP error back from the router at which the hops ran out, after the time to there and back."""
        entry.verdict = Verdict.EXPIRED
        if packet.headers.quoted is not None:
            return  # RFC 1122 §3.2.2: no error about an error
        router = router_address(packet.ttl, ipv6=":" in packet.source.address)
        error = time_exceeded_for(packet, router)
        answer = self._note(CORE, Origin.CORE, error, entry.sent_ns)
        answer.destination = source.name
        wait_ns = round(2e9 * _delay_to_hop_s(packet.ttl, source.conditions, destination.conditions))
        self._at(left_ns + wait_ns, partial(self._come_down, answer, error, source))

    def _come_down(self, entry: _Entry, packet: Packet, access: _Access, now_ns: int) -> Arrival | None:
        """Pass the receiver's link, in turn."""
        if access.conditions.bandwidth_bps is None:
            return self._arrive(entry, packet, access, now_ns)
        through_ns = access.down.take(len(packet.data), now_ns)
        if through_ns is None:
            entry.verdict = Verdict.LOST
        else:
            self._at(through_ns, partial(self._arrive, entry, packet, access))
        return None

    def _arrive(self, entry: _Entry, packet: Packet, access: _Access, now_ns: int) -> Arrival | None:
        """Come before the receiver's NATs."""
        outcome = access.chain.inbound(packet.headers, now_ns, numbers=access.numbers(packet))
        entry.pass_nats(access.name, outcome, now_ns)
        if isinstance(outcome.decision, Unsolicited):
            self._refuse(entry, packet, access, outcome, now_ns)
            return None
        entry.destination = access.hosts[outcome.headers.destination.address]
        return self._deliver(entry, with_headers(packet, outcome.headers), now_ns)

    def _deliver(self, entry: _Entry, packet: Packet, now_ns: int) -> Arrival:
        entry.verdict, entry.received_ns, entry.received_data = Verdict.DELIVERED, now_ns, packet.data
        return Arrival(entry.destination, packet.data)

    def _refuse(self, entry: _Entry, packet: Packet, access: _Access, outcome: Outcome, now_ns: int) -> None:
        """Do what a NAT does with a packet that it does not let pass."""
        decision, nat = outcome.decision, outcome.nat
        assert isinstance(decision, Unsolicited)
        assert nat is not None
        entry.verdict, entry.decided_by = _VERDICTS[decision], access.name_nat(nat)
        seen = with_headers(packet, outcome.headers)
        if decision is Unsolicited.HOLD:
            self._at(now_ns + HOLD_NS, partial(self._release, entry, _Held(seen, access, nat, now_ns)))
        elif decision in _ANSWERS and (answer := _ANSWERS[decision](seen)) is not None:
            self._answer(answer, access, nat, now_ns)

    def _release(self, entry: _Entry, held: _Held, now_ns: int) -> None:
        """Answer the SYN that a NAT has held, unless it was silently dropped meanwhile."""
        packet, access, nat, since_ns = held
        if access.chain.translators[nat].release(packet.headers, since_ns) is Unsolicited.ICMP:
            entry.verdict = Verdict.REFUSED_ICMP
            self._answer(port_unreachable_for(packet), access, nat, now_ns)

    def _answer(self, packet: Packet, access: _Access, nat: int, now_ns: int) -> None:
        entry = self._note(access.name, Origin.NAT, packet, now_ns)
        outcome = access.chain.answer(packet.headers, now_ns, nat, access.numbers(packet))
        self._send(entry, packet, access, outcome)

    def _note(self, source: str, origin: Origin, packet: Packet, now_ns: int) -> _Entry:
        entry = _Entry(source, "", origin, now_ns, packet.data)
        self._entries.append(entry)
        return entry

    def _copy(self, entry: _Entry) -> _Entry:
        copy = _Entry(entry.source, entry.destination, Origin.CORE, entry.sent_ns, entry.sent_data)
        copy.steps += entry.steps
        self._entries.append(copy)
        return copy


def _delay_to_hop_s(hop: int, source: Conditions, destination: Conditions) -> float:
    """One way to a path's `hop`-th router, counted from 1, the delay of each access spread evenly over its hops."""
    if hop <= source.hops:
        return source.delay_s * hop / source.hops
    return source.delay_s + destination.delay_s * (hop - source.hops) / destination.hops
