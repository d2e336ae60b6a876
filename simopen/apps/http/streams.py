"""What both ends of HTTP over a stream need of streams."""

from __future__ import annotations

import asyncio
from typing import Protocol, TypeAlias

from simopen.net.streams import require_open

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})
"""The methods of requests that may be sent again: to do it twice is as good as once (RFC 9110 §9.2.2)."""
CHUNK = 2**16


def has_come(reader: asyncio.StreamReader) -> bool:
    """Whether there is something to read by now, or the end. If so, a byte of it is gone: use that stream no more."""
    reading = reader.read(1)
    try:
        reading.send(None)  # it ends in its first step where it need not wait
    except (StopIteration, OSError):
        return True
    finally:
        reading.close()
    return False


class Reader(Protocol):
    """What is read of a stream."""

    async def read(self, n: int, /) -> bytes:
        """As asyncio's reader's."""


async def copy(reader: Reader, writer: asyncio.StreamWriter) -> None:
    """Until the reader's end, which is passed on. Raises: OSError."""
    while chunk := await reader.read(CHUNK):
        require_open(writer)
        writer.write(chunk)
        await writer.drain()
    if not writer.is_closing():
        writer.write_eof()
