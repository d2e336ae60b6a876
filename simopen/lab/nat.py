"""NAT models in the terms of RFC 4787 and RFC 5382.

Theory of operation. A NAT is four independent choices: how it maps (which flows share a public endpoint), how it
allocates that endpoint's port, how it filters what comes in, and what it answers to what it filters. `Nat` names one
choice of each; `Translator` is one such NAT at work, with its table. Each choice is a row of a table below, so that a
further model is a further row. IPv6 goes through the same table untranslated, as a stateful firewall has it.

Pure: headers and `now_ns` in, headers or the answer to an unsolicited packet out. No socket, no clock, no bytes, no
randomness; the same models serve a simulator. `now_ns` is any clock's, and never goes back.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import chain

from simopen.lab.packet import Endpoint, Flags, Headers, Protocol


class Mapping(Enum):
    """Which flows of one private endpoint share a public one (RFC 4787 §4.1)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"


class Filtering(Enum):
    """From whom a mapping lets packets in: anyone, addresses it was used to, or endpoints (RFC 4787 §5)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


class Allocation(Enum):
    """How a mapping gets its public port (RFC 4787 §4.2.1)."""

    PRESERVING = "port-preserving"


class Unsolicited(Enum):
    """What becomes of a packet that nobody inside asked for. Only TCP is ever answered."""

    DROP = "drop"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Nat:
    """One NAT's behaviour.

    A mapping is forgotten after idle time, in either direction: `established_timeout_s` after a TCP segment without
    SYN, FIN or RST, `transitory_timeout_s` after one of those (RFC 5382 REQ-5: not below 2 h 4 min and 4 min),
    `udp_timeout_s` after a datagram (RFC 4787 REQ-5: 5 min), `icmp_timeout_s` after an echo (RFC 5508 REQ-1: 60 s).

    Raises: ValueError for a time-out that is not positive.
    """

    mapping: Mapping = Mapping.ENDPOINT_INDEPENDENT
    filtering: Filtering = Filtering.ADDRESS_AND_PORT_DEPENDENT
    allocation: Allocation = Allocation.PRESERVING
    unsolicited: Unsolicited = Unsolicited.DROP
    established_timeout_s: float = 7440.0
    transitory_timeout_s: float = 240.0
    udp_timeout_s: float = 300.0
    icmp_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        times = (self.established_timeout_s, self.transitory_timeout_s, self.udp_timeout_s, self.icmp_timeout_s)
        if min(times) <= 0:
            raise ValueError(f"a NAT's time-outs are above 0 s, not {min(times)}")


Decision = Headers | Unsolicited
"""The headers with which the packet goes on, or what is done with it instead."""

_MAPPING_KEYS: dict[Mapping, Callable[[Endpoint, Endpoint], Hashable]] = {
    Mapping.ENDPOINT_INDEPENDENT: lambda private, remote: private,
}

_FILTERING_KEYS: dict[Filtering, Callable[[Endpoint], Hashable]] = {
    Filtering.ENDPOINT_INDEPENDENT: lambda remote: None,
    Filtering.ADDRESS_DEPENDENT: lambda remote: remote.address,
    Filtering.ADDRESS_AND_PORT_DEPENDENT: lambda remote: remote,
}


def _preserving(port: int) -> Iterator[int]:
    """The ports to try, in order: the same number, then the next ones, wrapping round to 1024."""
    return chain(range(port, 65536), range(min(port, 1024), port))


_PORTS_TO_TRY: dict[Allocation, Callable[[int], Iterator[int]]] = {Allocation.PRESERVING: _preserving}

_TRANSLATED = frozenset(Protocol)
_OPENING_OR_CLOSING = Flags.SYN | Flags.FIN | Flags.RST


@dataclass(slots=True)
class _Binding:
    private: Endpoint
    public: Endpoint
    expires_ns: int = 0
    permits: dict[Hashable, int] = field(default_factory=dict)  # filtering key -> when that permit ends

    def refresh(self, key: Hashable, expires_ns: int) -> None:
        self.permits[key] = expires_ns
        self.expires_ns = max(self.expires_ns, expires_ns)

    def permits_at(self, key: Hashable, now_ns: int) -> bool:
        return self.permits.get(key, now_ns) > now_ns


class Translator:
    """One NAT at work. `public_address` is its IPv4 address outside; IPv6 addresses stay what they are."""

    def __init__(self, nat: Nat, public_address: str) -> None:
        self._nat = nat
        self._public_address = public_address
        self._mapping_key = _MAPPING_KEYS[nat.mapping]
        self._filtering_key = _FILTERING_KEYS[nat.filtering]
        self._inside: dict[Hashable, _Binding] = {}
        self._outside: dict[tuple[int, Endpoint], _Binding] = {}

    def outbound(self, headers: Headers, now_ns: int) -> Decision:
        """Decide on a packet from inside. It opens, or refreshes, the way back for its destination."""
        if headers.quoted is not None:
            return self._error_outbound(headers, headers.quoted, now_ns)
        if headers.protocol not in _TRANSLATED:
            return Unsolicited.DROP
        binding = self._find_inside(headers, now_ns) or self._bind(headers, now_ns)
        if binding is None:
            return Unsolicited.DROP
        binding.refresh(self._filtering_key(headers.destination), now_ns + self._timeout_ns(headers))
        return replace(headers, source=binding.public)

    def inbound(self, headers: Headers, now_ns: int) -> Decision:
        """Decide on a packet from outside."""
        if headers.quoted is not None:
            return self._error_inbound(headers, headers.quoted, now_ns)
        binding = self._find_outside(headers.protocol, headers.destination, now_ns)
        key = self._filtering_key(headers.source)
        if binding is None or not binding.permits_at(key, now_ns):
            return self._unsolicited(headers)
        binding.refresh(key, now_ns + self._timeout_ns(headers))
        return replace(headers, destination=binding.private)

    def _error_inbound(self, headers: Headers, quoted: Headers, now_ns: int) -> Decision:
        # RFC 5508 REQ-4: by the quoted packet's mapping; who the router is that sends it plays no part.
        binding = self._find_outside(quoted.protocol, quoted.source, now_ns)
        if binding is None:
            return Unsolicited.DROP
        destination = Endpoint(binding.private.address, 0)
        return replace(headers, destination=destination, quoted=replace(quoted, source=binding.private))

    def _error_outbound(self, headers: Headers, quoted: Headers, now_ns: int) -> Decision:
        binding = self._find_inside(_turned(quoted), now_ns)
        if binding is None:
            return Unsolicited.DROP
        source = Endpoint(binding.public.address, 0)
        return replace(headers, source=source, quoted=replace(quoted, destination=binding.public))

    def _unsolicited(self, headers: Headers) -> Unsolicited:
        if headers.protocol != Protocol.TCP or Flags.RST in headers.flags:
            return Unsolicited.DROP  # RFC 9293 §3.5.2: a RST is never answered by one
        return self._nat.unsolicited

    def _inside_key(self, headers: Headers) -> Hashable:
        return headers.protocol, self._mapping_key(headers.source, headers.destination)

    def _find_inside(self, headers: Headers, now_ns: int) -> _Binding | None:
        binding = self._inside.get(self._inside_key(headers))
        return binding if binding is not None and binding.expires_ns > now_ns else None

    def _find_outside(self, protocol: int, public: Endpoint, now_ns: int) -> _Binding | None:
        binding = self._outside.get((protocol, public))
        return binding if binding is not None and binding.expires_ns > now_ns else None

    def _bind(self, headers: Headers, now_ns: int) -> _Binding | None:
        public = self._allocate(headers.protocol, headers.source, now_ns)
        if public is None:
            return None
        binding = _Binding(headers.source, public)
        self._inside[self._inside_key(headers)] = binding
        self._outside[headers.protocol, public] = binding
        return binding

    def _allocate(self, protocol: int, private: Endpoint, now_ns: int) -> Endpoint | None:
        address = private.address if ":" in private.address else self._public_address
        candidates = (Endpoint(address, port) for port in _PORTS_TO_TRY[self._nat.allocation](private.port))
        return next((end for end in candidates if self._find_outside(protocol, end, now_ns) is None), None)

    def _timeout_ns(self, headers: Headers) -> int:
        return round(self._timeout_s(headers) * 1e9)

    def _timeout_s(self, headers: Headers) -> float:
        if headers.protocol == Protocol.UDP:
            return self._nat.udp_timeout_s
        if headers.protocol != Protocol.TCP:
            return self._nat.icmp_timeout_s
        transitory = headers.flags & _OPENING_OR_CLOSING
        return self._nat.transitory_timeout_s if transitory else self._nat.established_timeout_s


def _turned(headers: Headers) -> Headers:
    return replace(headers, source=headers.destination, destination=headers.source)
