"""A STUN server for a lab host, over TCP and UDP: `python -m simopen.lab.trial.stun_server ADDRESS [OTHER_ADDRESS]`.

Theory of operation. With OTHER_ADDRESS it is one half of an RFC 5780 server: ports 3478 and 3479, and each names the
other address and the other port; the other half runs on another host. Without, it is a plain one on port 3478. It
says "ready" when it can be asked, and answers until it is killed. The bytes are made here, without the codec that
clients have, so that the two can be held against each other. What it cannot: CHANGE-REQUEST, TLS, authentication.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import struct
import sys
from functools import partial
from typing import TYPE_CHECKING

from simopen.model.endpoint import Endpoint, normalise

if TYPE_CHECKING:  # the server itself, in a process of its own, has no use for the lab's code
    from simopen.lab.network import Host

PORT, OTHER_PORT = 3478, 3479
COOKIE = 0x2112A442
HEADER_BYTES = 20
SUCCESS, ERROR = 0x0101, 0x0111
MAPPED, XOR_MAPPED, ERROR_CODE, SOFTWARE, OTHER = 0x0001, 0x0020, 0x0009, 0x8022, 0x802C


async def start(host: Host, *addresses: str) -> None:
    """Have one answer on this host, and return when it does. `addresses`: its own there, and its other half's."""
    process = await host.start([sys.executable, "-m", __name__, *addresses], stderr=None)
    assert process.stdout is not None
    await process.stdout.readline()


def address(endpoint: Endpoint, transaction: bytes = b"") -> bytes:
    """An address attribute's value, XORed where a transaction is given."""
    packed = ipaddress.ip_address(endpoint.address).packed
    pad = COOKIE.to_bytes(4, "big") + transaction if transaction else bytes(20)
    port = endpoint.port ^ int.from_bytes(pad[:2], "big")
    xored = bytes(a ^ b for a, b in zip(packed, pad, strict=False))
    return struct.pack("!BBH", 0, 1 if len(packed) == 4 else 2, port) + xored


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to a multiple of four bytes."""
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def message(kind: int, transaction: bytes, *attributes: bytes, cookie: int = COOKIE) -> bytes:
    """A whole message."""
    body = b"".join(attributes)
    return struct.pack("!HHI", kind, len(body), cookie) + transaction + body


def success(request: bytes, mapped: Endpoint, other: Endpoint | None = None) -> bytes:
    """The right answer to a Binding request. `other`: the server's OTHER-ADDRESS."""
    transaction = request[8:HEADER_BYTES]
    attributes = [attribute(XOR_MAPPED, address(mapped, transaction)), attribute(SOFTWARE, b"fake")]
    attributes += [attribute(OTHER, address(other))] if other else []
    return message(SUCCESS, transaction, *attributes)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, other: Endpoint | None) -> None:
        self._other = other

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(success(data, normalise(addr), self._other), addr)


async def _answer(other: Endpoint | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every question on one connection, until the other side ends it."""
    seen = normalise(writer.get_extra_info("peername"))
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            writer.write(success(await reader.readexactly(HEADER_BYTES), seen, other))
    writer.close()


async def _serve(mine: str, its: str | None = None) -> None:
    loop = asyncio.get_running_loop()
    for port, other_port in ((PORT, OTHER_PORT), (OTHER_PORT, PORT))[: 1 if its is None else 2]:
        other = None if its is None else Endpoint(its, other_port)
        await asyncio.start_server(partial(_answer, other), mine, port, backlog=1024)
        await loop.create_datagram_endpoint(partial(_Datagrams, other), (mine, port))
    print("ready", flush=True)
    await loop.create_future()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
