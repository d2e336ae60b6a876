"""The pure NAT models: tables of the RFCs' terms, and properties that hold for any traffic."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.lab.nat.model import ALLOCATIONS, FILTERINGS, HOLD_NS, MAPPINGS, Nat, Unsolicited
from simopen.lab.nat.translator import REMEMBERED_NS, Translator
from simopen.lab.packet import NO_FLAGS, Flags, Headers, Numbers, Protocol
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Allocation, Filtering, Mapping, Pooling

PRIVATE = Endpoint("192.168.1.2", 1314)
PUBLIC = Endpoint("198.51.100.1", 1314)
PEER = Endpoint("203.0.113.1", 1314)
SAME_ADDRESS = Endpoint("203.0.113.1", 9)
STRANGER = Endpoint("203.0.113.7", 1314)
S_NS = 10**9


def translator(**options: object) -> Translator:
    nat = Nat(**options)  # type: ignore[arg-type]
    return Translator(nat, PUBLIC.address, *(f"198.18.1.{number}" for number in range(1, nat.pool)), seed=1)


def outward(source: Endpoint = PRIVATE, destination: Endpoint = PEER, flags: Flags = Flags.SYN) -> Headers:
    return Headers(Protocol.TCP, source, destination, flags)


def inward(source: Endpoint = PEER, destination: Endpoint = PUBLIC, flags: Flags = Flags.SYN) -> Headers:
    return Headers(Protocol.TCP, source, destination, flags)


def datagram(source: Endpoint, destination: Endpoint) -> Headers:
    return Headers(Protocol.UDP, source, destination)


def test_a_mapping_keeps_the_port_and_leads_back() -> None:
    nat = translator()
    assert nat.outbound(outward(), 0) == replace(outward(), source=PUBLIC)
    assert nat.inbound(inward(), 1) == replace(inward(), destination=PRIVATE)


def test_an_endpoint_independent_mapping_is_one_for_all_destinations() -> None:
    nat = translator()
    sources = {nat.outbound(outward(destination=to), 0).source for to in (PEER, SAME_ADDRESS, STRANGER)}  # type: ignore[union-attr]
    assert sources == {PUBLIC}


@pytest.mark.parametrize(
    ("filtering", "admitted"),
    [
        (Filtering.ENDPOINT_INDEPENDENT, {PEER, SAME_ADDRESS, STRANGER}),
        (Filtering.ADDRESS_DEPENDENT, {PEER, SAME_ADDRESS}),
        (Filtering.ADDRESS_AND_PORT_DEPENDENT, {PEER}),
    ],
)
def test_filtering_admits_whom_rfc_4787_says(filtering: Filtering, admitted: set[Endpoint]) -> None:
    for source in (PEER, SAME_ADDRESS, STRANGER):
        nat = translator(filtering=filtering)
        nat.outbound(outward(), 0)
        assert isinstance(nat.inbound(inward(source), 1), Headers) is (source in admitted)


@pytest.mark.parametrize("unsolicited", list(Unsolicited))
@pytest.mark.parametrize(
    ("headers", "answers"),
    [
        pytest.param(inward(STRANGER), "reset icmp hold", id="SYN"),
        pytest.param(inward(STRANGER, flags=Flags.SYN | Flags.ACK), "reset icmp", id="SYN-ACK"),
        pytest.param(inward(STRANGER, flags=Flags.ACK), "reset icmp", id="ACK"),
        pytest.param(inward(STRANGER, flags=Flags.RST), "icmp", id="RST"),
        pytest.param(inward(STRANGER, flags=Flags.RST | Flags.ACK), "icmp", id="RST-ACK"),
        pytest.param(Headers(Protocol.ICMP, STRANGER, Endpoint(PUBLIC.address, 0)), "accept", id="echo"),
    ],
)
def test_what_nobody_asked_for_is_answered_as_told(unsolicited: Unsolicited, headers: Headers, answers: str) -> None:
    decision = translator(unsolicited=unsolicited).inbound(headers, 0)
    if unsolicited is Unsolicited.ACCEPT and headers.protocol == Protocol.TCP:
        unsolicited = Unsolicited.RESET
    assert decision is (unsolicited if unsolicited.value in answers.split() else Unsolicited.DROP)


@pytest.mark.parametrize("unsolicited", list(Unsolicited))
def test_a_datagram_is_refused_by_icmp_where_tcp_is_answered_at_once(unsolicited: Unsolicited) -> None:
    decision = translator(unsolicited=unsolicited).inbound(datagram(STRANGER, PUBLIC), 0)
    refuses = unsolicited in {Unsolicited.RESET, Unsolicited.ICMP, Unsolicited.ACCEPT}
    assert decision is (Unsolicited.ICMP if refuses else Unsolicited.DROP)


@pytest.mark.parametrize(
    "nat", [Nat(unsolicited=Unsolicited.ACCEPT, translates=False), Nat(unsolicited=Unsolicited.ACCEPT)]
)
def test_only_an_echo_to_its_own_address_is_accepted(nat: Nat) -> None:
    """A firewall has none."""
    ours = Translator(nat, *[PUBLIC.address] * nat.translates)
    for address in (PUBLIC.address, "198.51.100.9", "2001:db8:1::2"):
        echo = Headers(Protocol.ICMP, STRANGER, Endpoint(address, 0))
        own = address in ours.public_addresses
        assert ours.inbound(echo, 0) is (Unsolicited.ACCEPT if own else Unsolicited.DROP)


@pytest.mark.parametrize(
    ("come", "sent_ns", "keeps"),
    [
        pytest.param(datagram(PEER, PUBLIC), REMEMBERED_NS - 1, False, id="a datagram"),
        pytest.param(datagram(PEER, PUBLIC), REMEMBERED_NS, True, id="long ago"),
        pytest.param(datagram(SAME_ADDRESS, PUBLIC), 1, True, id="from another port"),
        pytest.param(datagram(PEER, Endpoint(PUBLIC.address, 9)), 1, True, id="to another port"),
        pytest.param(inward(), 1, True, id="a SYN"),
    ],
)
@pytest.mark.parametrize("unsolicited", list(Unsolicited))
def test_a_datagram_that_is_accepted_costs_the_hole_its_port(
    unsolicited: Unsolicited, come: Headers, sent_ns: int, keeps: bool
) -> None:
    nat = translator(unsolicited=unsolicited)
    nat.inbound(come, 0)
    public = sent(nat, datagram(PRIVATE, PEER), sent_ns)
    assert (public == PUBLIC) is (keeps or unsolicited is not Unsolicited.ACCEPT)
    assert nat.inbound(datagram(PEER, public), sent_ns + 1) == datagram(PEER, PRIVATE)


def test_a_port_that_is_taken_gives_the_next_free_one() -> None:
    nat = translator()
    sources = [Endpoint(f"192.168.1.{host}", 65535) for host in (2, 3, 4)]
    decisions = [nat.outbound(outward(source), 0) for source in sources]
    assert [each.source.port for each in decisions] == [65535, 1024, 1025]  # type: ignore[union-attr]


def test_tcp_and_udp_do_not_take_each_others_ports() -> None:
    nat = translator()
    nat.outbound(outward(), 0)
    other = Endpoint("192.168.1.3", PRIVATE.port)
    assert nat.outbound(datagram(other, PEER), 0) == replace(datagram(other, PEER), source=PUBLIC)


def test_in_one_row_tcp_and_udp_take_each_others_ports() -> None:
    nat = translator(one_row=True)
    nat.outbound(outward(), 0)
    other = Endpoint("192.168.1.3", PRIVATE.port)
    next_one = Endpoint(PUBLIC.address, PUBLIC.port + 1)
    assert nat.outbound(datagram(other, PEER), 0) == replace(datagram(other, PEER), source=next_one)
    assert nat.inbound(datagram(PEER, next_one), 1) == datagram(PEER, other)


@pytest.mark.parametrize(("one_row", "gap"), [(False, 1), (True, 3)])
def test_ports_in_sequence_are_counted_over_both_protocols_in_one_row(one_row: bool, gap: int) -> None:
    """Echoes are never counted: what they have is an identifier."""
    nat = translator(allocation=Allocation.SEQUENTIAL, one_row=one_row)
    before = sent(nat, outward()).port
    for number in (1, 2):
        source = Endpoint("192.168.1.4", number)
        sent(nat, datagram(source, PEER))
        sent(nat, Headers(Protocol.ICMP, source, Endpoint(PEER.address, number)))
    assert sent(nat, outward(Endpoint("192.168.1.3", 7))).port == before + gap


def test_a_nat_without_a_free_port_drops() -> None:
    nat = translator()
    ends = (Endpoint("192.168.1.2", port) for port in range(1024, 65536))
    assert all(isinstance(nat.outbound(datagram(end, PEER), 0), Headers) for end in ends)
    assert nat.outbound(datagram(Endpoint("192.168.1.3", 1024), PEER), 0) is Unsolicited.DROP


@pytest.mark.parametrize(
    ("flags", "protocol", "idle_s"),
    [
        (Flags.SYN, Protocol.TCP, 240),
        (Flags.ACK, Protocol.TCP, 7440),
        (Flags.FIN | Flags.ACK, Protocol.TCP, 240),
        (NO_FLAGS, Protocol.UDP, 300),
        (NO_FLAGS, Protocol.ICMP, 60),
    ],
)
def test_a_mapping_ends_after_its_idle_time(flags: Flags, protocol: Protocol, idle_s: int) -> None:
    sent = replace(outward(flags=flags), protocol=protocol)
    answer = replace(inward(flags=flags), protocol=protocol)
    for now_ns, passes in ((idle_s * S_NS - 1, True), (idle_s * S_NS, False)):
        nat = translator()
        nat.outbound(sent, 0)
        assert isinstance(nat.inbound(answer, now_ns), Headers) is passes


def test_traffic_in_either_direction_keeps_a_mapping() -> None:
    nat = translator(udp_timeout_s=10)
    nat.outbound(datagram(PRIVATE, PEER), 0)
    for now_s in (9, 18, 27):
        assert isinstance(nat.inbound(datagram(PEER, PUBLIC), now_s * S_NS), Headers)
    assert nat.inbound(datagram(PEER, PUBLIC), 37 * S_NS) is Unsolicited.DROP


def test_a_port_whose_mapping_has_ended_is_free() -> None:
    nat = translator(udp_timeout_s=10)
    other = Endpoint("192.168.1.3", PRIVATE.port)
    nat.outbound(datagram(PRIVATE, PEER), 0)
    assert nat.outbound(datagram(other, PEER), 10 * S_NS) == replace(datagram(other, PEER), source=PUBLIC)
    assert nat.inbound(datagram(PEER, PUBLIC), 11 * S_NS) == replace(datagram(PEER, PUBLIC), destination=other)


def test_an_echo_comes_back_by_its_identifier() -> None:
    nat = translator()
    request = Headers(Protocol.ICMP, Endpoint(PRIVATE.address, 77), Endpoint(PEER.address, 0))
    reply = Headers(Protocol.ICMP, Endpoint(PEER.address, 0), Endpoint(PUBLIC.address, 77))
    assert nat.outbound(request, 0) == replace(request, source=Endpoint(PUBLIC.address, 77))
    assert nat.inbound(reply, 1) == replace(reply, destination=Endpoint(PRIVATE.address, 77))


def test_an_icmp_error_finds_the_host_whose_packet_it_quotes() -> None:
    nat = translator()
    nat.outbound(outward(), 0)
    quoted = Headers(Protocol.TCP, PUBLIC, PEER)
    router, outside = Endpoint("192.0.2.4", 0), Endpoint(PUBLIC.address, 0)
    decision = nat.inbound(Headers(Protocol.ICMP, router, outside, quoted=quoted), 1)
    inside = Endpoint(PRIVATE.address, 0)
    assert decision == Headers(Protocol.ICMP, router, inside, quoted=replace(quoted, source=PRIVATE))
    stray = replace(quoted, source=Endpoint(PUBLIC.address, 9))
    assert nat.inbound(Headers(Protocol.ICMP, router, outside, quoted=stray), 1) is Unsolicited.DROP


def test_an_icmp_error_from_inside_speaks_of_the_public_endpoint() -> None:
    nat = translator()
    nat.outbound(datagram(PRIVATE, PEER), 0)
    error = Headers(
        Protocol.ICMP, Endpoint(PRIVATE.address, 0), Endpoint(PEER.address, 0), quoted=datagram(PEER, PRIVATE)
    )
    decision = nat.outbound(error, 1)
    assert decision == replace(error, source=Endpoint(PUBLIC.address, 0), quoted=datagram(PEER, PUBLIC))
    assert translator().outbound(error, 1) is Unsolicited.DROP


def test_ipv6_is_filtered_and_not_translated() -> None:
    nat = translator()
    host, peer, stranger = (Endpoint(f"2001:db8:{number}::2", 1314) for number in (1, 2, 3))
    assert nat.outbound(outward(host, peer), 0) == outward(host, peer)
    assert nat.inbound(inward(peer, host), 1) == inward(peer, host)
    assert nat.inbound(inward(stranger, host), 1) is Unsolicited.DROP


def test_an_unknown_protocol_does_not_pass() -> None:
    assert translator().outbound(Headers(132, PRIVATE, PEER), 0) is Unsolicited.DROP


# The remotes of the tables below: two ports at one address that were used and one that was not, and other addresses.
A1, A2, A3, B1, C1 = (Endpoint(f"203.0.113.{host}", port) for host, port in ((1, 1), (1, 2), (1, 3), (2, 1), (3, 1)))
STRICTEST = Mapping.ADDRESS_AND_PORT_DEPENDENT
USED, EVERYONE = (A1, A2, B1), (A1, A2, A3, B1, C1)
GROUPS = {  # the remotes with which the mapping made for A1 is shared
    Mapping.ENDPOINT_INDEPENDENT: {A1, A2, B1},
    Mapping.ADDRESS_DEPENDENT: {A1, A2},
    Mapping.ADDRESS_AND_PORT_DEPENDENT: {A1},
}
ADMITTED = {  # who gets in through the mapping made for A1
    (Mapping.ENDPOINT_INDEPENDENT, Filtering.ENDPOINT_INDEPENDENT): {A1, A2, A3, B1, C1},
    (Mapping.ENDPOINT_INDEPENDENT, Filtering.ADDRESS_DEPENDENT): {A1, A2, A3, B1},
    (Mapping.ENDPOINT_INDEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT): {A1, A2, B1},
    (Mapping.ADDRESS_DEPENDENT, Filtering.ENDPOINT_INDEPENDENT): {A1, A2, A3, B1, C1},
    (Mapping.ADDRESS_DEPENDENT, Filtering.ADDRESS_DEPENDENT): {A1, A2, A3},
    (Mapping.ADDRESS_DEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT): {A1, A2},
    (Mapping.ADDRESS_AND_PORT_DEPENDENT, Filtering.ENDPOINT_INDEPENDENT): {A1, A2, A3, B1, C1},
    (Mapping.ADDRESS_AND_PORT_DEPENDENT, Filtering.ADDRESS_DEPENDENT): {A1, A2, A3},
    (Mapping.ADDRESS_AND_PORT_DEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT): {A1},
}


def sent(nat: Translator, headers: Headers, now_ns: int = 0) -> Endpoint:
    """The public endpoint from which that packet goes on."""
    decision = nat.outbound(headers, now_ns)
    assert isinstance(decision, Headers)
    return decision.source


@pytest.mark.parametrize(("mapping", "filtering"), ADMITTED, ids=lambda choice: choice.value)
@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP])
def test_every_mapping_filtering_and_allocation(
    mapping: Mapping, filtering: Filtering, allocation: Allocation, protocol: Protocol
) -> None:
    for source in EVERYONE:
        nat = translator(mapping=mapping, filtering=filtering, allocation=allocation)
        seen = {remote: sent(nat, Headers(protocol, PRIVATE, remote)) for remote in USED}
        assert {remote for remote in USED if seen[remote] == seen[A1]} == GROUPS[mapping]
        decision = nat.inbound(Headers(protocol, source, seen[A1]), 1)
        if source in ADMITTED[mapping, filtering]:
            assert decision == Headers(protocol, source, PRIVATE)
        else:
            assert decision is Unsolicited.DROP


@pytest.mark.parametrize(("mapping", "filtering"), ADMITTED, ids=lambda choice: choice.value)
@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_echoes_are_mapped_and_filtered_by_address(
    mapping: Mapping, filtering: Filtering, allocation: Allocation
) -> None:
    """An echo has no remote port, so address-dependent and address-and-port-dependent are one (RFC 5508 §3)."""
    used, unused = (Endpoint(A1.address, 0), Endpoint(B1.address, 0)), Endpoint(C1.address, 0)
    nat = translator(mapping=mapping, filtering=filtering, allocation=allocation)
    first, second = (sent(nat, Headers(Protocol.ICMP, PRIVATE, remote)) for remote in used)
    assert (first == second) is (mapping is Mapping.ENDPOINT_INDEPENDENT)
    passes = [isinstance(nat.inbound(Headers(Protocol.ICMP, each, first), 1), Headers) for each in (*used, unused)]
    open_to_all = filtering is Filtering.ENDPOINT_INDEPENDENT
    assert passes == [True, open_to_all or first == second, open_to_all]


@pytest.mark.parametrize(
    ("options", "gap"),
    [({"step": 1}, 1), ({"step": 7}, 7), ({"step": 1, "parity": True}, 2), ({"step": 2, "parity": True}, 2)],
)
def test_ports_in_sequence(options: dict[str, object], gap: int) -> None:
    nat = translator(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.SEQUENTIAL, **options)
    ports = [sent(nat, outward(destination=remote)).port for remote in USED]
    assert [(port - ports[0]) % 64512 for port in ports] == [0, gap, 2 * gap]


def test_every_port_is_used_before_a_packet_is_dropped() -> None:
    nat = translator(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.SEQUENTIAL)
    remotes = (Endpoint(f"203.0.113.{host}", port) for host in range(2) for port in range(1, 32257))
    publics = {sent(nat, datagram(PRIVATE, remote)) for remote in remotes}
    assert {public.port for public in publics} == set(range(1024, 65536))
    assert nat.outbound(datagram(PRIVATE, STRANGER), 0) is Unsolicited.DROP
    assert sent(nat, datagram(PRIVATE, STRANGER), 300 * S_NS) in publics


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_an_arbitrary_pool_gives_one_host_any_address(allocation: Allocation) -> None:
    nat = translator(mapping=STRICTEST, allocation=allocation, pool=2, pooling=Pooling.ARBITRARY)
    publics = {sent(nat, datagram(PRIVATE, Endpoint(PEER.address, port))) for port in range(1, 41)}
    assert len(publics) == 40
    assert {public.address for public in publics} == {PUBLIC.address, "198.18.1.1"}


def test_parity_is_given_up_only_where_no_port_of_it_is_left() -> None:
    nat = translator(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.SEQUENTIAL, parity=True)
    ports = [sent(nat, datagram(PRIVATE, Endpoint(PEER.address, port))).port for port in range(1, 32258)]
    assert all(port % 2 == 0 for port in ports[:32256])
    assert ports[32256] % 2 == 1


@pytest.mark.parametrize(
    ("headers", "at_ns", "outcome"),
    [
        pytest.param(outward(destination=STRANGER), HOLD_NS - 1, Unsolicited.DROP, id="a SYN on that connection"),
        pytest.param(outward(destination=STRANGER), 0, Unsolicited.DROP, id="at once"),
        pytest.param(outward(destination=PEER), 5, Unsolicited.ICMP, id="a SYN to somebody else"),
        pytest.param(outward(destination=STRANGER, flags=Flags.ACK), 5, Unsolicited.ICMP, id="no SYN"),
        pytest.param(outward(Endpoint(PRIVATE.address, 9), STRANGER), 5, Unsolicited.ICMP, id="from another port"),
        pytest.param(datagram(PRIVATE, STRANGER), 5, Unsolicited.ICMP, id="a datagram"),
    ],
)
def test_a_held_syn_waits_for_one_from_inside(headers: Headers, at_ns: int, outcome: Unsolicited) -> None:
    nat = translator(unsolicited=Unsolicited.HOLD)
    assert nat.inbound(inward(STRANGER), 0) is Unsolicited.HOLD
    nat.outbound(headers, at_ns)
    assert nat.release(inward(STRANGER), 0) is outcome


def test_a_syn_that_went_out_before_does_not_spare_one_that_is_refused_later() -> None:
    nat = translator(unsolicited=Unsolicited.HOLD, refuses_syns=True)
    nat.outbound(outward(), 0)
    assert nat.inbound(inward(), 1) is Unsolicited.HOLD
    assert nat.release(inward(), 1) is Unsolicited.ICMP


@pytest.mark.parametrize("kills", [False, True])
@pytest.mark.parametrize("from_outside", [False, True])
def test_a_reset_ends_the_mapping_where_it_kills(from_outside: bool, kills: bool) -> None:
    nat = translator(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.SEQUENTIAL, reset_kills=kills)
    public = sent(nat, outward())
    if from_outside:
        reset = inward(destination=public, flags=Flags.RST)
        assert nat.inbound(reset, 1) == replace(reset, destination=PRIVATE)
    else:
        assert nat.outbound(outward(flags=Flags.RST), 1) == outward(public, flags=Flags.RST)
    assert isinstance(nat.inbound(inward(destination=public), 2), Headers) is not kills
    assert (sent(nat, outward(), 3) == public) is not kills


@pytest.mark.parametrize(("seq", "phase"), [(5001, "ended"), (5002, "open"), (5000, None)])
@pytest.mark.parametrize("from_outside", [False, True])
def test_a_nat_that_tracks_looks_at_the_numbers_of_a_reset(seq: int, phase: str | None, from_outside: bool) -> None:
    """Both sides' numbers begin at 5000. A SYN opens anew what was ended from inside, and nothing that goes on."""
    nat, syn_ack = translator(tracking=True), Flags.SYN | Flags.ACK
    nat.outbound(outward(), 0, Numbers(5000, 0, 5001, 100))
    nat.inbound(inward(flags=syn_ack), 1, Numbers(5000, 5001, 5001, 100))
    nat.outbound(outward(flags=Flags.ACK), 2, Numbers(5001, 5001, 5001, 100))
    decide, packet = (nat.inbound, inward) if from_outside else (nat.outbound, outward)
    passes = isinstance(decide(packet(flags=Flags.RST), 3, Numbers(seq, 0, seq, 0)), Headers)
    assert passes is (phase is not None)
    nat.outbound(outward(), 4, Numbers(7000, 0, 7001, 100))
    opens = isinstance(nat.inbound(inward(), 5, Numbers(8000, 0, 8001, 100)), Headers)
    assert opens is (phase == "ended" and not from_outside)


