"""Packets made for the tests, with dpkt, and a checker of checksums that shares no code with the lab."""

from __future__ import annotations

import socket
import struct
from typing import Any

import dpkt


def pack(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def ip_packet(source: str, destination: str, protocol: int, segment: Any, ttl: int = 64) -> bytes:
    src, dst = pack(source), pack(destination)
    if ":" in source:
        return bytes(dpkt.ip6.IP6(src=src, dst=dst, nxt=protocol, hlim=ttl, plen=len(segment), data=segment))
    return bytes(dpkt.ip.IP(src=src, dst=dst, p=protocol, ttl=ttl, data=segment))


def tcp(source: tuple[str, int], destination: tuple[str, int], flags: int = 2, ttl: int = 64, **fields: Any) -> bytes:
    segment = dpkt.tcp.TCP(sport=source[1], dport=destination[1], flags=flags, **{"seq": 1000, **fields})
    return ip_packet(source[0], destination[0], 6, segment, ttl)


def udp(source: tuple[str, int], destination: tuple[str, int], payload: bytes = b"?", ttl: int = 64) -> bytes:
    segment = dpkt.udp.UDP(sport=source[1], dport=destination[1], ulen=8 + len(payload), data=payload)
    return ip_packet(source[0], destination[0], 17, segment, ttl)


def echo(kind: int, source: str, destination: str, identifier: int) -> bytes:
    """An echo request (8) or reply (0)."""
    message = dpkt.icmp.ICMP(type=kind, code=0, data=dpkt.icmp.ICMP.Echo(id=identifier, seq=1, data=b"?"))
    return ip_packet(source, destination, 1, message)


def icmp_error(kind: int, code: int, source: str, about: bytes) -> bytes:
    """An ICMP error to a packet's sender, which quotes its header and 8 bytes (RFC 792)."""
    quote = dpkt.icmp.ICMP.Quote(data=about[:28])
    message = dpkt.icmp.ICMP(type=kind, code=code, data=quote)
    return ip_packet(source, socket.inet_ntop(socket.AF_INET, about[12:16]), 1, message)


def checksums_hold(data: bytes) -> bool:
    """Whether the header's and the TCP, UDP or ICMP checksum are right (RFC 1071: all words add up to 0xFFFF)."""
    if data[0] >> 4 == 6:
        payload, pseudo = data[40:], data[8:40] + struct.pack("!II", len(data) - 40, data[6])
        return _sum(pseudo + payload) == 0xFFFF
    header, payload = data[:20], data[20:]
    pseudo = b"" if data[9] == 1 else data[12:20] + struct.pack("!HH", data[9], len(payload))
    return _sum(header) == 0xFFFF and _sum(pseudo + payload) == 0xFFFF


def _sum(data: bytes) -> int:
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
