"""What one host's access to the core is like, and which addresses the lab gives out.

Theory of operation. Values only: no socket, no clock. The n-th host of a network has fixed addresses, so that a record
of one run can be read beside the record of another.
"""

from __future__ import annotations

from dataclasses import dataclass

from simopen.lab.nat import Nat

# RFC 5737 (TEST-NET-2, TEST-NET-3) and RFC 3849. The first host gets one range, the second the other: easy to tell.
_PUBLIC_RANGES = ("198.51.100", "203.0.113")
MOST_HOSTS = 254
CORE = "core"  # the name under which the record lists what the core's routers send


@dataclass(frozen=True, slots=True)
class Conditions:
    """One host's access to the core, both ways alike; a path is the sum of two accesses.

    `delay_s` is one way. `jitter_s`: each packet waits up to that much longer, evenly distributed, as in a queue: it
    keeps its place unless `reorder`. `loss`: share of packets lost, 0 to 1. `hops`: routers between the host (its NAT
    is none of them) and the core. `nat` None: the host has a public address and no firewall.

    Raises: ValueError for a value out of range.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    hops: int = 3
    nat: Nat | None = None
    reorder: bool = False

    def __post_init__(self) -> None:
        if self.delay_s < 0 or self.jitter_s < 0:
            raise ValueError(f"delay {self.delay_s} s and jitter {self.jitter_s} s must not be negative")
        if not 0 <= self.loss <= 1:
            raise ValueError(f"loss is a share from 0 to 1, not {self.loss}")
        if not 0 <= self.hops <= 120:
            raise ValueError(f"an access has 0 to 120 hops, not {self.hops}")


@dataclass(frozen=True, slots=True)
class Addresses:
    """A host's addresses: what it has, and what others see. Without a NAT these are the same."""

    private: str
    public: str
    private6: str
    public6: str


def addresses_of(number: int, *, translated: bool) -> Addresses:
    """The addresses of the network's `number`-th host, counted from 1 to `MOST_HOSTS`."""
    prefix = _PUBLIC_RANGES[(number - 1) % 2]
    public = f"{prefix}.{(number + 1) // 2}"
    address6 = f"2001:db8:{number:x}::2"
    return Addresses(f"192.168.{number}.2" if translated else public, public, address6, address6)


def router_address(hop: int, *, ipv6: bool) -> str:
    """The address with which the `hop`-th router of a path answers, counted from 1 (RFC 5737 TEST-NET-1)."""
    return f"2001:db8:ffff::{hop:x}" if ipv6 else f"192.0.2.{hop}"
