"""Numbers for Prometheus."""

from __future__ import annotations

import asyncio

from simopen.signalling.server import serve
from tests.signalling.clients import bound


async def fetch(port: int, path: str = "/metrics") -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode()


async def test_what_is_told() -> None:
    async with serve("127.0.0.1", 0, stun_ports=(0, 0), metrics=("127.0.0.1", 0)) as server:
        client = await bound(server.url, "one")
        await client.ask("ping", "pong", ping=1)
        assert server.metrics_address is not None
        told = (await fetch(server.metrics_address.port)).splitlines()
        assert {"simopen_clients 1.0", "simopen_rooms 0.0", "simopen_messages_total 2.0"} <= set(told)
        assert "404" in await fetch(server.metrics_address.port, "/")
        await client.connection.close()
