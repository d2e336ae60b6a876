"""Any sequence of packets, against a reference that remembers every packet and decides by the RFCs' own words.

The reference has no tables, keys or permits: it searches its list of past packets, each of which knows only the number
of its mapping. A session is a public and a remote endpoint; it lives for its time-out after its latest packet, and a
mapping as long as one of its sessions. Only what went out decides which mapping a packet belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from simopen.lab.nat.model import ALLOCATIONS, FILTERINGS, MAPPINGS, POOLINGS, Nat, Unsolicited
from simopen.lab.nat.translator import REMEMBERED_NS, Translator
from simopen.lab.packet import NO_FLAGS, Flags, Headers, Protocol
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Allocation, Filtering, Mapping

S_NS = 10**9
POOL = ("198.51.100.1", "198.18.1.1", "198.18.1.2")
SYN, ACK, RST, FIN = Flags.SYN, Flags.ACK, Flags.RST, Flags.FIN


@dataclass(frozen=True)
class Past:
    """A packet that passed, out or in."""

    mapping: int
    outward: bool
    at_ns: int
    protocol: int
    private: Endpoint
    public: Endpoint
    remote: Endpoint
    idle_s: float


@dataclass
class Reference:
    """What RFC 4787 and RFC 5382 say of a NAT, read off the packets that passed it."""

    nat: Nat
    passed: list[Past] = field(default_factory=list)
    accepted: list[tuple[Headers, int]] = field(default_factory=list)  # datagrams that it took for its own, and when

    def sessions(self, protocol: int, now_ns: int) -> list[Past]:
        """The latest packet of each session that is alive."""
        latest = {(past.public, past.remote): past for past in self.passed if past.protocol == protocol}
        return [past for past in latest.values() if past.at_ns + round(past.idle_s * S_NS) > now_ns]

    def mapped(self, sent: Headers, now_ns: int) -> Past | None:
        """An earlier packet of the same mapping, where that is alive."""
        alive = {past.mapping for past in self.sessions(sent.protocol, now_ns)}
        for past in (past for past in self.passed if past.outward and past.mapping in alive):
            same = {
                Mapping.ENDPOINT_INDEPENDENT: True,
                Mapping.ADDRESS_DEPENDENT: past.remote.address == sent.destination.address,
                Mapping.ADDRESS_AND_PORT_DEPENDENT: past.remote == sent.destination,
            }
            if past.private == sent.source and same[self.nat.mapping]:
                return past
        return None

    def taken(self, sent: Headers, now_ns: int) -> set[Endpoint]:
        """The public endpoints that a new mapping cannot have."""
        sessions = self.sessions(sent.protocol, now_ns)
        own = {
            come.destination
            for come, at_ns in self.accepted
            if (come.protocol, come.source) == (sent.protocol, sent.destination) and at_ns + REMEMBERED_NS > now_ns
        }
        return own | {past.public for past in sessions if not self.nat.overloading or past.remote == sent.destination}

    def owner(self, come: Headers, now_ns: int) -> Past | None:
        """A packet of the mapping that lets this one in from outside."""
        syn = come.protocol == Protocol.TCP and SYN in come.flags and ACK not in come.flags
        for past in self.sessions(come.protocol, now_ns):
            admits = {
                Filtering.ENDPOINT_INDEPENDENT: True,
                Filtering.ADDRESS_DEPENDENT: past.remote.address == come.source.address,
                Filtering.ADDRESS_AND_PORT_DEPENDENT: past.remote == come.source,
            }
            if past.public == come.destination and admits[self.nat.filtering] and not (syn and self.nat.refuses_syns):
                return past
        return None

    def note(self, packet: Headers, private: Endpoint, public: Endpoint, mapping: int, now_ns: int) -> None:
        if self.nat.reset_kills and packet.protocol == Protocol.TCP and RST in packet.flags:
            self.passed = [past for past in self.passed if past.mapping != mapping]
            return
        outward = packet.source == private
        remote = packet.destination if outward else packet.source
        self.passed.append(
            Past(mapping, outward, now_ns, packet.protocol, private, public, remote, self.idle_s(packet))
        )

    def idle_s(self, packet: Headers) -> float:
        if packet.protocol == Protocol.UDP:
            return self.nat.udp_timeout_s
        if packet.protocol == Protocol.ICMP:
            return self.nat.icmp_timeout_s
        short = {SYN, FIN, RST} & set(packet.flags)
        return self.nat.transitory_timeout_s if short else self.nat.established_timeout_s


TIMES = {"established_timeout_s": 40.0, "transitory_timeout_s": 10.0, "udp_timeout_s": 20.0, "icmp_timeout_s": 5.0}
NATS = st.builds(
    Nat,
    mapping=st.sampled_from(MAPPINGS),
    filtering=st.sampled_from(FILTERINGS),
    allocation=st.sampled_from(ALLOCATIONS),
    unsolicited=st.sampled_from(Unsolicited),
    step=st.integers(1, 5),
    others=st.sampled_from([0.0, 0.5]),
    parity=st.booleans(),
    reset_kills=st.booleans(),
    refuses_syns=st.booleans(),
    pool=st.sampled_from([1, 3]),
    pooling=st.sampled_from(POOLINGS),
    **{name: st.just(value) for name, value in TIMES.items()},
)
OVERLOADING = st.builds(
    Nat,
    mapping=st.just(Mapping.ADDRESS_AND_PORT_DEPENDENT),
    allocation=st.sampled_from(ALLOCATIONS),
    reset_kills=st.booleans(),
    overloading=st.just(True),
    pool=st.sampled_from([1, 3]),
    **{name: st.just(value) for name, value in TIMES.items()},
)
PROTOCOLS = st.sampled_from([Protocol.TCP, Protocol.TCP, Protocol.UDP, Protocol.ICMP])
PRIVATES = st.sampled_from([Endpoint(f"192.168.1.{host}", port) for host, port in ((2, 1314), (3, 1314), (3, 65535))])
REMOTES = st.builds(Endpoint, st.sampled_from(["203.0.113.1", "203.0.113.2"]), st.integers(1, 2))
FLAGS = st.sampled_from([SYN, SYN | ACK, ACK, RST, FIN | ACK])
WAITS_S = st.sampled_from([0, 0, 0, 0, 1, 4, 5, 9, 10, 20, 40])
# Which public endpoint a packet from outside goes to: one of those seen so far, by number, or one that nobody has.
TARGETS = st.one_of(st.integers(0, 9), st.just(None))
STEP = st.tuples(st.booleans(), PROTOCOLS, PRIVATES, REMOTES, FLAGS, TARGETS, WAITS_S)
STEPS = st.lists(STEP, min_size=8, max_size=30)
Step = tuple[bool, Protocol, Endpoint, Endpoint, Flags, int | None, int]


@dataclass
class Trial:
    """One NAT and its reference, side by side."""

    nat: Nat
    now_ns: int = 0
    mappings: int = 0
    publics: list[Endpoint] = field(default_factory=list)
    latest: dict[tuple[int, Endpoint], Endpoint] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.translator = Translator(self.nat, *POOL[: self.nat.pool], seed=5)
        self.reference = Reference(self.nat)

    def play(self, step: Step) -> None:
        outward, protocol, private, remote, flags, target, wait_s = step
        self.now_ns += wait_s * S_NS
        flags = flags if protocol == Protocol.TCP else NO_FLAGS
        if outward:
            self.send(Headers(protocol, private, remote, flags))
        else:
            known = self.publics[target % len(self.publics)] if self.publics and target is not None else None
            self.receive(Headers(protocol, remote, known or Endpoint(POOL[0], 9), flags))

    def send(self, packet: Headers) -> None:
        mapped, taken = self.reference.mapped(packet, self.now_ns), self.reference.taken(packet, self.now_ns)
        decision = self.translator.outbound(packet, self.now_ns)
        assert isinstance(decision, Headers)
        assert (decision.protocol, decision.destination, decision.flags) == (
            packet.protocol,
            packet.destination,
            packet.flags,
        )
        if mapped is None:
            # Which an overloading NAT tries to give again, for another remote, before it looks at the number (Linux's).
            again = self.nat.overloading and self.latest.get((packet.protocol, packet.source)) == decision.source
            self.check_new(packet.source, decision.source, taken, again=again)
            self.latest[packet.protocol, packet.source] = decision.source
            self.mappings += 1
        else:
            assert decision.source == mapped.public
        self.publics.append(decision.source)
        number = self.mappings if mapped is None else mapped.mapping
        self.reference.note(packet, packet.source, decision.source, number, self.now_ns)

    def check_new(self, private: Endpoint, public: Endpoint, taken: set[Endpoint], *, again: bool) -> None:
        assert public not in taken, "two live mappings share a public endpoint"
        assert public.address in POOL[: self.nat.pool]
        if self.nat.parity:
            assert (public.port ^ private.port) & 1 == 0
        if self.nat.allocation is Allocation.PRESERVING and Endpoint(public.address, private.port) not in taken:
            assert again or public.port == private.port

    def receive(self, packet: Headers) -> None:
        owner = self.reference.owner(packet, self.now_ns)
        decision = self.translator.inbound(packet, self.now_ns)
        if owner is None:
            assert isinstance(decision, Unsolicited)
            if self.nat.unsolicited is Unsolicited.ACCEPT and packet.protocol == Protocol.UDP:
                self.reference.accepted.append((packet, self.now_ns))
            return
        assert decision == Headers(packet.protocol, packet.source, owner.private, packet.flags)
        self.reference.note(packet, owner.private, packet.destination, owner.mapping, self.now_ns)


@given(NATS, STEPS)
@settings(max_examples=300)
def test_any_traffic_is_treated_as_the_rfcs_say(nat: Nat, steps: list[Step]) -> None:
    trial = Trial(nat)
    for step in steps:
        trial.play(step)


@given(OVERLOADING, STEPS)
def test_overloaded_ports_are_told_apart_by_the_remote(nat: Nat, steps: list[Step]) -> None:
    trial = Trial(nat)
    for step in steps:
        trial.play(step)


@given(NATS, STEPS)
def test_whatever_went_out_can_be_answered_at_once(nat: Nat, steps: list[Step]) -> None:
    """The reply, from that very remote, comes back to that very private endpoint; a SYN may be refused."""
    trial = Trial(nat)
    for _, protocol, private, remote, flags, _, wait_s in steps:
        trial.now_ns += wait_s * S_NS
        flags = flags if protocol == Protocol.TCP else NO_FLAGS  # noqa: PLW2901
        decision = trial.translator.outbound(Headers(protocol, private, remote, flags), trial.now_ns)
        assert isinstance(decision, Headers)
        if RST in flags and nat.reset_kills:
            continue
        answer = Headers(protocol, remote, decision.source, ACK if flags else NO_FLAGS)
        assert trial.translator.inbound(answer, trial.now_ns) == Headers(protocol, remote, private, answer.flags)


@given(NATS, STEPS)
def test_the_same_inputs_give_the_same_outputs(nat: Nat, steps: list[Step]) -> None:
    def outputs() -> list[object]:
        translator = Translator(nat, *POOL[: nat.pool], seed=5)
        said: list[object] = []
        for number, (outward, protocol, private, remote, flags, _, _) in enumerate(steps):
            if outward:
                said.append(translator.outbound(Headers(protocol, private, remote, flags), number))
            else:
                public = Endpoint(POOL[0], private.port)
                said.append(translator.inbound(Headers(protocol, remote, public, flags), number))
        return said

    assert outputs() == outputs()


ENDS = st.builds(
    Endpoint, st.sampled_from(["192.168.1.2", POOL[0], "203.0.113.1", "2001:db8:1::2"]), st.integers(0, 65535)
)
ANY_FLAGS = st.integers(0, 255).map(Flags)
ANY_HEADERS = st.recursive(
    st.builds(Headers, st.sampled_from([1, 6, 17, 58, 132, 0]), ENDS, ENDS, ANY_FLAGS),
    lambda inner: st.builds(Headers, st.sampled_from([1, 58]), ENDS, ENDS, st.just(NO_FLAGS), inner),
    max_leaves=3,
)


@given(NATS, st.lists(st.tuples(st.booleans(), ANY_HEADERS), max_size=30), st.booleans())
def test_no_headers_upset_a_nat(nat: Nat, packets: list[tuple[bool, Headers]], translates: bool) -> None:
    translator = Translator(nat, *POOL[: nat.pool]) if translates else Translator(Nat(translates=False))
    for number, (outward, headers) in enumerate(packets):
        decision = (translator.outbound if outward else translator.inbound)(headers, number)
        assert isinstance(decision, Headers | Unsolicited)
        assert isinstance(translator.release(headers, number), Unsolicited)
