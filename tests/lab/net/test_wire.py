"""Bytes to values and back: what is rewritten has right checksums, and nothing else of it changes."""

from __future__ import annotations

from dataclasses import replace

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simopen.lab.net.wire import (
    NotAPacket,
    aged,
    echo_reply_for,
    is_link_noise,
    numbers_of,
    parse,
    reset_for,
    time_exceeded_for,
    with_headers,
)
from simopen.lab.packet import Flags, Headers, Numbers, Packet, Protocol
from simopen.model.endpoint import Endpoint
from tests.lab.packets import checksums_hold, echo, icmp_error, ip_packet, tcp, udp

A, B, C = ("192.168.1.2", 1314), ("203.0.113.1", 80), ("198.51.100.1", 4000)
A6, B6 = ("2001:db8:1::2", 1314), ("2001:db8:2::2", 80)
PORTS = st.integers(0, 65535)
ADDRESSES = st.ip_addresses(v=4).map(str)
PAYLOADS = st.binary(max_size=1400)


@pytest.mark.parametrize(("source", "destination"), [(A, B), (A6, B6)])
def test_a_tcp_segment_is_read(source: tuple[str, int], destination: tuple[str, int]) -> None:
    packet = parse(tcp(source, destination, flags=0x12, seq=7, ack=8, data=b"abc", ttl=9))
    assert packet.headers == Headers(6, Endpoint(*source), Endpoint(*destination), Flags.SYN | Flags.ACK)
    assert (packet.seq, packet.ack, packet.payload_length, packet.ttl) == (7, 8, 3, 9)
    assert packet.is_syn_ack
    assert not packet.is_syn


def test_an_echo_has_its_identifier_on_the_askers_side() -> None:
    for kind, ports in ((8, (77, 0)), (0, (0, 77))):
        message = dpkt.icmp.ICMP(type=kind, data=dpkt.icmp.ICMP.Echo(id=77, seq=1))
        packet = parse(ip_packet(A[0], B[0], 1, message))
        assert (packet.source.port, packet.destination.port) == ports


@pytest.mark.parametrize(("source", "destination"), [(A, B), (A6, B6)])
@pytest.mark.parametrize(
    ("options", "scale"),
    [
        (b"", None),
        (b"\x02\x04\x05\xb4\x01\x03\x03\x07", 7),
        (b"\x03\x03\x00\x00", 0),
        (b"\x03\x02\x00\x00", None),  # garbled
        (b"\x01\x01\x01\x03", None),
    ],
)
def test_a_segments_numbers_are_read(
    source: tuple[str, int], destination: tuple[str, int], options: bytes, scale: int | None
) -> None:
    offset = 5 + len(options) // 4
    data = tcp(source, destination, 0x12, seq=2**32 - 2, ack=8, win=9, data=b"abc", opts=options, off=offset)
    assert numbers_of(parse(data)) == Numbers(2**32 - 2, 8, 2, 9, scale)


def test_a_datagram_has_no_numbers() -> None:
    assert numbers_of(parse(udp(A, B))) is None


def test_an_echo_reply_says_what_was_asked() -> None:
    asked = parse(echo(8, A[0], B[0], 77))
    reply = echo_reply_for(asked)
    assert reply is not None
    assert reply.data == echo(0, B[0], A[0], 77)
    assert checksums_hold(reply.data)


@pytest.mark.parametrize("data", [echo(0, A[0], B[0], 77), udp(A, B), icmp_error(3, 3, A[0], udp(B, A))])
def test_what_is_no_echo_request_has_no_reply(data: bytes) -> None:
    assert echo_reply_for(parse(data)) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_packet_or_refused(data: bytes) -> None:
    try:
        assert isinstance(parse(data), Packet)
    except NotAPacket:
        return


@given(st.data())
def test_a_packet_cut_short_or_garbled_is_a_packet_or_refused(data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from([tcp(A, B), udp(A, B), tcp(A6, B6), udp(A6, B6), _error(), _error6()])))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(whole)))
    try:
        assert isinstance(parse(bytes(whole[:end])), Packet)
    except NotAPacket:
        return


def _error() -> bytes:
    return time_exceeded_for(parse(udp(A, B)), "192.0.2.1").data


def _error6() -> bytes:
    return time_exceeded_for(parse(udp(A6, B6)), "2001:db8:ffff::1").data


@given(
    source=ADDRESSES,
    sport=PORTS,
    destination=ADDRESSES,
    dport=PORTS,
    payload=PAYLOADS,
    make=st.sampled_from([tcp, udp]),
)
def test_a_translated_packet_is_the_same_but_for_its_endpoints(
    *, source: str, sport: int, destination: str, dport: int, payload: bytes, make: object
) -> None:
    original = parse(tcp(A, B, data=payload) if make is tcp else udp(A, B, payload))
    headers = replace(original.headers, source=Endpoint(source, sport), destination=Endpoint(destination, dport))
    translated = with_headers(original, headers)
    assert checksums_hold(translated.data)
    assert parse(translated.data) == translated
    back = with_headers(translated, original.headers)
    assert back.data == original.data


def test_a_packet_that_nobody_changes_is_not_built_again() -> None:
    packet = parse(tcp(A, B))
    assert with_headers(packet, replace(packet.headers)) is packet


@given(st.integers(2, 255), st.data(), st.sampled_from([(A, B), (A6, B6)]))
def test_a_packet_ages(ttl: int, data: st.DataObject, ends: tuple[tuple[str, int], tuple[str, int]]) -> None:
    hops = data.draw(st.integers(0, ttl - 1))
    packet = aged(parse(tcp(*ends, ttl=ttl)), hops)
    assert packet.ttl == ttl - hops
    assert parse(packet.data) == packet
    assert checksums_hold(packet.data)