def test_a_reset_that_nobody_let_in_kills_nothing() -> None:
    nat = translator(reset_kills=True)
    nat.outbound(outward(), 0)
    assert nat.inbound(inward(STRANGER, flags=Flags.RST), 1) is Unsolicited.DROP
    assert isinstance(nat.inbound(inward(), 2), Headers)


@pytest.mark.parametrize(
    ("flags", "passes"), [(Flags.SYN, False), (Flags.SYN | Flags.ACK, True), (Flags.ACK, True), (Flags.RST, True)]
)
def test_a_nat_that_refuses_syns_refuses_nothing_else(flags: Flags, passes: bool) -> None:
    nat = translator(refuses_syns=True, unsolicited=Unsolicited.RESET)
    nat.outbound(outward(), 0)
    decision = nat.inbound(inward(flags=flags), 1)
    assert decision == (inward(destination=PRIVATE, flags=flags) if passes else Unsolicited.RESET)


def test_a_paired_pool_gives_each_host_one_address() -> None:
    nat = translator(pool=3, mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT)
    hosts = [Endpoint(f"192.168.1.{host}", 1314) for host in range(2, 30)]
    addresses = [{sent(nat, datagram(host, remote)).address for remote in USED} for host in hosts]
    assert all(len(each) == 1 for each in addresses)
    assert len(set.union(*addresses)) == 3


