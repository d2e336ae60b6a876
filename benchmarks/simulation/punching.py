"""What simopen does with one peer endpoint, on simulated hosts.

Theory of operation: `_Host` is a kernel's table of sockets and, above it, what `simopen/holepunch/runner.py` and
`simopen/listener.py` do, with the connector's own `Window` deciding on every outcome. `punch` puts two of them on a
network and lets time pass until both have a stream or have given up, and nothing is under way any more.

Not modelled: several peer endpoints at a time, other programs, the GIL; the time that a host takes is `REACTION_NS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.simulation.network import TCP, Access, Network
from benchmarks.simulation.tcp import RST, SYN, Opener, Segment, State, after, refusal
from simopen.holepunch.retry import Fire, GiveUp, Keep, Window
from simopen.lab.nat.chain import Chain
from simopen.lab.nat.model import Nat
from simopen.lab.nat.translator import Translator
from simopen.lab.net.conditions import MOST_NATS, Addresses, addresses_of
from simopen.lab.packet import Headers
from simopen.model.endpoint import Endpoint
from simopen.model.outcome import Outcome

# From a RST's arrival until the next SYN leaves. Measured in the lab with both cores busy: 0.5 to 1 ms.
REACTION_NS = 300_000
PORT = 2000
# Long enough before the earliest shot of any clock error that is simulated here.
INSTANT_NS = 100_000_000_000
_THIRD_PARTY = Endpoint("192.0.2.53", 3478)
_SERIAL_BITS = 32


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


class _Host:
    """One side at work."""

    def __init__(self, network: Network, side: Side, number: int, seed: int) -> None:
        addresses = addresses_of(number, side.nats)
        self._network = network
        self._side = side
        self._local = Endpoint(addresses.private, PORT)
        chain = _chain(side.nats, addresses, (seed * 2 + number) * MOST_NATS)
        self._access = Access(self, chain, delay_s=side.delay_s, jitter_s=side.jitter_s, loss=side.loss)
        for address in next((pool for pool in reversed(addresses.pools) if pool), (addresses.public,)):
            network.attach(self._access, address)
        self._isn = (seed * 2 + number) * 0x9E3779B1  # any two far apart
        self._sockets: dict[Endpoint, Opener] = {}
        self._listening = False
        self._target = self._public = Endpoint(addresses.public, PORT)
        self._window = Window(0, 0)
        self.stream: Opener | None = None
        self.fired_ns = 0
        self.established_ns: int | None = None
        self.shots = 0
        self.over = False

    def discover(self) -> Endpoint:
        """The endpoint as which a third party sees this one, as STUN over TCP from the punch port would tell."""
        return self._access.chain.outbound(
            Headers(TCP, self._local, _THIRD_PARTY, SYN), self._network.now_ns
        ).headers.source

    @property
    def public(self) -> Endpoint:
        """The endpoint to fire at where nobody asked: the public address, and the port that was agreed on."""
        return self._public

    def aim(self, target: Endpoint) -> None:
        """Fire at the peer's endpoint when this side's clock says so."""
        self._target = target
        self.fired_ns = INSTANT_NS + round(self._side.error_s * 1e9)
        closes_ns = self.fired_ns + round(self._side.window_s * 1e9)
        self._window = Window(self.fired_ns, closes_ns)
        self._network.at(self.fired_ns, self._begin)
        self._network.at(closes_ns, self._end)

    def end(self) -> End:
        """What it came to."""
        established_ns = None if self.established_ns is None else self.established_ns - INSTANT_NS
        accepted = self.stream is not None and self.stream.passive
        return End(self.fired_ns - INSTANT_NS, established_ns, self.shots, accepted)

    def receive(self, remote: Endpoint, segment: Segment) -> None:
        """A segment has arrived."""
        opener = self._sockets.get(remote)
        if opener is None:
            self._unexpected(remote, segment)
            return
        before = opener.state
        self._reply(remote, opener.receive(segment, self._network.now_ns))
        if opener.state is State.ESTABLISHED and before is not State.ESTABLISHED:
            self._established(remote, opener)
        elif opener.state is State.CLOSED:
            self._lost(remote, opener, Outcome.RESET)

    def unreachable(self, remote: Endpoint, segment: Segment) -> None:
        """An ICMP error has arrived: Linux gives a socket that is still opening up at once, with ECONNREFUSED."""
        opener = self._sockets.get(remote)
        if opener is not None and opener.unacked and not opener.passive and segment.seq == opener.iss:
            self._lost(remote, opener, Outcome.RESET)

    def _begin(self) -> None:
        self._window = self._window.fired(self._network.now_ns)
        self._fire()
        self._listening = self._side.listen

    def _fire(self) -> None:
        if self.over:
            return
        if self._target in self._sockets:
            self._shot_ended(Outcome.TAKEN)
            return
        self.shots += 1
        self._open(self._target, Opener.connecting(self._next_isn()))

    def _open(self, remote: Endpoint, opener: Opener) -> None:
        self._sockets[remote] = opener
        self._reply(remote, opener.latest)
        self._network.at(self._network.now_ns + opener.rto_ns, self._resend, remote, opener)

    def _next_isn(self) -> int:
        return (self._isn + (self._network.now_ns >> 6)) % (1 << _SERIAL_BITS)  # RFC 6528, as Linux counts

    def _resend(self, remote: Endpoint, opener: Opener) -> None:
        if self._sockets.get(remote) is not opener or not opener.unacked:
            return
        segment = opener.resend()
        if segment is None:
            self._lost(remote, opener, Outcome.EXHAUSTED)
            return
        self._reply(remote, segment)
        self._network.at(self._network.now_ns + opener.rto_ns, self._resend, remote, opener)

    def _reply(self, remote: Endpoint, segment: Segment | None) -> None:
        if segment is not None:
            self._network.send(self._access, self._local, remote, segment)

    def _unexpected(self, remote: Endpoint, segment: Segment) -> None:
        child = Opener.accepting(segment, self._next_isn()) if self._listening else None
        if child is None:
            self._reply(remote, refusal(segment))
        else:
            self._open(remote, child)

    def _established(self, remote: Endpoint, opener: Opener) -> None:
        if remote.address != self._target.address:
            self._close(remote, opener)  # a stranger
            return
        self.stream, self.established_ns = opener, self._network.now_ns
        self._end()

    def _lost(self, remote: Endpoint, opener: Opener, outcome: Outcome) -> None:
        opener.state = State.CLOSED
        del self._sockets[remote]
        if not (opener.passive or self.over):
            self._shot_ended(outcome)

    def _shot_ended(self, outcome: Outcome) -> None:
        if not self._side.retry:
            return
        action, self._window = self._window.after(outcome, self._network.now_ns)
        assert not isinstance(action, Keep)
        if isinstance(action, Fire):
            self._network.at(max(action.at_ns, self._network.now_ns + REACTION_NS), self._fire)
        elif isinstance(action, GiveUp):
            self._end()

    def _end(self) -> None:
        if self.over:
            return
        self.over = True
        self._listening = False
        for remote, opener in list(self._sockets.items()):
            if opener is not self.stream:
                self._close(remote, opener)

    def _close(self, remote: Endpoint, opener: Opener) -> None:
        """With SO_LINGER (1, 0): a RST, but nothing for a SYN, nor for what a listener has not accepted yet."""
        del self._sockets[remote]
        if opener.state is State.ESTABLISHED or (opener.state is State.SYN_RECEIVED and not opener.passive):
            self._reply(remote, Segment(RST, after(opener.iss)))


def punch(left: Side, right: Side, *, seed: int = 0, discovered: bool = False) -> Result:
    """One punch of two peers that have agreed on an instant, and know each other's public address.

    `discovered`: each fires at the endpoint as which a third party saw the other; otherwise at the agreed port number.
    """
    network = Network(seed)
    hosts = (_Host(network, left, 1, seed), _Host(network, right, 2, seed))
    ends = [host.discover() if discovered else host.public for host in hosts]
    hosts[0].aim(ends[1])
    hosts[1].aim(ends[0])
    network.run(lambda: hosts[0].over and hosts[1].over and not network.flying)
    return Result(hosts[0].end(), hosts[1].end(), _one_connection(hosts[0].stream, hosts[1].stream))


def _one_connection(one: Opener | None, other: Opener | None) -> bool:
    if one is None or other is None or State.CLOSED in (one.state, other.state):
        return False
    return one.rcv_nxt == after(other.iss) and other.rcv_nxt == after(one.iss)


def _chain(nats: Sequence[Nat], addresses: Addresses, seed: int) -> Chain:
    pools = zip(nats, addresses.pools, strict=True)
    return Chain([Translator(nat, *pool, seed=seed + index) for index, (nat, pool) in enumerate(pools)])
