"""NAT models in the terms of RFC 4787 and RFC 5382.

Theory of operation. A NAT is a few independent choices: how it maps (which flows share a public endpoint), how it
allocates that endpoint's port (see `allocation.py`), how it filters what comes in, and what it answers to what it
filters. `Nat` names one choice of each; each choice is a row of a table below, so that a further model is a further
row. `translator.py` has such a NAT translate packets; NATs in a row are `chain.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random
from zlib import crc32

from simopen.lab.nat.allocation import Ports, Preserving, Scattered, Sequential
from simopen.lab.nat.bounds import check_numbers
from simopen.lab.packet import Protocol
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Allocation, Filtering, Mapping, Pooling
from simopen.model.wording import quoted

HOLD_NS = 6 * 10**9  # RFC 5382 REQ-4: how long an unsolicited SYN waits for one from inside
MOST_IN_A_POOL = 254


class Unsolicited(Enum):
    """What becomes of a packet that nobody inside asked for.

    `RESET` answers TCP with a RST and UDP with the ICMP error Port Unreachable, as a host does on which nobody listens,
    and a RST with nothing (RFC 9293 §3.10.7.1). `ICMP` answers all TCP and UDP with that error, as netfilter's reject
    does. `HOLD` keeps a SYN for 6 s (RFC 5382 REQ-4): it answers with Port Unreachable unless a SYN has gone out on
    that very connection meanwhile. `ACCEPT` takes it as the NAT's own, as a Linux router does whose input chain accepts
    what comes: `RESET`'s answers, and an echo reply to an echo to a public address. It then remembers a datagram for
    30 s as a flow of its own, and gives that public endpoint to nobody else who speaks to the same remote one: a
    datagram that comes too early costs the hole its port. What is not answered is dropped.
    """

    DROP = "drop"
    RESET = "reset"
    ICMP = "icmp"
    HOLD = "hold"
    ACCEPT = "accept"


@dataclass(frozen=True, slots=True)
class Nat:
    """One NAT's behaviour.

    `step`, `others`: with sequential allocation, how far apart ports are that are allocated one after the other, and
    the chance (0 to below 1) at each step that other traffic of this NAT has taken that port. `parity`: odd private
    ports get odd public ones, even ones even ones, while there are any (RFC 4787 §4.2.2).

    `one_row`: TCP and UDP have one space of public ports: a number that one of them has the other cannot get, and ports
    in sequence are counted over both. Else each has a space of its own, as in Linux (RFC 7857 §4 wants mappings of
    each protocol apart); echoes have theirs either way.

    `hairpinning`: hosts behind it reach each other by their public endpoints (RFC 4787 §6). `reset_kills`: a RST that
    passes, in either direction, ends its mapping at once. `refuses_syns`: a SYN (without ACK) from outside counts as
    unsolicited even where a mapping would let it in. `tracking`: it follows each TCP connection, as Linux does (see
    `connection_tracking.py`): what has no place in one counts as unsolicited, a RST ends that connection only (and only
    where it is believed, if sequence numbers are given), and the time-outs of TCP are `connection_tracking.py`'s.

    `pool`: how many public addresses it has, `pooling` how they are given out. `overloading`: several mappings share
    a public endpoint as long as their remote endpoints differ (RFC 4787 §4.2.1; so does Linux), and where ports are
    preserved, a new mapping takes the public endpoint that its private one got last, if it can. Only the remote
    endpoint then tells whose a packet from outside is, so mapping and filtering must both be address-and-port-
    dependent. `translates` False: a stateful firewall. Addresses and ports stay, and `mapping`, `allocation`, `parity`,
    `hairpinning`, `pool` and `overloading` mean nothing. To IPv6 every NAT is one.

    A session with one remote endpoint is forgotten after idle time, in either direction, and a mapping with its last
    session: `established_timeout_s` after a TCP segment without SYN, FIN or RST, `transitory_timeout_s` after one of
    those (RFC 5382 REQ-5: not below 2 h 4 min and 4 min), `udp_timeout_s` after a datagram (RFC 4787 REQ-5: 5 min),
    `icmp_timeout_s` after an echo (RFC 5508 REQ-1: 60 s).

    Raises: TypeError for what is no number; ValueError for one out of range, for a behaviour that no model has
    (`MAPPINGS`, `FILTERINGS`, `ALLOCATIONS`, `POOLINGS` have), and for overloading with a laxer mapping or filtering.
    """

    mapping: Mapping = Mapping.ENDPOINT_INDEPENDENT
    filtering: Filtering = Filtering.ADDRESS_AND_PORT_DEPENDENT
    allocation: Allocation = Allocation.PRESERVING
    unsolicited: Unsolicited = Unsolicited.DROP
    step: int = 1
    others: float = 0.0
    parity: bool = False
    one_row: bool = False
    hairpinning: bool = False
    reset_kills: bool = False
    refuses_syns: bool = False
    tracking: bool = False
    pool: int = 1
    pooling: Pooling = Pooling.PAIRED
    overloading: bool = False
    translates: bool = True
    established_timeout_s: float = 7440.0
    transitory_timeout_s: float = 240.0
    udp_timeout_s: float = 300.0
    icmp_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        times = (self.established_timeout_s, self.transitory_timeout_s, self.udp_timeout_s, self.icmp_timeout_s)
        established, transitory, udp, icmp = times
        _check_modelled(self.mapping, MAPPINGS)
        _check_modelled(self.filtering, FILTERINGS)
        _check_modelled(self.allocation, ALLOCATIONS)
        _check_modelled(self.pooling, POOLINGS)
        check_numbers(established=established, transitory=transitory, udp=udp, icmp=icmp, others=self.others)
        check_numbers(step=self.step, pool=self.pool, whole=True)
        if min(times) <= 0:
            raise ValueError(f"a NAT's time-outs are above 0 s, not {min(times)}")
        if self.step < 1:
            raise ValueError(f"ports are allocated in steps of 1 or more, not {self.step}")
        if not 0 <= self.others < 1:
            raise ValueError(f"others take a port with a chance from 0 to below 1, not {self.others}")
        if not 1 <= self.pool <= MOST_IN_A_POOL:
            raise ValueError(f"a pool has 1 to {MOST_IN_A_POOL} addresses, not {self.pool}")
        if self.overloading and (self.mapping.value, self.filtering.value) != (_STRICTEST, _STRICTEST):
            raise ValueError(f"overloading needs mapping and filtering to be {_STRICTEST}: only the remote tells whose")


def _check_modelled(value: Enum, modelled: Sequence[Enum]) -> None:
    if value not in modelled:
        raise ValueError(f"no NAT model has {_name(value)}: there are {', '.join(each.value for each in modelled)}")


def _name(value: object) -> str:
    return quoted(value.value if isinstance(value, Enum) else value)


_STRICTEST = "address-and-port-dependent"

MAPPING_KEYS: dict[Mapping, Callable[[Endpoint, Endpoint], Hashable]] = {
    Mapping.ENDPOINT_INDEPENDENT: lambda private, remote: private,
    Mapping.ADDRESS_DEPENDENT: lambda private, remote: (private, remote.address),
    Mapping.ADDRESS_AND_PORT_DEPENDENT: lambda private, remote: (private, remote),
}

FILTERING_KEYS: dict[Filtering, Callable[[Endpoint], Hashable]] = {
    Filtering.ENDPOINT_INDEPENDENT: lambda remote: None,
    Filtering.ADDRESS_DEPENDENT: lambda remote: remote.address,
    Filtering.ADDRESS_AND_PORT_DEPENDENT: lambda remote: remote,
}

PORTS: dict[Allocation, Callable[[Nat, Random], Ports]] = {
    Allocation.PRESERVING: lambda nat, draws: Preserving(nat.parity),
    Allocation.SEQUENTIAL: lambda nat, draws: Sequential(nat.step, nat.others, nat.parity, draws),
    Allocation.RANDOM: lambda nat, draws: Scattered(nat.parity, draws),
}

MAPPINGS, FILTERINGS, ALLOCATIONS = tuple(MAPPING_KEYS), tuple(FILTERING_KEYS), tuple(PORTS)
POOLINGS = (Pooling.PAIRED, Pooling.ARBITRARY)
"""What of RFC 4787's words a model can be; the others are for what is not known, or not there."""

ANSWERS: dict[Unsolicited, dict[int, Unsolicited]] = {
    Unsolicited.DROP: {},
    Unsolicited.RESET: {Protocol.TCP: Unsolicited.RESET, Protocol.UDP: Unsolicited.ICMP},
    Unsolicited.ICMP: {Protocol.TCP: Unsolicited.ICMP, Protocol.UDP: Unsolicited.ICMP},
    Unsolicited.HOLD: {Protocol.TCP: Unsolicited.HOLD},
    Unsolicited.ACCEPT: {
        Protocol.TCP: Unsolicited.RESET,
        Protocol.UDP: Unsolicited.ICMP,
        Protocol.ICMP: Unsolicited.ACCEPT,
    },
}


def paired(address: str, pool: Sequence[str]) -> str:
    """The address of a pool that a private address always gets, with paired pooling."""
    return pool[crc32(address.encode()) % len(pool)]