def test_overloaded_hosts_share_an_endpoint_while_their_remotes_differ() -> None:
    nat = translator(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, overloading=True)
    other = Endpoint("192.168.1.3", PRIVATE.port)
    assert sent(nat, outward(PRIVATE, PEER)) == PUBLIC
    assert sent(nat, outward(other, STRANGER)) == PUBLIC
    assert sent(nat, outward(other, PEER)) == Endpoint(PUBLIC.address, PUBLIC.port + 1)
    assert nat.inbound(inward(PEER), 1) == inward(PEER, PRIVATE)
    assert nat.inbound(inward(STRANGER), 1) == inward(STRANGER, other)
    assert nat.inbound(inward(SAME_ADDRESS), 1) is Unsolicited.DROP
    router, outside = Endpoint("192.0.2.4", 0), Endpoint(PUBLIC.address, 0)
    decision = nat.inbound(Headers(Protocol.ICMP, router, outside, quoted=outward(PUBLIC, STRANGER)), 1)
    assert isinstance(decision, Headers)
    assert decision.quoted == outward(other, STRANGER)


def test_an_overloaded_host_that_has_lost_its_port_once_stays_with_the_other() -> None:
    """So what another endpoint saw of it holds for the next one too, as on Linux."""
    nat = translator(mapping=STRICTEST, overloading=True, udp_timeout_s=10)
    other, second = Endpoint("192.168.1.3", PRIVATE.port), Endpoint(PUBLIC.address, PUBLIC.port + 1)
    nat.outbound(datagram(PRIVATE, PEER), 0)
    assert [sent(nat, datagram(other, to), 1) for to in (PEER, STRANGER)] == [second, second]
    assert sent(nat, outward(other, PEER), 1) == PUBLIC  # TCP's ports are others
    assert sent(nat, datagram(other, SAME_ADDRESS), 20 * S_NS) == PUBLIC


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("v6", [False, True])
def test_a_firewall_filters_and_changes_nothing(mapping: Mapping, allocation: Allocation, v6: bool) -> None:
    """`translates=False`; to IPv6, every NAT."""
    nat = Nat(mapping, Filtering.ADDRESS_DEPENDENT, allocation, translates=v6)
    firewall = Translator(nat, *[PUBLIC.address] * v6)
    places = ("2001:db8:1::2", "2001:db8:2::2", "2001:db8:3::2") if v6 else ("198.51.100.7", A1.address, C1.address)
    host, peer, stranger = (Endpoint(place, 1314) for place in places)
    for own in (host, Endpoint(host.address, 1315)):
        for to in (peer, Endpoint(peer.address, 2)):
            assert firewall.outbound(outward(own, to), 0) == outward(own, to)
        answer = inward(Endpoint(peer.address, 3), own)
        assert firewall.inbound(answer, 1) == answer
        assert firewall.inbound(inward(stranger, own), 1) is Unsolicited.DROP


