"""What `discover` would see through the lab's NAT models, without any socket: they are driven with headers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from simopen.lab.nat.chain import Chain
from simopen.lab.nat.model import Nat
from simopen.lab.nat.translator import Translator
from simopen.lab.packet import NO_FLAGS, Flags, Headers, Protocol
from simopen.model.endpoint import Endpoint
from simopen.model.endpoint import Endpoint as Labelled
from simopen.model.nat import Observation
from simopen.model.times import MonoNs
from simopen.net.own_flows import Flow

HOST = "192.168.1.10"
SERVERS = [f"198.51.100.{number}" for number in (1, 2, 3, 4)]
OTHER_ADDRESS = "198.51.100.101"
PORT, OTHER_PORT = 3478, 3479
RTT_NS = 80_000_000
PUNCH_PORT = 40000


@dataclass
class Model:
    """A host behind NATs in a row, beside hosts that make `others_per_s` mappings a second (a Poisson process).

    `site`: models of different ones have different public addresses.
    """

    nats: Sequence[Nat]
    seed: int
    others_per_s: float = 0.0
    now_ns: int = 0
    site: int = 0
    draws: Random = field(init=False)
    chain: Chain = field(init=False)
    flows: list[Flow] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.draws = Random(self.seed)
        self.chain = Chain(
            [Translator(nat, *self._addresses(index, nat), seed=self.seed) for index, nat in enumerate(self.nats)]
        )

    def _addresses(self, index: int, nat: Nat) -> list[str]:
        place = 113 + index + 10 * self.site
        return [f"203.0.{place}.{last}" for last in range(1, nat.pool + 1)] if nat.translates else []

    def mapped(self, local: Endpoint, remote: Endpoint, *, is_tcp: bool = True) -> Endpoint:
        """What `remote` sees when `local` sends it a SYN now, or a datagram."""
        protocol, flags = (Protocol.TCP, Flags.SYN) if is_tcp else (Protocol.UDP, NO_FLAGS)
        headers = Headers(protocol, Labelled(*local), Labelled(*remote), flags)
        return Endpoint(*self.chain.outbound(headers, self.now_ns).headers.source)

    def send(self, remote: Endpoint, *, is_tcp: bool, local_port: int | None = None) -> None:
        """A flow of this program's own that shows it no mapping: a question over UDP, a server that is silent."""
        port = local_port or self.draws.randrange(32768, 61000)
        self.flows.append(Flow(is_tcp, port, remote, MonoNs(self.now_ns)))
        self.mapped(Endpoint(HOST, port), remote, is_tcp=is_tcp)
        self.pass_time(self.draws.randrange(20_000, 200_000))

    def pass_time(self, ns: int) -> None:
        """Others go on meanwhile: connections from elsewhere behind the same NATs."""
        end_ns = self.now_ns + ns
        while self.others_per_s:
            pause_ns = round(self.draws.expovariate(self.others_per_s) * 1e9)
            if self.now_ns + pause_ns > end_ns:
                break
            self.now_ns += pause_ns
            self.someone_else()
        self.now_ns = end_ns

    def someone_else(self) -> None:
        number = self.draws.randrange(20, 250)
        self.mapped(
            Endpoint(f"192.168.1.{number}", self.draws.randrange(32768, 61000)),
            Endpoint(f"192.0.2.{self.draws.randrange(1, 255)}", 443),
        )

    def bind(self, local_port: int, server: Endpoint) -> Observation:
        local = Endpoint(HOST, local_port)
        self.flows.append(Flow(True, local_port, server, MonoNs(self.now_ns)))
        return Observation(local, server, self.mapped(local, server), MonoNs(self.now_ns))

    def discover(self, further: int = 8, servers: int = 3, *, dead: int = 0) -> list[Observation]:
        """The observations that `simopen.nat` asks for, in three round trips. `flows` has all that went out for them.

        Each server is asked over UDP, too. `dead`: so many further ones never answer.
        """
        first = [Endpoint(address, PORT) for address in SERVERS[:servers]]
        other = [Endpoint(SERVERS[0], OTHER_PORT), Endpoint(OTHER_ADDRESS, PORT), Endpoint(OTHER_ADDRESS, OTHER_PORT)]
        ports = self.draws.sample(range(32768, 61000), further)
        self.pass_time(self.draws.randrange(1, 5_000_000_000))
        seen = []
        batches = (
            [(PUNCH_PORT, server) for server in first],
            [(PUNCH_PORT, server) for server in other],
            [(port, first[index % servers]) for index, port in enumerate(ports)],
        )
        for index, batch in enumerate(batches):
            for port, server in batch:
                if not index:
                    self.send(server, is_tcp=False)
                seen.append(self.bind(port, server))
                self.pass_time(self.draws.randrange(20_000, 200_000))
            if not index:
                for number in range(dead):
                    self.send(Endpoint(f"192.0.2.{number + 1}", PORT), is_tcp=True, local_port=PUNCH_PORT)
            self.pass_time(RTT_NS)
        return seen
