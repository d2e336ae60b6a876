"""A link as asyncio's own reader and writer."""

from __future__ import annotations

import asyncio

from simopen.link.handshake import Link

STREAM_LIMIT = 2**16  # asyncio's own default


def streams(
    link: Link, report: object = None, limit: int = STREAM_LIMIT
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The link's (reader, writer). `report` is the writer's `get_extra_info("simopen")`; `limit` is the reader's."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    link.transport.report = report
    link.transport.start(protocol)
    return reader, asyncio.StreamWriter(link.transport, protocol, reader, loop)
