"""What both ends of HTTP over a stream need of streams."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol, TypeAlias

from simopen.net.streams import require_open

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})
"""The methods of requests that may be sent again: to do it twice is as good as once (RFC 9110 §9.2.2)."""
CHUNK = 2**16
LINGER_S = 5.0
"""For a peer to read what was said last, and to end the stream, too."""


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


async def pour(reader: Reader, writer: asyncio.StreamWriter) -> None:
    """Until the reader's end, which the writer is not told. Raises: OSError."""
    while chunk := await reader.read(CHUNK):
        require_open(writer)
        writer.write(chunk)
        await writer.drain()


async def copy(reader: Reader, writer: asyncio.StreamWriter) -> None:
    """Until the reader's end, which is passed on. Raises: OSError."""
    await pour(reader, writer)
    end(writer)


def end(writer: asyncio.StreamWriter) -> None:
    """End the stream in this direction, where it has not ended. Raises: OSError."""
    if writer.can_write_eof() and not writer.is_closing():
        writer.write_eof()


async def linger(reader: Reader, writer: asyncio.StreamWriter, limit_s: float = LINGER_S) -> None:
    """End the stream in this direction, and let the peer come to its end of it, for so long at most.

    What it still sends is read: a kernel that closes a socket with something unread resets it, and what was said last
    is lost on the way. Where only closing ends a direction, as of asyncio's own TLS, there is nothing to wait for.
    """
    if not writer.can_write_eof():
        return
    with contextlib.suppress(OSError):  # a time-out, too
        end(writer)
        async with asyncio.timeout(limit_s):
            while await reader.read(CHUNK):
                pass
