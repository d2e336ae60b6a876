"""What the nearest router says its own outer address is, which tells whether a further NAT follows it.

Theory of operation: the first question of NAT-PMP (RFC 6886 §3.2), which many home routers answer: two bytes there,
twelve back, and nothing is opened or changed. The router is the next hop on the way to a STUN server by the kernel's
routing table, and it is asked only where the host reaches it from the address that it reaches the server from: else
the way leads elsewhere, into a tunnel maybe. Off Linux, and where the router is silent, nobody knows.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Iterable

from simopen.model.endpoint import Endpoint
from simopen.net.routes import source_address

PORT = 5351
QUESTION = bytes(2)  # version 0, operation 0
NOWHERE = "0.0.0.0"  # what a router's outer address is where it has none
_ANSWER = struct.Struct("!BBHI4s")
_ANSWERED = 128
_SUCCESS, _NETWORK_FAILURE = 0, 3
_WAITS_S = (0.25, 0.5, 1.0)  # RFC 6886 §3.1; by then the STUN servers have answered
_ROUTES = "/proc/net/route"
_RTF_GATEWAY = 0x2  # linux/route.h


async def outer_address(server: Endpoint, source: str) -> str | None:
    """The outer IPv4 address of the nearest router on the way from `source` to `server`; None where nobody says.

    `NOWHERE` where the router says that it has none that is of use: miniupnpd does, where its own is not a public one.
    Takes up to 2 s where it is silent.
    """
    router = next_hop(_routes(), server.address)
    if router is None or source_address(Endpoint(router, PORT), None) != source:
        return None
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect((router, PORT))  # what others send does not come in
            return await _asked(sock)
    except OSError:  # it does not speak NAT-PMP
        return None


async def _asked(sock: socket.socket) -> str | None:
    for wait_s in _WAITS_S:
        sock.send(QUESTION)
        try:
            async with asyncio.timeout(wait_s):
                return parse(await asyncio.get_running_loop().sock_recv(sock, _ANSWER.size))
        except TimeoutError:
            continue
    return None


def parse(answer: bytes) -> str | None:
    """The outer address in a router's answer, `NOWHERE` where it has none; None where the answer is something else."""
    if len(answer) < _ANSWER.size:
        return None
    version, operation, result, _, address = _ANSWER.unpack_from(answer)
    if (version, operation) != (0, _ANSWERED) or result not in (_SUCCESS, _NETWORK_FAILURE):
        return None
    return socket.inet_ntoa(address) if result == _SUCCESS else NOWHERE


def _routes(path: str = _ROUTES) -> list[str]:
    """An interface's name is any bytes (dev_valid_name of net/core/dev.c), and of no interest."""
    try:
        with open(path, encoding="ascii", errors="replace") as table:
            return table.readlines()[1:]
    except OSError:
        return []


def next_hop(routes: Iterable[str], destination: str) -> str | None:
    """The router on the way to an IPv4 address, by rows of /proc/net/route (proc(5)); None where there is none."""
    target = int(ipaddress.IPv4Address(destination))
    leading = []
    for row in routes:
        _, network, gateway, flags, _, _, metric, mask, *_ = row.split()
        width = _number(mask)
        if target & width == _number(network):
            leading.append((width, -int(metric), int(flags, 16) & _RTF_GATEWAY, _number(gateway)))
    _, _, routed, router = max(leading, default=(0, 0, 0, 0))
    return str(ipaddress.IPv4Address(router)) if routed else None


def _number(field: str) -> int:
    """An address as the kernel prints it: one number, in this machine's order of bytes."""
    return int.from_bytes(struct.pack("=I", int(field, 16)), "big")
