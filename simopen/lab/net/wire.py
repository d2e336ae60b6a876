"""Packets between bytes and values.

Theory of operation. dpkt reads and rebuilds; it fills in a checksum that is set to zero. Four things are done on the
bytes themselves: the hop count and the endpoints of TCP and UDP over IPv4, which most packets need and which are a few
additions to the checksums (RFC 1624; rebuilding takes ten times as long); the packet quoted in an ICMP error, whose
length and transport checksum speak of more bytes than were quoted; and the ports of a truncated quotation. Pure: bytes
and values in, bytes and values out.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any

import dpkt

from simopen.lab.packet import NO_FLAGS, Flags, Headers, Numbers, Packet, Protocol
from simopen.model.endpoint import Endpoint

# RFC 792 and RFC 4443 §2.1: the messages that quote a packet.
_ICMP_ERRORS = {Protocol.ICMP: {3, 4, 5, 11, 12}, Protocol.ICMPV6: {1, 2, 3, 4}}
_ECHO_REQUESTS = {(Protocol.ICMP, 8), (Protocol.ICMPV6, 128)}
_ECHO_REPLIES = {(Protocol.ICMP, 0), (Protocol.ICMPV6, 129)}
_IPV4_QUOTE = 28  # RFC 792: the header and 8 bytes
_IPV6_QUOTE = 1232  # RFC 4443 §2.4: as much as fits in 1280 bytes
_HOP_LIMIT = 64
_LINK_LOCAL = ("fe8", "fe9", "fea", "feb")  # fe80::/10, as inet_ntop writes it; ipaddress takes 30 µs a packet


_CHECKSUMS: dict[int, int] = {Protocol.TCP: 16, Protocol.UDP: 6}  # where the header has its checksum


class NotAPacket(ValueError):  # noqa: N818 - says what it is
    """These bytes are no IPv4 or IPv6 packet."""


def parse(data: bytes) -> Packet:
    """Read one IP packet. A later fragment, or a protocol without ports, has port 0 on both sides.

    Raises: NotAPacket.
    """
    try:
        return _read(data)
    except Exception as error:  # dpkt raises its own errors, and what its slicing happens to raise
        raise NotAPacket(f"{len(data)} bytes that are no IP packet: {data[:40].hex()}") from error


def _read(data: bytes) -> Packet:
    ip = _unpack(data)
    segment = ip.data
    headers = _headers(ip)
    ttl = ip.ttl if ip.v == 4 else ip.hlim
    if isinstance(segment, dpkt.tcp.TCP):
        return Packet(data, headers, ttl, segment.seq, segment.ack, len(segment.data))
    return Packet(data, headers, ttl, payload_length=len(getattr(segment, "data", segment)))


def numbers_of(packet: Packet) -> Numbers | None:
    """A TCP segment's numbers; None where there is none."""
    segment = _unpack(packet.data).data
    if not isinstance(segment, dpkt.tcp.TCP):
        return None
    options = dict(option for option in dpkt.tcp.parse_opts(segment.opts) if option)
    scale = options.get(dpkt.tcp.TCP_OPT_WSCALE)
    return Numbers(segment.seq, segment.ack, _end_of(packet), segment.win, scale[0] if scale else None)


def with_headers(packet: Packet, headers: Headers) -> Packet:
    """The same packet with other endpoints, checksums made right; the very same object where nothing changes."""
    if headers == packet.headers:
        return packet
    data = _patched(packet.data, headers) or _rebuilt(packet.data, headers)
    return Packet(data, headers, packet.ttl, packet.seq, packet.ack, packet.payload_length)


def _patched(packet: bytes, headers: Headers) -> bytes | None:
    """The bytes with other endpoints; None where this is not TCP or UDP over IPv4, with ports."""
    start = (packet[0] & 0xF) * 4
    checksum = start + _CHECKSUMS.get(headers.protocol, len(packet))
    fragment = struct.unpack_from("!H", packet, 6)[0] & 0x1FFF
    if packet[0] >> 4 != 4 or fragment or checksum + 2 > len(packet):
        return None
    ends = struct.pack("!HH", headers.source.port, headers.destination.port)
    addresses = _pack(headers.source.address) + _pack(headers.destination.address)
    data = bytearray(packet)
    data[12:20], data[start : start + 4] = addresses, ends
    _adjust(data, 10, packet[12:20], addresses)
    if headers.protocol == Protocol.TCP or any(packet[checksum : checksum + 2]):  # UDP's 0: none was made (RFC 768)
        _adjust(data, checksum, packet[12:20] + packet[start : start + 4], addresses + ends)
        if headers.protocol == Protocol.UDP and not any(data[checksum : checksum + 2]):
            data[checksum : checksum + 2] = b"\xff\xff"
    return bytes(data)