def test_the_end_of_data_does_not_keep_a_mapping_as_data_does() -> None:
    """A session's time-out is that of its latest packet, and a mapping's that of its longest session."""
    nat = translator()
    nat.outbound(outward(flags=Flags.ACK), 0)
    nat.outbound(outward(destination=SAME_ADDRESS, flags=Flags.ACK), 0)
    nat.outbound(outward(flags=Flags.FIN | Flags.ACK), 1)
    assert nat.inbound(inward(), 241 * S_NS) is Unsolicited.DROP
    assert isinstance(nat.inbound(inward(SAME_ADDRESS, flags=Flags.ACK), 7439 * S_NS), Headers)


def test_a_translator_has_the_addresses_of_its_pool() -> None:
    with pytest.raises(ValueError, match="pool of 2"):
        Translator(Nat(pool=2), PUBLIC.address)


PRIVATES = st.builds(Endpoint, st.sampled_from(["192.168.1.2", "192.168.1.3"]), st.integers(1, 65535))
REMOTES = st.builds(Endpoint, st.sampled_from(["203.0.113.1", "203.0.113.2"]), st.integers(1, 4))
FLOWS = st.lists(st.tuples(PRIVATES, REMOTES), min_size=1, max_size=30)
ANY_FILTERING = st.sampled_from(FILTERINGS)


