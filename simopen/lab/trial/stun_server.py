"""A STUN server for a lab host, over TCP and UDP: `python -m simopen.lab.trial.stun_server ADDRESS [OTHER_ADDRESS]`.

Theory of operation. With OTHER_ADDRESS it is one half of an RFC 5780 server: ports 3478 and 3479, and each names the
other address and the other port; the other half runs on another host. Without, it is a plain one on port 3478. It
says "ready" when it can be asked, and answers until it is killed. What it cannot: TLS, authentication, connecting back
(`simopen serve` does).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from functools import partial
from typing import TYPE_CHECKING

from simopen.model.endpoint import Endpoint, normalise
from simopen.nat.stun_answer import HEADER_BYTES, success

if TYPE_CHECKING:  # the server itself, in a process of its own, has no use for the lab's code
    from simopen.lab.network import Host

PORT, OTHER_PORT = 3478, 3479


async def start(host: Host, *addresses: str) -> None:
    """Have one answer on this host, and return when it does. `addresses`: its own there, and its other half's."""
    process = await host.start([sys.executable, "-m", __name__, *addresses], stderr=None)
    assert process.stdout is not None
    await process.stdout.readline()


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