def _adjust(data: bytearray, place: int, old: bytes, new: bytes) -> None:
    """Make a checksum right after `old` has become `new` (RFC 1624, equation 3)."""
    words = struct.Struct(f"!{len(old) // 2}H")
    total = ~struct.unpack_from("!H", data, place)[0] & 0xFFFF
    total += sum(words.unpack(new)) - sum(words.unpack(old)) + 0xFFFF * (len(old) // 2)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!H", data, place, ~total & 0xFFFF)


def _rebuilt(packet: bytes, headers: Headers) -> bytes:
    ip = _unpack(packet)
    ip.src, ip.dst = _pack(headers.source.address), _pack(headers.destination.address)
    if ip.v == 4:
        ip.sum = 0
    unsummed = ip.v == 4 and isinstance(ip.data, dpkt.udp.UDP) and not ip.data.sum
    _set_ports(ip.data, headers)
    data = bytearray(bytes(ip))
    if unsummed:  # no checksum (RFC 768) stays none, where dpkt would make one
        struct.pack_into("!H", data, ip.hl * 4 + _CHECKSUMS[Protocol.UDP], 0)
    return bytes(data)


def aged(packet: Packet, hops: int) -> Packet:
    """The same packet `hops` routers later. `hops` is below `packet.ttl`: what expires is not forwarded."""
    data = bytearray(packet.data)
    if data[0] >> 4 == 6:
        data[7] -= hops
        return replace(packet, data=bytes(data), ttl=packet.ttl - hops)
    data[8] -= hops
    total = struct.unpack_from("!H", data, 10)[0] + (hops << 8)
    total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!H", data, 10, total if total != 0xFFFF else 0)
    return replace(packet, data=bytes(data), ttl=packet.ttl - hops)


def reset_for(packet: Packet) -> Packet:
    """The RST that answers this TCP segment where no connection is (RFC 9293 §3.10.7.1), from its destination."""
    headers = packet.headers
    if Flags.ACK in headers.flags:
        seq, ack, flags = packet.ack, 0, Flags.RST
    else:
        seq, ack, flags = 0, _end_of(packet), Flags.RST | Flags.ACK
    segment = dpkt.tcp.TCP(
        sport=headers.destination.port, dport=headers.source.port, seq=seq, ack=ack, win=0, flags=int(flags)
    )
    return parse(_from_to(headers.destination.address, headers.source.address, Protocol.TCP, segment))


def echo_reply_for(packet: Packet) -> Packet | None:
    """The reply to this ICMP echo request, from its destination; None where it is something else (RFC 792)."""
    message = _unpack(packet.data).data
    if not isinstance(message, dpkt.icmp.ICMP) or (packet.protocol, message.type) not in _ECHO_REQUESTS:
        return None
    reply = dpkt.icmp.ICMP(type=0, code=0, data=message.data)
    return parse(_from_to(packet.destination.address, packet.source.address, Protocol.ICMP, reply))


def time_exceeded_for(packet: Packet, router: str) -> Packet:
    """The ICMP Time Exceeded with which the router of that address answers a packet that ran out of hops."""
    return _icmp_error(packet, router, icmp=(11, 0), icmp6=(3, 0))


def port_unreachable_for(packet: Packet) -> Packet:
    """The ICMP Port Unreachable that answers this packet, from its destination (RFC 792, RFC 4443 §3.1)."""
    return _icmp_error(packet, packet.destination.address, icmp=(3, 3), icmp6=(1, 4))


def is_link_noise(packet: Packet) -> bool:
    """Multicast, broadcast and link-local packets, which no router forwards."""
    destination, source = packet.destination.address, packet.source.address
    if ":" in destination:
        return destination.startswith(("ff", *_LINK_LOCAL)) or source.startswith(_LINK_LOCAL) or source == "::"
    return int(destination.partition(".")[0]) >= 224 or source == "0.0.0.0"


def _end_of(packet: Packet) -> int:
    """The sequence number after a TCP segment."""
    length = packet.payload_length + (Flags.SYN in packet.flags) + (Flags.FIN in packet.flags)
    return (packet.seq + length) & 0xFFFFFFFF


def _icmp_error(packet: Packet, source: str, *, icmp: tuple[int, int], icmp6: tuple[int, int]) -> Packet:
    """An error of that type and code about a packet, to its sender."""
    sender = packet.source.address
    if ":" in sender:
        quote6 = dpkt.icmp6.ICMP6.Error(data=packet.data[:_IPV6_QUOTE])
        message6 = dpkt.icmp6.ICMP6(type=icmp6[0], code=icmp6[1], data=quote6)
        return parse(_from_to(source, sender, Protocol.ICMPV6, message6))
    quote = dpkt.icmp.ICMP.Quote(data=packet.data[:_IPV4_QUOTE])
    message = dpkt.icmp.ICMP(type=icmp[0], code=icmp[1], data=quote)
    return parse(_from_to(source, sender, Protocol.ICMP, message))


def _unpack(data: bytes) -> Any:
    return {4: dpkt.ip.IP, 6: dpkt.ip6.IP6}[data[0] >> 4](data)


def _pack(address: str) -> bytes:
    return inet_pton(AF_INET6 if ":" in address else AF_INET, address)


def _text(address: bytes) -> str:
    return inet_ntop(AF_INET6 if len(address) == 16 else AF_INET, address)


def _headers(ip: Any) -> Headers:
    protocol, segment = ip.p, ip.data
    source_port, destination_port, flags, quoted = 0, 0, NO_FLAGS, None
    if isinstance(segment, dpkt.tcp.TCP | dpkt.udp.UDP):
        source_port, destination_port = segment.sport, segment.dport
        flags = Flags(segment.flags & 0xFF) if isinstance(segment, dpkt.tcp.TCP) else NO_FLAGS
    elif isinstance(segment, dpkt.icmp.ICMP | dpkt.icmp6.ICMP6):
        source_port, destination_port = _echo_ports(protocol, segment)
        quoted = _quoted_headers(protocol, segment)
    source, destination = Endpoint(_text(ip.src), source_port), Endpoint(_text(ip.dst), destination_port)
    return Headers(protocol, source, destination, flags, quoted)


def _echo_ports(protocol: int, message: Any) -> tuple[int, int]:
    if (protocol, message.type) in _ECHO_REQUESTS:
        return message.data.id, 0
    if (protocol, message.type) in _ECHO_REPLIES:
        return 0, message.data.id
    return 0, 0


def _quoted_headers(protocol: int, message: Any) -> Headers | None:
    if message.type not in _ICMP_ERRORS[Protocol(protocol)]:
        return None
    ip = getattr(message.data, "data", None)
    if not isinstance(ip, dpkt.ip.IP | dpkt.ip6.IP6) or ip.v != (4 if protocol == Protocol.ICMP else 6):
        return None
    if isinstance(ip.data, dpkt.Packet):
        return _headers(ip)
    ports = struct.unpack_from("!HH", ip.data) if ip.p in _PORTS_FIRST and len(ip.data) >= 4 else (0, 0)
    return Headers(ip.p, Endpoint(_text(ip.src), ports[0]), Endpoint(_text(ip.dst), ports[1]))


_PORTS_FIRST = {Protocol.TCP, Protocol.UDP}


def _set_ports(segment: Any, headers: Headers) -> None:
    if isinstance(segment, bytes):
        return
    segment.sum = 0
    if isinstance(segment, dpkt.tcp.TCP | dpkt.udp.UDP):
        segment.sport, segment.dport = headers.source.port, headers.destination.port
    elif headers.quoted is not None and isinstance(segment.data.data, dpkt.ip.IP):
        segment.data.data = _requoted(segment.data.data, headers.quoted)
    elif (headers.protocol, segment.type) in _ECHO_REQUESTS | _ECHO_REPLIES:
        segment.data.id = headers.source.port or headers.destination.port


def _requoted(ip: Any, quoted: Headers) -> bytes:
    """The quoted IPv4 packet with other endpoints. Its transport checksum stays: it covers bytes that are not here."""
    ip.src, ip.dst, ip.sum = _pack(quoted.source.address), _pack(quoted.destination.address), 0
    header = ip.pack_hdr() + bytes(ip.opts)
    ip.sum = dpkt.dpkt.in_cksum(header)
    rest = bytearray(bytes(ip.data))
    if quoted.protocol in _PORTS_FIRST and len(rest) >= 4:
        struct.pack_into("!HH", rest, 0, quoted.source.port, quoted.destination.port)
    elif len(rest) >= 8:
        struct.pack_into("!H", rest, 4, quoted.source.port or quoted.destination.port)
    return bytes(ip.pack_hdr()) + bytes(ip.opts) + bytes(rest)


def _from_to(source: str, destination: str, protocol: Protocol, segment: Any) -> bytes:
    src, dst = _pack(source), _pack(destination)
    if ":" in source:
        ip6 = dpkt.ip6.IP6(src=src, dst=dst, nxt=protocol, hlim=_HOP_LIMIT, plen=len(segment), data=segment)
        return bytes(ip6)
    return bytes(dpkt.ip.IP(src=src, dst=dst, p=protocol, ttl=_HOP_LIMIT, data=segment))
