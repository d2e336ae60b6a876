"""Two ends of a TCP stream on loopback, for tests of what runs over one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

from simopen.apps.transfer.api import LIMIT
from simopen.net.streams import abort

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
SOON_S = 30


@contextlib.asynccontextmanager
async def stream() -> AsyncIterator[tuple[Streams, Streams]]:
    """Both ends of one."""
    came: asyncio.Future[Streams] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda *streams: came.set_result(streams), "127.0.0.1", 0, limit=LIMIT)
    async with server:
        ours = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=LIMIT)
        theirs = await came
        try:
            async with asyncio.timeout(SOON_S):
                yield ours, theirs
        finally:
            for _, writer in (ours, theirs):
                abort(writer)
                with contextlib.suppress(OSError):
                    await writer.wait_closed()


async def both(*sides: Any) -> list[Any]:
    return list(await asyncio.gather(*sides, return_exceptions=True))
