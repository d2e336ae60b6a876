"""What simopen does with one peer endpoint, on simulated hosts.

Theory of operation: `punch` puts two `Host`s on a network, each behind its access, and lets time pass until both have a
stream or have given up, and nothing is under way any more. What they do is the library's own engine's word.

Not modelled: several peer endpoints at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.simulation.host import Host
from benchmarks.simulation.network import TCP, Access, Network
from benchmarks.simulation.tcp import SYN, Opener, Segment, State, after
from simopen.lab.nat.chain import Chain
from simopen.lab.nat.model import Nat
from simopen.lab.nat.translator import Translator
from simopen.lab.net.conditions import MOST_NATS, Addresses, addresses_of
from simopen.lab.packet import Headers
from simopen.model.endpoint import Endpoint

PORT = 2000
# Long enough before the earliest shot of any clock error that is simulated here.
INSTANT_NS = 100_000_000_000
_THIRD_PARTY = Endpoint("192.0.2.53", 3478)


@dataclass(frozen=True, slots=True)
class Side:
    """One peer, its clock and its access.

    `delay_s`: its access's, one way; a path is the sum of two. `jitter_s`, `loss`: as in the lab's `Conditions`.
    `nats`: from the host outwards. `error_s`: how much after the true instant it fires. `window_s`: as in
    `simopen.punch`. `listen`, `retry`: what to leave out of what simopen does.
    """

    delay_s: float
    nats: tuple[Nat, ...] = ()
    error_s: float = 0.0
    window_s: float = 10.0
    jitter_s: float = 0.0
    loss: float = 0.0
    listen: bool = True
    retry: bool = True


class End(NamedTuple):
    """What one side saw. Times in ns after the true instant; `established_ns` None where no stream came up."""

    fired_ns: int
    established_ns: int | None
    shots: int
    accepted: bool


class Result(NamedTuple):
    """One punch. `connected`: both sides hold the two ends of one connection."""

    left: End
    right: End
    connected: bool

    @property
    def both_ms(self) -> float | None:
        """From the later side's first SYN until the side that got the stream last had it."""
        if not self.connected:
            return None
        done_ns = max(end.established_ns or 0 for end in (self.left, self.right))
        return (done_ns - max(self.left.fired_ns, self.right.fired_ns)) / 1e6

    @property
    def later_ms(self) -> float | None:
        """From the later side's first SYN until that side had the stream."""
        later = max(self.left, self.right, key=lambda end: end.fired_ns)
        if not self.connected or later.established_ns is None:
            return None
        return (later.established_ns - later.fired_ns) / 1e6


class _Peer:
    """One side at work: a host, and its access to the network."""

    def __init__(self, network: Network, side: Side, number: int, seed: int) -> None:
        addresses = addresses_of(number, side.nats)
        self._network = network
        self._side = side
        self._local = Endpoint(addresses.private, PORT)
        self.host = Host(self, self._local, isn=(seed * 2 + number) * 0x9E3779B1, listens=side.listen)  # far apart
        chain = _chain(side.nats, addresses, (seed * 2 + number) * MOST_NATS)
        self._access = Access(self.host, chain, delay_s=side.delay_s, jitter_s=side.jitter_s, loss=side.loss)
        for address in next((pool for pool in reversed(addresses.pools) if pool), (addresses.public,)):
            network.attach(self._access, address)
        self.public = Endpoint(addresses.public, PORT)
        """The endpoint to fire at where nobody asked: the public address, and the port that was agreed on."""

    def discover(self) -> Endpoint:
        """The endpoint as which a third party sees this one, as STUN over TCP from the punch port would tell."""
        return self._access.chain.outbound(
            Headers(TCP, self._local, _THIRD_PARTY, SYN), self._network.now_ns
        ).headers.source

    def aim(self, target: Endpoint) -> None:
        """Fire at the peer's endpoint when this side's clock says so."""
        fires_ns, window_ns = (round(seconds * 1e9) for seconds in (self._side.error_s, self._side.window_s))
        self.host.aim(target, INSTANT_NS + fires_ns, window_ns, retries=self._side.retry)

    def end(self) -> End:
        """What it came to."""
        host = self.host
        established_ns = None if host.established_ns is None else host.established_ns - INSTANT_NS
        accepted = host.stream is not None and host.stream.passive
        return End(host.fired_ns - INSTANT_NS, established_ns, host.shots, accepted)

    @property
    def now_ns(self) -> int:
        """As a `Carrier`."""
        return self._network.now_ns

    def at(self, when_ns: int, call: Callable[..., None], *arguments: Any) -> None:
        """As a `Carrier`."""
        self._network.at(when_ns, call, *arguments)

    def carry(self, local: Endpoint, remote: Endpoint, segment: Segment) -> None:
        """As a `Carrier`."""
        self._network.send(self._access, local, remote, segment)


def punch(left: Side, right: Side, *, seed: int = 0, discovered: bool = False) -> Result:
    """One punch of two peers that have agreed on an instant, and know each other's public address.

    `discovered`: each fires at the endpoint as which a third party saw the other; otherwise at the agreed port number.
    """
    network = Network(seed)
    peers = (_Peer(network, left, 1, seed), _Peer(network, right, 2, seed))
    ends = [peer.discover() if discovered else peer.public for peer in peers]
    peers[0].aim(ends[1])
    peers[1].aim(ends[0])
    one, other = (peer.host for peer in peers)
    network.run(lambda: one.over and other.over and not network.flying)
    return Result(peers[0].end(), peers[1].end(), _one_connection(one.stream, other.stream))


def _one_connection(one: Opener | None, other: Opener | None) -> bool:
    if one is None or other is None or State.CLOSED in (one.state, other.state):
        return False
    return one.rcv_nxt == after(other.iss) and other.rcv_nxt == after(one.iss)


def _chain(nats: Sequence[Nat], addresses: Addresses, seed: int) -> Chain:
    pools = zip(nats, addresses.pools, strict=True)
    return Chain([Translator(nat, *pool, seed=seed + index) for index, (nat, pool) in enumerate(pools)])
