"""A NAT at work: headers and `now_ns` in, headers or the answer to an unsolicited packet out.

Theory of operation. `Translator` keeps the mapping table of one NAT of `model.py`. What is not translated (IPv6, or all
of it by a firewall) goes through the same table with its endpoints as they are.

Pure: no socket, no clock, no bytes, and no chance but a seeded one: the same inputs give the same outputs, and the same
models serve a simulator. `now_ns` is any clock's, not negative, and never goes back.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

from simopen.lab.nat.connection_tracking import IDLE_S, Connection, Sender, begins_anew, follow
from simopen.lab.nat.model import ANSWERS, FILTERING_KEYS, MAPPING_KEYS, PORTS, Nat, Unsolicited, paired
from simopen.lab.packet import Flags, Headers, Numbers, Protocol
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Allocation, Pooling

REMEMBERED_NS = 30 * 10**9  # Linux: net.netfilter.nf_conntrack_udp_timeout

Decision = Headers | Unsolicited
"""The headers with which the packet goes on, or what is done with it instead."""

_TRANSLATED = frozenset(Protocol)
_ONE_ROW = (int(Protocol.TCP), int(Protocol.UDP))
# Plain numbers, and int's own `&` below: an IntFlag's takes a µs, and this is asked of every packet.
_RST = int(Flags.RST)
_SYN_OR_ACK = int(Flags.SYN | Flags.ACK)
_OPENING_OR_CLOSING = int(Flags.SYN | Flags.FIN | Flags.RST)


@dataclass(slots=True)
class _Binding:
    """One mapping. It lasts as long as the longest of its sessions, and so does each of its permits."""

    private: Endpoint
    public: Endpoint
    filtering_key: Callable[[Endpoint], Hashable]
    expires_ns: int = 0
    permits: dict[Hashable, int] = field(default_factory=dict)  # filtering key -> when that permit ends
    sessions: dict[Endpoint, int] = field(default_factory=dict)  # remote -> when that session ends
    connections: dict[Endpoint, Connection] = field(default_factory=dict)  # by remote, where TCP is tracked

    def refresh(self, remote: Endpoint, expires_ns: int) -> None:
        before_ns = self.sessions.get(remote, 0)
        self.sessions[remote] = expires_ns
        if expires_ns < before_ns:  # a FIN, say, after data
            self.expires_ns = 0
            self.permits.clear()
            for each, ends_ns in self.sessions.items():
                self._extend(self.filtering_key(each), ends_ns)
        else:
            self._extend(self.filtering_key(remote), expires_ns)

    def permits_at(self, remote: Endpoint, now_ns: int) -> bool:
        return self.permits.get(self.filtering_key(remote), 0) > now_ns

    def connection_at(self, remote: Endpoint, now_ns: int) -> Connection:
        """What is known of the connection with that remote; a new one where that is nothing."""
        known = self.sessions.get(remote, 0) > now_ns
        return self.connections[remote] if known else Connection()

    def follow(self, remote: Endpoint, connection: Connection, now_ns: int) -> None:
        """Keep what is known of a connection for another while; one that is over is forgotten."""
        if connection.is_over:
            self.end(remote)
            return
        self.connections[remote] = connection
        self.refresh(remote, now_ns + round(IDLE_S[connection.phase] * 1e9))

    def end(self, remote: Endpoint) -> None:
        self.refresh(remote, 0)

    def _extend(self, key: Hashable, expires_ns: int) -> None:
        self.expires_ns = max(self.expires_ns, expires_ns)
        self.permits[key] = max(self.permits.get(key, 0), expires_ns)


class Translator:
    """One NAT at work. `public_addresses` are its IPv4 addresses outside, none where it translates nothing.

    `seed` decides the ports and addresses that are left to chance. Raises: ValueError where the number of addresses
    is not that of the NAT's pool.
    """

    def __init__(self, nat: Nat, *public_addresses: str, seed: int | str = 0) -> None:
        if nat.translates and len(public_addresses) != nat.pool:
            raise ValueError(f"a pool of {nat.pool} has as many public addresses, not {len(public_addresses)}")
        self.nat = nat
        self.public_addresses = public_addresses if nat.translates else ()
        self._draws = Random(seed)
        self._ports = PORTS[nat.allocation](nat, self._draws)
        self._mapping_key = MAPPING_KEYS[nat.mapping]
        self._filtering_key = FILTERING_KEYS[nat.filtering]
        self._timeouts_ns = _timeouts_ns(nat)
        self._inside: dict[Hashable, _Binding] = {}
        self._outside: dict[Hashable, _Binding] = {}
        self._syns_out_ns: dict[tuple[Endpoint, Endpoint], int] = {}  # (public, remote), where SYNs are held
        self._reuses = nat.overloading and nat.allocation is Allocation.PRESERVING
        self._latest: dict[tuple[int, Endpoint], _Binding] = {}  # by protocol and private endpoint, where it reuses
        self._own_ns: dict[tuple[Endpoint, Endpoint], int] = {}  # (public, remote) of datagrams that it accepts -> end

    def outbound(self, headers: Headers, now_ns: int, numbers: Numbers | None = None) -> Decision:
        """Decide on a packet from inside. It opens, or refreshes, the way back for its destination.

        `numbers` are a TCP segment's: `tracking` then believes a RST only where they are right.
        """
        if headers.quoted is not None:
            return self._error_outbound(headers, headers.quoted, now_ns)
        if headers.protocol not in _TRANSLATED:
            return Unsolicited.DROP
        binding = self._find_inside(headers.protocol, headers.source, headers.destination, now_ns)
        if self._tracks(headers):
            binding = self._follow_outbound(binding, headers, numbers, now_ns)
        elif binding is not None or (binding := self._bind(headers, now_ns)) is not None:
            self._use(binding, headers, headers.destination, now_ns)
        if binding is None:
            return Unsolicited.DROP
        if self.nat.unsolicited is Unsolicited.HOLD and _is_syn(headers):
            self._syns_out_ns[binding.public, headers.destination] = now_ns
        return Headers(headers.protocol, binding.public, headers.destination, headers.flags)

    def inbound(self, headers: Headers, now_ns: int, numbers: Numbers | None = None) -> Decision:
        """Decide on a packet from outside. After `HOLD`, ask `release` when `HOLD_NS` have passed."""
        if headers.quoted is not None:
            return self._error_inbound(headers, headers.quoted, now_ns)
        binding = self._find_outside(headers.protocol, headers.destination, headers.source, now_ns)
        if binding is None or not self._admits(binding, headers, now_ns):
            return self._unsolicited(headers, now_ns)
        if self._tracks(headers):
            connection = follow(binding.connection_at(headers.source, now_ns), Sender.OUTSIDE, headers.flags, numbers)
            if connection is None:
                return self._unsolicited(headers, now_ns)
            binding.follow(headers.source, connection, now_ns)
        else:
            self._use(binding, headers, headers.source, now_ns)
        return Headers(headers.protocol, headers.source, binding.private, headers.flags)

    def stop(self, headers: Headers, now_ns: int) -> None:
        """Take note of a packet from inside whose hops run out here: it may end what was, and opens nothing."""
        binding = self._find_inside(headers.protocol, headers.source, headers.destination, now_ns)
        if binding is None or not self._tracks(headers):
            return
        if begins_anew(binding.connection_at(headers.destination, now_ns), headers.flags):
            binding.end(headers.destination)

    def release(self, headers: Headers, held_ns: int) -> Unsolicited:
        """What becomes of a SYN that was held since `held_ns`: `DROP`, or `ICMP` where no SYN has gone out since."""
        out_ns = self._syns_out_ns.get((headers.destination, headers.source))
        return Unsolicited.ICMP if out_ns is None or out_ns < held_ns else Unsolicited.DROP

    def _tracks(self, headers: Headers) -> bool:
        return self.nat.tracking and headers.protocol == Protocol.TCP

    def _follow_outbound(
        self, binding: _Binding | None, headers: Headers, numbers: Numbers | None, now_ns: int
    ) -> _Binding | None:
        """The binding of a TCP connection after a segment from inside; None where that is refused."""
        remote = headers.destination
        connection = Connection() if binding is None else binding.connection_at(remote, now_ns)
        if binding is not None and begins_anew(connection, headers.flags):
            binding.end(remote)
            binding, connection = self._find_inside(headers.protocol, headers.source, remote, now_ns), Connection()
        after = follow(connection, Sender.INSIDE, headers.flags, numbers)
        if after is None or (binding is None and (binding := self._bind(headers, now_ns)) is None):
            return None
        binding.follow(remote, after, now_ns)
        return binding

    def _admits(self, binding: _Binding, headers: Headers, now_ns: int) -> bool:
        return binding.permits_at(headers.source, now_ns) and not (self.nat.refuses_syns and _is_syn(headers))

    def _use(self, binding: _Binding, headers: Headers, remote: Endpoint, now_ns: int) -> None:
        """Keep the binding for another while, or end it."""
        bits = int.__and__(headers.flags, _OPENING_OR_CLOSING)
        if bits & _RST and self.nat.reset_kills and headers.protocol == Protocol.TCP:
            binding.expires_ns = 0
        else:
            binding.refresh(remote, now_ns + self._timeouts_ns[headers.protocol, bool(bits)])

    def _error_inbound(self, headers: Headers, quoted: Headers, now_ns: int) -> Decision:
        # RFC 5508 REQ-4: by the quoted packet's mapping; who the router is that sends it plays no part.
        binding = self._find_outside(quoted.protocol, quoted.source, quoted.destination, now_ns)
        if binding is None:
            return Unsolicited.DROP
        inner = Headers(quoted.protocol, binding.private, quoted.destination, quoted.flags, quoted.quoted)
        to = Endpoint(binding.private.address, headers.destination.port)
        return Headers(headers.protocol, headers.source, to, headers.flags, inner)

    def _error_outbound(self, headers: Headers, quoted: Headers, now_ns: int) -> Decision:
        binding = self._find_inside(quoted.protocol, quoted.destination, quoted.source, now_ns)
        if binding is None:
            return Unsolicited.DROP
        inner = Headers(quoted.protocol, quoted.source, binding.public, quoted.flags, quoted.quoted)
        source = Endpoint(binding.public.address, headers.source.port)
        return Headers(headers.protocol, source, headers.destination, headers.flags, inner)

    def _unsolicited(self, headers: Headers, now_ns: int) -> Unsolicited:
        answer = ANSWERS[self.nat.unsolicited].get(headers.protocol, Unsolicited.DROP)
        if answer is Unsolicited.RESET and Flags.RST in headers.flags:
            return Unsolicited.DROP
        if answer is Unsolicited.HOLD and not _is_syn(headers):
            return Unsolicited.DROP
        if answer is Unsolicited.ACCEPT and headers.destination.address not in self.public_addresses:
            return Unsolicited.DROP
        if self.nat.unsolicited is Unsolicited.ACCEPT and headers.protocol == Protocol.UDP:
            self._own_ns[headers.destination, headers.source] = now_ns + REMEMBERED_NS
        return answer

    def _translates(self, address: str) -> bool:
        return self.nat.translates and ":" not in address

    def _inside_key(self, protocol: int, private: Endpoint, remote: Endpoint) -> Hashable:
        # Untranslated, all flows of an endpoint have the same one outside: its own.
        return protocol, self._mapping_key(private, remote) if self._translates(private.address) else private

    def _outside_key(self, protocol: int, public: Endpoint, remote: Endpoint) -> Hashable:
        overloads = self.nat.overloading and self._translates(public.address)
        return (protocol, public, remote) if overloads else (protocol, public)

    def _find_inside(self, protocol: int, private: Endpoint, remote: Endpoint, now_ns: int) -> _Binding | None:
        binding = self._inside.get(self._inside_key(protocol, private, remote))
        return binding if binding is not None and binding.expires_ns > now_ns else None

    def _find_outside(self, protocol: int, public: Endpoint, remote: Endpoint, now_ns: int) -> _Binding | None:
        binding = self._outside.get(self._outside_key(protocol, public, remote))
        return binding if binding is not None and binding.expires_ns > now_ns else None

    def _bind(self, headers: Headers, now_ns: int) -> _Binding | None:
        protocol, private, remote = headers.protocol, headers.source, headers.destination
        translated = self._translates(private.address)
        public = self._allocate(protocol, private, remote, now_ns) if translated else private
        if public is None:
            return None
        binding = _Binding(private, public, self._filtering_key)
        self._inside[self._inside_key(protocol, private, remote)] = binding
        self._outside[self._outside_key(protocol, public, remote)] = binding
        if self._reuses and translated:
            self._latest[protocol, private] = binding
        return binding

    def _allocate(self, protocol: int, private: Endpoint, remote: Endpoint, now_ns: int) -> Endpoint | None:
        latest = self._latest.get((protocol, private)) if self._reuses else None
        if latest is not None and latest.expires_ns > now_ns and self._is_free(protocol, latest.public, remote, now_ns):
            return latest.public
        for address in self._addresses_for(private.address):
            space = (_row(self.nat, protocol), address)
            for port in self._ports.candidates(space, private.port):
                public = Endpoint(address, port)
                if self._is_free(protocol, public, remote, now_ns):
                    self._ports.take(space, port)
                    return public
        return None

    def _is_free(self, protocol: int, public: Endpoint, remote: Endpoint, now_ns: int) -> bool:
        for each in _sharing(self.nat, protocol):
            binding = self._outside.get(self._outside_key(each, public, remote))
            if binding is not None and binding.expires_ns > now_ns:
                return False
        return not self._own_ns or protocol != Protocol.UDP or self._own_ns.get((public, remote), 0) <= now_ns

    def _addresses_for(self, private: str) -> Sequence[str]:
        """The public addresses to try, in order."""
        pool = self.public_addresses
        if len(pool) == 1:
            return pool
        return (paired(private, pool),) if self.nat.pooling is Pooling.PAIRED else self._draws.sample(pool, len(pool))


def _sharing(nat: Nat, protocol: int) -> tuple[int, ...]:
    """The protocols whose mappings take public ports away from this one."""
    return _ONE_ROW if nat.one_row and protocol in _ONE_ROW else (protocol,)


def _row(nat: Nat, protocol: int) -> int:
    """Which row of ports a protocol's mappings are counted in."""
    return _sharing(nat, protocol)[0]


@lru_cache(maxsize=1024)
def _timeouts_ns(nat: Nat) -> dict[tuple[int, bool], int]:
    """Idle time by protocol, and whether the packet was a SYN, FIN or RST."""
    seconds = {
        **{(protocol, short): nat.icmp_timeout_s for protocol in Protocol for short in (False, True)},
        (Protocol.UDP, False): nat.udp_timeout_s,
        (Protocol.UDP, True): nat.udp_timeout_s,
        (Protocol.TCP, False): nat.established_timeout_s,
        (Protocol.TCP, True): nat.transitory_timeout_s,
    }
    return {(int(protocol), short): round(each * 1e9) for (protocol, short), each in seconds.items()}


def _is_syn(headers: Headers) -> bool:
    """A SYN without ACK."""
    return headers.protocol == Protocol.TCP and int.__and__(headers.flags, _SYN_OR_ACK) == Flags.SYN
