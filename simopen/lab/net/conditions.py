"""What one host's access to the core is like, and which addresses the lab gives out.

Theory of operation. Values only: no socket, no clock. The n-th host of a network has fixed addresses, so that a record
of one run can be read beside the record of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from simopen.lab.nat.bounds import check_numbers
from simopen.lab.nat.model import Nat, paired

# RFC 5737 (TEST-NET-2, TEST-NET-3) and RFC 3849. The first host gets one range, the second the other: easy to tell.
_PUBLIC_RANGES = ("198.51.100", "203.0.113")
# The further addresses of a pool. RFC 5737 has too few, and what RFC 2544 keeps for tests no peer may name: these are
# somebody's, as nothing of the lab's ever leaves it.
_POOL_RANGE = "198.52"
_CARRIER_RANGE = 64  # RFC 6598: between a home's NAT and a carrier's lies 100.64.0.0/10
MOST_HOSTS = 254
MOST_NATS = 8
QUEUE_S = 0.1  # the old rule for a router's buffer: a round trip's worth (Villamizar and Song 1994), of a usual one
CORE = "core"  # the name under which the record lists what the core's routers send


@dataclass(frozen=True, slots=True)
class Conditions:
    """One host's access to the core, both ways alike; a path is the sum of two accesses.

    `delay_s` is one way. `jitter_s`: each packet waits up to that much longer, evenly distributed, as in a queue: it
    keeps its place unless `reorder`. `loss`: share of packets lost, 0 to 1. `hops`: routers between the host (its NATs
    are none of them) and the core. `nat` None: the host has a public address and no firewall; several are in order
    from the host outwards. `duplicate`: share of packets of which a copy follows at once, 0 to 1. `bandwidth_bps`:
    bits of IP packets a second, each way; what would wait longer than `QUEUE_S` for its turn is lost. None: no limit.
    `isolated`: the hosts of one LAN do not reach each other's own addresses, as guests of a Wi-Fi often do not.

    Raises: TypeError for what is no number, or no NAT; ValueError for a value out of range.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    hops: int = 3
    nat: Nat | tuple[Nat, ...] | None = None
    reorder: bool = False
    duplicate: float = 0.0
    bandwidth_bps: float | None = None
    isolated: bool = False

    def __post_init__(self) -> None:
        check_numbers(delay_s=self.delay_s, jitter_s=self.jitter_s, loss=self.loss, duplicate=self.duplicate)
        check_numbers(hops=self.hops, whole=True)
        if self.delay_s < 0 or self.jitter_s < 0:
            raise ValueError(f"delay {self.delay_s} s and jitter {self.jitter_s} s must not be negative")
        if not 0 <= self.loss <= 1:
            raise ValueError(f"loss is a share from 0 to 1, not {self.loss}")
        if not 0 <= self.duplicate <= 1:
            raise ValueError(f"duplicate is a share from 0 to 1, not {self.duplicate}")
        if self.bandwidth_bps is not None and not self.bandwidth_bps > 0:
            raise ValueError(f"a bandwidth is above 0 bits a second, not {self.bandwidth_bps}")
        if not all(isinstance(each, Nat) for each in self.nats):
            raise TypeError(f"nat is a Nat, or several in a row, not {self.nat!r:.100}")
        if len(self.nats) > MOST_NATS:
            raise ValueError(f"an access has at most {MOST_NATS} NATs in a row, not {len(self.nats)}")
        if not 0 <= self.hops <= 120:
            raise ValueError(f"an access has 0 to 120 hops, not {self.hops}")

    @property
    def nats(self) -> tuple[Nat, ...]:
        """The NATs in order from the host outwards."""
        return () if self.nat is None else self.nat if isinstance(self.nat, tuple) else (self.nat,)


@dataclass(frozen=True, slots=True)
class Addresses:
    """A host's addresses: what it has, and what others see. Without a NAT that translates these are the same.

    `pools`: each of its NATs' public IPv4 addresses, from the host outwards; empty for one that does not translate.
    `second`: a further public IPv4 address of the host's own.
    """

    private: str
    public: str
    private6: str
    public6: str
    pools: tuple[tuple[str, ...], ...] = ()
    second: str | None = None


def addresses_of(number: int, nats: Sequence[Nat] = (), *, lan: int | None = None) -> Addresses:
    """The addresses of the network's `number`-th host, counted from 1 to `MOST_HOSTS`, behind these NATs.

    `lan`: the number of the host whose LAN it is on; its own where left out.
    """
    lan = number if lan is None else lan
    pools = _pools(lan, nats)
    translating = [pool for pool in pools if pool]
    private = f"192.168.{lan}.{number - lan + 2}" if translating else _public(number)
    public = private
    for pool in translating:
        public = paired(public, pool)
    address6 = f"2001:db8:{lan:x}::{number - lan + 2:x}"
    return Addresses(private, public, address6, address6, pools)


def _public(number: int) -> str:
    return f"{_PUBLIC_RANGES[(number - 1) % 2]}.{(number + 1) // 2}"


def _pools(lan: int, nats: Sequence[Nat]) -> tuple[tuple[str, ...], ...]:
    last = max((index for index, nat in enumerate(nats) if nat.translates), default=None)
    return tuple(_pool(lan, index, nat.pool, last) if nat.translates else () for index, nat in enumerate(nats))


def _pool(lan: int, index: int, size: int, last: int | None) -> tuple[str, ...]:
    """The outermost translating NAT's are public; between the others lies a carrier's network."""
    if index != last:
        return tuple(f"100.{_CARRIER_RANGE + index}.{lan}.{number}" for number in range(1, size + 1))
    further = (f"{_POOL_RANGE}.{lan}.{number}" for number in range(1, size))
    return tuple(chain((_public(lan),), further))


def second_address(number: int) -> str:
    """A further public IPv4 address of the network's `number`-th host: the upper half of the ranges is free."""
    return f"{_PUBLIC_RANGES[(number - 1) % 2]}.{(number + 1) // 2 + 127}"


def router_address(hop: int, *, ipv6: bool) -> str:
    """The address with which the `hop`-th router of a path answers, counted from 1 (RFC 5737 TEST-NET-1)."""
    return f"2001:db8:ffff::{hop:x}" if ipv6 else f"192.0.2.{hop}"
