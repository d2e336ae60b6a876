"""What a packet says, as values.

Theory of operation. A NAT decides by very little: protocol, two endpoints, the TCP flags, and for an ICMP error the
same of the packet it quotes. That is `Headers`, which a simulator can make without any bytes. `Packet` adds the bytes
and what else a test asks about. Nothing here parses (see `wire.py`), opens a socket or reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import NamedTuple

from simopen.model.endpoint import Endpoint


class Protocol(IntEnum):
    """IANA's protocol numbers, those that a NAT model understands."""

    ICMP = 1
    TCP = 6
    UDP = 17
    ICMPV6 = 58


class Flags(IntFlag):
    """TCP's control bits (RFC 9293 §3.1)."""

    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    URG = 0x20
    ECE = 0x40
    CWR = 0x80


NO_FLAGS = Flags(0)


@dataclass(frozen=True, slots=True)
class Headers:
    """What a NAT looks at and may change. An endpoint's port is 0 where the protocol has none.

    An ICMP echo carries its identifier as a port, on the side that asked: a request as its source's, a reply as its
    destination's, which is how RFC 5508 §3 lets a NAT treat it. `quoted` is the packet that an ICMP error is about.
    `protocol` is a plain number, since a packet may carry one that `Protocol` does not list.
    """

    protocol: int
    source: Endpoint
    destination: Endpoint
    flags: Flags = NO_FLAGS
    quoted: Headers | None = None


class Numbers(NamedTuple):
    """What else a TCP segment says, to a NAT that looks at sequence numbers.

    `end` is the number after its last byte, where SYN and FIN count as one. `window` is the field as it is, in units of
    2 ** `scale` bytes, which only a SYN tells (RFC 7323 §2.2; None: it offers no scale).
    """

    seq: int
    ack: int
    end: int
    window: int
    scale: int | None = None


@dataclass(frozen=True, slots=True)
class Packet:
    """One IP packet: its bytes (`data`), and what they say. `seq`, `ack` are 0 where there is no TCP segment.

    `ttl` is IPv6's hop limit too. `payload_length` counts the bytes after the transport header.
    """

    data: bytes
    headers: Headers
    ttl: int
    seq: int = 0
    ack: int = 0
    payload_length: int = 0

    @property
    def source(self) -> Endpoint:
        return self.headers.source

    @property
    def destination(self) -> Endpoint:
        return self.headers.destination

    @property
    def protocol(self) -> int:
        return self.headers.protocol

    @property
    def flags(self) -> Flags:
        return self.headers.flags

    @property
    def is_syn(self) -> bool:
        """A SYN without an ACK: the first segment of a connection's opener."""
        return self.flags & (Flags.SYN | Flags.ACK) == Flags.SYN

    @property
    def is_syn_ack(self) -> bool:
        return self.flags & (Flags.SYN | Flags.ACK) == Flags.SYN | Flags.ACK

    @property
    def is_rst(self) -> bool:
        return Flags.RST in self.flags
