"""Punches without sockets: two simulated hosts, with the library's own engine, over the lab's pure core.

What they cannot represent: data, a FIN, and what `benchmarks/simulation/host.py` says.
"""

from __future__ import annotations

import heapq
import itertools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.simulation.host import Host
from benchmarks.simulation.tcp import Segment
from simopen.lab.nat.presets import parse_nats
from simopen.lab.net.conditions import Conditions, addresses_of
from simopen.lab.net.core import Core
from simopen.lab.net.record import Record
from simopen.lab.net.wire import parse
from simopen.lab.packet import Flags, Packet
from simopen.model.endpoint import Endpoint
from tests.lab.packets import tcp

MS = 1_000_000
PORT = 1314
_TAKES_NS = MS // 5  # a host, to send what it has decided to
_QUOTED_SEQ = 20 + 8 + 20 + 4  # after the IP and ICMP headers, and the quoted packet's IP header and ports


@dataclass
class Punch:
    """The hosts, the core between them, and what is to be called when."""

    core: Core
    now_ns: int = 0
    hosts: dict[str, Host] = field(default_factory=dict)
    agenda: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def run(self, until_ns: int) -> Record:
        """Let time pass."""
        while (due_ns := min(self.core.due_ns or until_ns, *(due[0] for due in self.agenda[:1]), until_ns)) < until_ns:
            self.now_ns = due_ns
            while self.agenda and self.agenda[0][0] <= self.now_ns:
                _, _, call, arguments = heapq.heappop(self.agenda)
                call(*arguments)
            while (arrival := self.core.take_due(self.now_ns)) is not None:
                _arrive(self.hosts[arrival.host], parse(arrival.data))
        return Record(self.core.passages())


def _arrive(host: Host, packet: Packet) -> None:
    if (quoted := packet.headers.quoted) is not None:
        (seq,) = struct.unpack_from("!I", packet.data, _QUOTED_SEQ)
        host.unreachable(quoted.destination, Segment(Flags.SYN, seq))
    else:
        host.receive(packet.source, Segment(packet.flags, packet.seq, packet.ack))


@dataclass
class Wire:
    """One host's way into the core; a `Carrier`."""

    punch: Punch
    name: str

    @property
    def now_ns(self) -> int:
        return self.punch.now_ns

    def at(self, when_ns: int, call: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self.punch.agenda, (when_ns, next(self.punch.numbers), call, arguments))

    def carry(self, local: Endpoint, remote: Endpoint, segment: Segment) -> None:
        data = tcp(local, remote, int(segment.flags), seq=segment.seq, ack=segment.ack)
        self.at(self.now_ns + _TAKES_NS, self._offer, data)

    def _offer(self, data: bytes) -> None:
        self.punch.core.offer(self.name, data, self.now_ns)


def punched(
    left: str = "home",
    right: str = "home",
    *,
    apart_ms: float = 0.4,
    loss: float = 0.0,
    delay_ms: float = 40,
    seed: int = 1,
) -> Record:
    """The record of two hosts behind the described NATs that fire at each other's port 1314, `apart_ms` apart."""
    punch, public = Punch(Core(seed)), {}
    for number, (name, spec) in enumerate([("left", left), ("right", right)], 1):
        conditions = Conditions(delay_s=delay_ms / 2e3, loss=loss, nat=parse_nats(spec) or None)
        addresses = addresses_of(number, conditions.nats)
        punch.core.attach(name, conditions, addresses)
        local, public[name] = Endpoint(addresses.private, PORT), Endpoint(addresses.public, PORT)
        punch.hosts[name] = Host(Wire(punch, name), local, isn=1000 + 4000 * number)
    punch.hosts["left"].aim(public["right"], 0, 3000 * MS)
    punch.hosts["right"].aim(public["left"], round(apart_ms * MS), 3000 * MS)
    return punch.run(3000 * MS)
