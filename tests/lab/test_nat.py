"""The pure NAT models: tables of the RFCs' terms, and properties that hold for any traffic."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.lab.nat import Filtering, Nat, Translator, Unsolicited
from simopen.lab.packet import NO_FLAGS, Endpoint, Flags, Headers, Protocol

PRIVATE = Endpoint("192.168.1.2", 1314)
PUBLIC = Endpoint("198.51.100.1", 1314)
PEER = Endpoint("203.0.113.1", 1314)
SAME_ADDRESS = Endpoint("203.0.113.1", 9)
STRANGER = Endpoint("203.0.113.7", 1314)
S_NS = 10**9


def translator(**options: object) -> Translator:
    return Translator(Nat(**options), PUBLIC.address)  # type: ignore[arg-type]


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
        pytest.param(inward(STRANGER, flags=Flags.RST), "", id="RST"),
        pytest.param(inward(STRANGER, flags=Flags.RST | Flags.ACK), "", id="RST-ACK"),
        pytest.param(datagram(STRANGER, PUBLIC), "icmp", id="UDP"),
        pytest.param(Headers(Protocol.ICMP, STRANGER, Endpoint(PUBLIC.address, 0)), "", id="echo"),
    ],
)
def test_what_nobody_asked_for_is_answered_as_told(unsolicited: Unsolicited, headers: Headers, answers: str) -> None:
    decision = translator(unsolicited=unsolicited).inbound(headers, 0)
    assert decision is (unsolicited if unsolicited.value in answers.split() else Unsolicited.DROP)


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


@pytest.mark.parametrize("name", ["established_timeout_s", "transitory_timeout_s", "udp_timeout_s", "icmp_timeout_s"])
def test_a_time_out_is_above_zero(name: str) -> None:
    with pytest.raises(ValueError, match="above 0 s"):
        Nat(**{name: 0})  # type: ignore[arg-type]


PRIVATES = st.builds(Endpoint, st.sampled_from(["192.168.1.2", "192.168.1.3"]), st.integers(1, 65535))
REMOTES = st.builds(Endpoint, st.sampled_from(["203.0.113.1", "203.0.113.2"]), st.integers(1, 4))
FLOWS = st.lists(st.tuples(PRIVATES, REMOTES), min_size=1, max_size=30)
FILTERINGS = st.sampled_from(Filtering)


@given(FLOWS, FILTERINGS)
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
    for filtering in Filtering:  # the laxest first
        nat = translator(filtering=filtering)
        for flow in flows:
            nat.outbound(datagram(*flow), 0)
        answer = nat.inbound(datagram(stranger, Endpoint(PUBLIC.address, port)), 1)
        passes.append(isinstance(answer, Headers))
    assert passes == sorted(passes, reverse=True)


def test_every_pair_of_choices_can_be_had() -> None:
    for filtering, unsolicited in product(Filtering, Unsolicited):
        assert translator(filtering=filtering, unsolicited=unsolicited).outbound(outward(), 0)