@given(FLOWS, ANY_FILTERING)
def test_what_went_out_can_be_answered(flows: list[tuple[Endpoint, Endpoint]], filtering: Filtering) -> None:
    nat = translator(filtering=filtering)
    publics = {}
    for private, remote in flows:
        decision = nat.outbound(datagram(private, remote), 0)
        assert isinstance(decision, Headers)
        publics[private] = decision.source
        answer = nat.inbound(datagram(remote, decision.source), 1)
        assert answer == datagram(remote, private)
    assert len(set(publics.values())) == len(publics), "two hosts share a public endpoint"


@given(FLOWS, REMOTES, st.integers(1, 65535))
def test_the_strictest_filter_admits_only_flows_that_went_out(
    flows: list[tuple[Endpoint, Endpoint]], stranger: Endpoint, port: int
) -> None:
    nat = translator()
    opened = {(nat.outbound(datagram(*flow), 0).source, flow[1]) for flow in flows}  # type: ignore[union-attr]
    public = Endpoint(PUBLIC.address, port)
    assert isinstance(nat.inbound(datagram(stranger, public), 1), Headers) is ((public, stranger) in opened)


@given(FLOWS, REMOTES, st.integers(1, 65535))
def test_each_filtering_admits_all_that_the_stricter_one_does(
    flows: list[tuple[Endpoint, Endpoint]], stranger: Endpoint, port: int
) -> None:
    passes = []
    for filtering in FILTERINGS:  # the laxest first
        nat = translator(filtering=filtering)
        for flow in flows:
            nat.outbound(datagram(*flow), 0)
        answer = nat.inbound(datagram(stranger, Endpoint(PUBLIC.address, port)), 1)
        passes.append(isinstance(answer, Headers))
    assert passes == sorted(passes, reverse=True)


def test_every_pair_of_choices_can_be_had() -> None:
    for filtering, unsolicited in product(FILTERINGS, Unsolicited):
        assert translator(filtering=filtering, unsolicited=unsolicited).outbound(outward(), 0)