def test_an_echo_is_translated_by_its_identifier() -> None:
    message = dpkt.icmp.ICMP(type=8, data=dpkt.icmp.ICMP.Echo(id=77, seq=1, data=b"x" * 9))
    packet = parse(ip_packet(A[0], B[0], 1, message))
    translated = with_headers(packet, replace(packet.headers, source=Endpoint(C[0], 78)))
    assert parse(translated.data).source == Endpoint(C[0], 78)
    assert checksums_hold(translated.data)


@pytest.mark.parametrize("quoted", [tcp(A, B), udp(A, B, b"x" * 500)])
def test_an_icmp_error_is_translated_with_what_it_quotes(quoted: bytes) -> None:
    error = time_exceeded_for(parse(quoted), "192.0.2.4")
    assert error.headers.quoted is not None
    inner = replace(error.headers.quoted, source=Endpoint(*C))
    translated = with_headers(error, replace(error.headers, destination=Endpoint(C[0], 0), quoted=inner))
    assert parse(translated.data).headers == translated.headers
    assert checksums_hold(translated.data)
    assert translated.data[30:32] == error.data[30:32], "the quoted packet's length is the original's"


@pytest.mark.parametrize(("source", "destination", "router"), [(A, B, "192.0.2.4"), (A6, B6, "2001:db8:ffff::4")])
def test_time_exceeded_quotes_the_packet(source: tuple[str, int], destination: tuple[str, int], router: str) -> None:
    packet = parse(udp(source, destination, b"x" * 1400))
    error = time_exceeded_for(packet, router)
    assert error.headers.quoted == packet.headers
    assert (error.source.address, error.destination.address) == (router, source[0])
    assert checksums_hold(error.data)


@pytest.mark.parametrize(
    ("flags", "length", "seq", "ack", "answer"),
    [
        (Flags.SYN, 0, 0, 1001, Flags.RST | Flags.ACK),
        (Flags.SYN, 5, 0, 1006, Flags.RST | Flags.ACK),
        (Flags.FIN, 0, 0, 1001, Flags.RST | Flags.ACK),
        (Flags.PSH, 3, 0, 1003, Flags.RST | Flags.ACK),
        (Flags.SYN | Flags.ACK, 0, 5555, 0, Flags.RST),
        (Flags.ACK, 9, 5555, 0, Flags.RST),
    ],
)
@pytest.mark.parametrize(("source", "destination"), [(A, B), (A6, B6)])
def test_a_reset_is_as_rfc_9293_says(
    *,
    source: tuple[str, int],
    destination: tuple[str, int],
    flags: Flags,
    length: int,
    seq: int,
    ack: int,
    answer: Flags,
) -> None:
    segment = parse(tcp(source, destination, flags=int(flags), seq=1000, ack=5555, data=b"x" * length))
    reset = reset_for(segment)
    assert (reset.source, reset.destination) == (segment.destination, segment.source)
    assert (reset.seq, reset.ack, reset.flags) == (seq, ack, answer)
    assert checksums_hold(reset.data)


def test_a_resets_acknowledgement_wraps() -> None:
    assert reset_for(parse(tcp(A, B, seq=0xFFFFFFFF))).ack == 0


@pytest.mark.parametrize(
    ("source", "destination", "noise"),
    [
        ("192.168.1.2", "203.0.113.1", False),
        ("192.168.1.2", "224.0.0.251", True),
        ("192.168.1.2", "255.255.255.255", True),
        ("0.0.0.0", "203.0.113.1", True),
        ("2001:db8:1::2", "2001:db8:2::2", False),
        ("2001:db8:1::2", "ff02::2", True),
        ("fe80::1", "2001:db8:2::2", True),
        ("2001:db8:1::2", "febf::1", True),
        ("::", "2001:db8:2::2", True),
    ],
)
def test_what_never_leaves_a_link(source: str, destination: str, noise: bool) -> None:
    assert is_link_noise(parse(udp((source, 1), (destination, 2)))) is noise


def test_a_protocol_without_ports_has_none() -> None:
    packet = parse(ip_packet(A[0], B[0], 132, b"12345678"))
    assert (packet.protocol, packet.source.port, packet.payload_length) == (132, 0, 8)
    assert packet.protocol not in set(Protocol)


def test_a_udp_datagram_without_a_checksum_stays_without() -> None:
    """RFC 768: zero means that the sender made none."""
    datagram = dpkt.udp.UDP(sport=1, dport=2, data=b"hi", ulen=10)
    ip = dpkt.ip.IP(src=b"\x0a\0\0\1", dst=b"\x0a\0\0\2", p=17, data=datagram)
    ip.len = len(ip)
    data = bytearray(bytes(ip))
    data[26:28] = b"\0\0"
    packet = parse(bytes(data))
    moved = with_headers(packet, replace(packet.headers, source=Endpoint("198.51.100.9", 5)))
    assert moved.data[26:28] == b"\0\0"
    assert moved.source == Endpoint("198.51.100.9", 5)


def test_an_icmp_error_that_quotes_another_ip_version_quotes_nothing() -> None:
    quote = dpkt.icmp.ICMP.Quote(data=b"\x60" + bytes(47))
    error = dpkt.icmp.ICMP(type=11, code=0, data=quote)
    ip = dpkt.ip.IP(src=b"\x0a\0\0\1", dst=b"\x0a\0\0\2", p=1, data=error)
    ip.len = len(ip)
    packet = parse(bytes(ip))
    assert packet.headers.quoted is None
    assert with_headers(packet, replace(packet.headers, source=Endpoint("198.51.100.9", 0))).source.address
