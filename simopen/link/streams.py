"""A link as asyncio's own reader and writer."""

from __future__ import annotations

import asyncio

from simopen.link.handshake import Link
from simopen.net.memory import keep_blocks
from simopen.net.streams import STREAM_LIMIT, StreamProtocol


def streams(
    link: Link, report: object = None, limit: int = STREAM_LIMIT
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The link's (reader, writer). `report` is the writer's `get_extra_info("simopen")`; `limit` is the reader's."""
    keep_blocks()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = StreamProtocol(reader)
    link.transport.report = report
    link.transport.start(protocol)
    return reader, asyncio.StreamWriter(link.transport, protocol, reader, loop)
