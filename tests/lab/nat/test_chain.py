"""NATs in a row and their hairpins: who lets pass, who refuses, and which way the answer goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.lab.nat.chain import Chain, Outcome
from simopen.lab.nat.model import ALLOCATIONS, Nat, Unsolicited
from simopen.lab.nat.translator import Translator
from simopen.lab.packet import Flags, Headers, Protocol
from simopen.model.endpoint import Endpoint
from simopen.model.nat import Allocation, Filtering, Mapping

HOST, NEIGHBOUR = Endpoint("192.168.1.2", 1314), Endpoint("192.168.1.3", 2000)
HOME, CARRIER = "100.64.1.1", "198.51.100.1"
PEER, STRANGER = Endpoint("203.0.113.1", 1314), Endpoint("203.0.113.7", 9)
LAX = Filtering.ENDPOINT_INDEPENDENT


def carried(home: Nat | None = None, carrier: Nat | None = None) -> Chain:
    """A home behind a carrier's NAT."""
    return Chain([Translator(home or Nat(), HOME), Translator(carrier or Nat(), CARRIER)])


def segment(source: Endpoint, destination: Endpoint, flags: Flags = Flags.SYN) -> Headers:
    return Headers(Protocol.TCP, source, destination, flags)


def test_no_nat_at_all_lets_everything_pass() -> None:
    headers = segment(HOST, PEER)
    assert Chain().outbound(headers, 0) == Outcome(headers, headers)
    assert Chain().inbound(headers, 0) == Outcome(headers, headers, inside=True)


def test_a_packet_is_translated_by_each_and_comes_back() -> None:
    row = carried()
    out = row.outbound(segment(HOST, PEER), 0).headers
    assert out == segment(Endpoint(CARRIER, 1314), PEER)
    back = row.inbound(segment(PEER, out.source), 1)
    assert (back.decision, back.headers, back.inside) == (segment(PEER, HOST), segment(PEER, HOST), True)
    assert [nat for nat, _ in back.passed] == [1, 0]


@given(st.sampled_from(ALLOCATIONS), st.sampled_from(ALLOCATIONS), st.integers(1024, 65535))
def test_the_hop_between_has_the_homes_address(home: Allocation, carrier: Allocation, port: int) -> None:
    """What the carrier's NAT sees is the home's NAT, whose port it maps in its own way."""
    first, second = Translator(Nat(allocation=home), HOME, seed=1), Translator(Nat(allocation=carrier), CARRIER, seed=2)
    again = Translator(Nat(allocation=home), HOME, seed=1), Translator(Nat(allocation=carrier), CARRIER, seed=2)
    sent = segment(Endpoint(HOST.address, port), PEER)
    between = again[0].outbound(sent, 0)
    assert isinstance(between, Headers)
    assert between.source.address == HOME
    assert Chain([first, second]).outbound(sent, 0).headers == again[1].outbound(between, 0)


@pytest.mark.parametrize(
    ("home", "carrier", "refuser", "decision"),
    [
        (Nat(unsolicited=Unsolicited.RESET), Nat(), 1, Unsolicited.DROP),
        (Nat(), Nat(unsolicited=Unsolicited.RESET), 1, Unsolicited.RESET),
        (Nat(unsolicited=Unsolicited.RESET), Nat(filtering=LAX), 0, Unsolicited.RESET),
        (Nat(unsolicited=Unsolicited.HOLD), Nat(filtering=LAX), 0, Unsolicited.HOLD),
        (Nat(filtering=LAX), Nat(unsolicited=Unsolicited.ICMP), 1, Unsolicited.ICMP),
        (Nat(filtering=LAX), Nat(filtering=LAX), None, None),
    ],
)
def test_each_refuses_for_itself(home: Nat, carrier: Nat, refuser: int | None, decision: Unsolicited | None) -> None:
    row = carried(home, carrier)
    public = row.outbound(segment(HOST, PEER), 0).headers.source
    outcome = row.inbound(segment(STRANGER, public), 1)
    assert outcome.nat == refuser
    if decision is None:
        assert outcome.headers == segment(STRANGER, HOST)
    else:
        assert outcome.decision is decision
        assert outcome.headers.destination.address == (CARRIER if refuser == 1 else HOME)


@pytest.mark.parametrize("refuser", [0, 1])
def test_an_answer_goes_out_through_the_nats_beyond(refuser: int) -> None:
    """A stranger learns the carrier's endpoint only, even where it is the home's NAT that answers."""
    carrier = Nat(unsolicited=Unsolicited.RESET, filtering=LAX if refuser == 0 else Filtering.ADDRESS_DEPENDENT)
    row = carried(Nat(unsolicited=Unsolicited.RESET), carrier)
    public = row.outbound(segment(HOST, PEER), 0).headers.source
    refused = row.inbound(segment(STRANGER, public), 1)
    assert refused.nat == refuser
    reset = segment(refused.headers.destination, refused.headers.source, Flags.RST | Flags.ACK)
    answer = row.answer(reset, 1, refuser)
    assert answer.headers == segment(public, STRANGER, Flags.RST | Flags.ACK)
    assert not answer.inside


