"""Punches without sockets: two hosts that open simultaneously over the pure core, on a clock of their own.

What they cannot represent: a kernel's timers beyond one resend of the SYN after 1 s, a listener, data, a FIN.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from simopen.lab.nat.presets import parse_nats
from simopen.lab.net.conditions import Conditions, addresses_of
from simopen.lab.net.core import Core
from simopen.lab.net.record import Record
from simopen.lab.net.wire import parse
from simopen.lab.packet import Flags, Packet
from simopen.model.endpoint import Endpoint
from tests.lab.packets import tcp

MS = 1_000_000
SYN, SYN_ACK = int(Flags.SYN), int(Flags.SYN | Flags.ACK)
PORT = 1314


@dataclass
class Peer:
    """One host's end: it fires again after a RST or an ICMP error, and answers a SYN."""

    name: str
    local: Endpoint
    remote: Endpoint
    isn: int
    established: bool = False
    heard: int = 0

    def answer(self, packet: Packet) -> tuple[int, int] | None:
        """The flags to send now, and after how many ns, if anything."""
        if self.established:
            return None
        if packet.is_rst or packet.headers.quoted is not None:
            return SYN, MS
        self.heard = packet.seq
        if packet.is_syn_ack:
            self.established = True
            return None
        return (SYN_ACK, MS // 5) if packet.is_syn else None


@dataclass
class Punch:
    """The hosts, the core between them, and what is to be sent when."""

    core: Core
    peers: dict[str, Peer]
    agenda: list[tuple[int, str, int]] = field(default_factory=list)

    def fire(self, name: str, at_ns: int) -> None:
        """A SYN now, and one a second later, as the kernel's resend."""
        self.agenda += [(at_ns, name, SYN), (at_ns + 1000 * MS, name, SYN)]
        heapq.heapify(self.agenda)

    def run(self, until_ns: int) -> Record:
        while (
            now_ns := min((self.core.due_ns or until_ns), *(due[0] for due in self.agenda[:1]), until_ns)
        ) < until_ns:
            while self.agenda and self.agenda[0][0] <= now_ns:
                self._send(*heapq.heappop(self.agenda))
            while (arrival := self.core.take_due(now_ns)) is not None:
                reply = self.peers[arrival.host].answer(parse(arrival.data))
                if reply is not None:
                    heapq.heappush(self.agenda, (now_ns + reply[1], arrival.host, reply[0]))
        return Record(self.core.passages())

    def _send(self, now_ns: int, name: str, flags: int) -> None:
        peer = self.peers[name]
        if flags == SYN and (peer.established or peer.heard):
            return
        ack = {"ack": peer.heard + 1} if flags == SYN_ACK else {}
        self.core.offer(name, tcp(peer.local, peer.remote, flags, seq=peer.isn, **ack), now_ns)


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
    core, addresses = Core(seed), {}
    for number, (name, spec) in enumerate([("left", left), ("right", right)], 1):
        conditions = Conditions(delay_s=delay_ms / 2e3, loss=loss, nat=parse_nats(spec) or None)
        addresses[name] = addresses_of(number, conditions.nats)
        core.attach(name, conditions, addresses[name])
    ends = {name: (Endpoint(each.private, PORT), Endpoint(each.public, PORT)) for name, each in addresses.items()}
    punch = Punch(
        core,
        {
            "left": Peer("left", ends["left"][0], ends["right"][1], 1000),
            "right": Peer("right", ends["right"][0], ends["left"][1], 5000),
        },
    )
    punch.fire("left", 0)
    punch.fire("right", round(apart_ms * MS))
    return punch.run(3000 * MS)
