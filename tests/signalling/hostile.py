"""Servers that are no good, and a man in the middle who is not either, for tests of clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeAlias

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

Handler: TypeAlias = Callable[[ServerConnection], Awaitable[None]]
Mangle: TypeAlias = Callable[[dict[str, Any]], Iterable[dict[str, Any]]]


@contextlib.asynccontextmanager
async def mailbox_of(handler: Handler) -> AsyncIterator[str]:
    """The URL of a server that does as the handler does on each connection."""

    async def handle(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await handler(connection)

    async with serve(handle, "127.0.0.1", 0, compression=None, close_timeout=0.1) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@contextlib.asynccontextmanager
async def talker(data: bytes) -> AsyncIterator[str]:
    """The URL of a TCP server that says this at once, and then nothing."""
    ended = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(data)
            await ended.wait()
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        ended.set()
        server.close()
        await asyncio.sleep(0)


class Middle:
    """Between a client and a server: `mangle` makes of each message to the client those that it gets.

    Each connection beyond the first begins a new `connections`. `cut` ends those that there are.
    """

    def __init__(self, mangle: Mangle) -> None:
        self.mangle = mangle
        self.connections = 0
        self._live: set[ServerConnection] = set()

    def cut(self) -> None:
        """As a network that is gone does."""
        for each in tuple(self._live):
            each.transport.abort()

    @contextlib.asynccontextmanager
    async def before(self, url: str) -> AsyncIterator[str]:
        """The URL at which it stands before another."""

        async def handle(client: ServerConnection) -> None:
            self.connections += 1
            self._live.add(client)
            try:
                async with connect(url, compression=None, close_timeout=0.1) as upstream, asyncio.TaskGroup() as both:
                    both.create_task(self._to_server(client, upstream))
                    both.create_task(self._to_client(client, upstream))
            except* ConnectionClosed:
                pass
            finally:
                self._live.discard(client)

        async with mailbox_of(handle) as here:
            yield here

    async def _to_server(self, client: ServerConnection, upstream: Any) -> None:
        while True:
            await upstream.send(await client.recv())

    async def _to_client(self, client: ServerConnection, upstream: Any) -> None:
        while True:
            for message in self.mangle(json.loads(await upstream.recv())):
                await client.send(json.dumps(message))