def test_a_homes_icmp_error_speaks_of_the_carriers_endpoint() -> None:
    row = carried(Nat(unsolicited=Unsolicited.ICMP), Nat(filtering=LAX))
    public = row.outbound(segment(HOST, PEER), 0).headers.source
    refused = row.inbound(segment(STRANGER, public), 1).headers
    assert refused.destination == Endpoint(HOME, 1314)
    error = Headers(Protocol.ICMP, Endpoint(HOME, 0), Endpoint(STRANGER.address, 0), quoted=refused)
    answer = row.answer(error, 1, 0).headers
    assert answer.source == Endpoint(CARRIER, 0)
    assert answer.quoted == segment(STRANGER, public)


def test_an_icmp_error_from_outside_reaches_the_host() -> None:
    row = carried(carrier=Nat(allocation=Allocation.RANDOM))
    sent = row.outbound(segment(HOST, PEER), 0).headers
    error = Headers(Protocol.ICMP, Endpoint("192.0.2.4", 0), Endpoint(CARRIER, 0), quoted=sent)
    come = row.inbound(error, 1).headers
    assert come.destination == Endpoint(HOST.address, 0)
    assert come.quoted == segment(HOST, PEER)


@pytest.mark.parametrize("hairpins", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("at", [0, 1])
def test_a_packet_to_its_own_nat_turns_there_or_ends(hairpins: tuple[bool, bool], at: int) -> None:
    """`at`: whose public address it goes to. The receiver sees the sender's public endpoint (RFC 4787 REQ-9)."""
    row = carried(*(Nat(hairpinning=hairpin, filtering=LAX) for hairpin in hairpins))
    target = [Endpoint(HOME, NEIGHBOUR.port), row.outbound(segment(NEIGHBOUR, PEER), 0).headers.source][at]
    outcome = row.outbound(segment(HOST, target), 1)
    if hairpins[at]:
        assert outcome.inside
        assert outcome.headers == segment(Endpoint((HOME, CARRIER)[at], HOST.port), NEIGHBOUR)
    else:
        assert (outcome.decision, outcome.nat, outcome.inside) == (Unsolicited.DROP, at, False)


def test_a_hairpin_is_filtered_as_any_packet_and_its_answer_comes_back_inside() -> None:
    nat = Nat(hairpinning=True, unsolicited=Unsolicited.RESET)
    row = Chain([Translator(nat, CARRIER)])
    row.outbound(segment(NEIGHBOUR, PEER), 0)
    refused = row.outbound(segment(HOST, Endpoint(CARRIER, NEIGHBOUR.port)), 1)
    assert (refused.decision, refused.nat) == (Unsolicited.RESET, 0)
    reset = segment(refused.headers.destination, refused.headers.source, Flags.RST | Flags.ACK)
    answer = row.answer(reset, 1, 0)
    assert answer.inside
    assert answer.headers == segment(Endpoint(CARRIER, NEIGHBOUR.port), HOST, Flags.RST | Flags.ACK)


def test_two_hosts_that_shoot_at_each_others_public_endpoint_meet_by_hairpin() -> None:
    row = Chain([Translator(Nat(hairpinning=True, mapping=Mapping.ENDPOINT_INDEPENDENT), CARRIER)])
    left, right = (row.outbound(segment(each, PEER), 0).headers.source for each in (HOST, NEIGHBOUR))
    first = row.outbound(segment(HOST, right), 1)
    assert (first.decision, first.nat) == (Unsolicited.DROP, 0)
    assert row.outbound(segment(NEIGHBOUR, left), 2).headers == segment(right, HOST)
    assert row.outbound(segment(HOST, right), 3).headers == segment(left, NEIGHBOUR)


@given(st.lists(st.sampled_from([Nat(), Nat(translates=False), Nat(filtering=LAX)]), max_size=4), st.booleans())
def test_whatever_the_row_an_answer_comes_back(nats: list[Nat], v6: bool) -> None:
    pools = [(f"100.64.1.{number}",) if nat.translates else () for number, nat in enumerate(nats, 1)]
    row = Chain([Translator(nat, *pool) for nat, pool in zip(nats, pools, strict=True)])
    host, peer = (Endpoint("2001:db8:1::2", 5), Endpoint("2001:db8:2::2", 6)) if v6 else (HOST, PEER)
    out = row.outbound(segment(host, peer), 0).headers
    if v6 or not any(pools):
        assert out.source == host
    assert row.inbound(segment(peer, out.source, Flags.SYN | Flags.ACK), 1).headers.destination == host
