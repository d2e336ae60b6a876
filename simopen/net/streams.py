"""asyncio's own streams over a punched socket, so that they end as `delayed_close.py` says, on either loop.

Theory of operation: the socket sees to its own end where Python closes it or shuts it down. uvloop's transports have
only the descriptor. So the writer puts off the end of its direction, and refuses what is written meanwhile; and the
protocol tells the socket that it is about to be closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable
from functools import partial

from simopen.net.delayed_close import PunchedSocket
from simopen.net.memory import keep_blocks
from simopen.net.os_errors import of_a_stream
from simopen.net.sockets import drop
from simopen.net.start_tls import Writer

STREAM_LIMIT = 2**16  # asyncio's own default
CLOSE_S = 5.0  # for what was written to leave
_PIECE = 2**16


async def streams_over(sock: socket.socket, limit: int = STREAM_LIMIT) -> tuple[asyncio.StreamReader, PunchedWriter]:
    """As `asyncio.open_connection(sock=)`; the socket is closed where this raises.

    Raises: OSError where the loop does not take it, as one that was reset meanwhile.
    """
    keep_blocks()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    punched = sock if isinstance(sock, PunchedSocket) else None
    protocol = StreamProtocol(reader, punched)
    try:
        transport, _ = await loop.create_connection(lambda: protocol, sock=sock)
    except BaseException:
        with contextlib.suppress(OSError):
            sock.close()
        raise
    writer = PunchedWriter(transport, protocol, reader, loop)
    writer.punched = punched
    return reader, writer


def require_open(writer: asyncio.StreamWriter) -> None:
    """Raises: ConnectionResetError where nothing can be written any more: uvloop's transports raise a RuntimeError."""
    if writer.is_closing():
        raise ConnectionResetError("connection lost")


def abort(writer: asyncio.StreamWriter) -> None:
    """Close it at once, whatever is unsent. asyncio's own transports fail at that where they were closed with something
    unsent, and have ended when that had left."""
    with contextlib.suppress(AttributeError):
        writer.transport.abort()


def cut(writer: asyncio.StreamWriter) -> None:
    """`abort`, and so that the peer meets an error where a FIN would pass for the end: a plain stream is reset, and a
    link says so by itself."""
    sock = writer.get_extra_info("socket")
    # uvloop's, of a writer that is closed, has a number that may be another's by now.
    if sock is not None and not writer.is_closing() and writer.get_extra_info("simopen_link") is None:
        with contextlib.suppress(OSError):  # macOS's where it has been reset meanwhile
            drop(sock)
    abort(writer)


async def close(writer: asyncio.StreamWriter, limit_s: float = CLOSE_S) -> None:
    """Close it, and see that off; after `limit_s` at once."""
    writer.close()
    try:
        async with asyncio.timeout(limit_s):
            await writer.wait_closed()
    except OSError:  # a time-out, too
        abort(writer)


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write what is read, until its end, which is written, too. Raises: OSError."""
    while data := await reader.read(_PIECE):
        require_open(writer)
        writer.write(data)
        await writer.drain()
    require_open(writer)
    writer.write_eof()
    await writer.drain()


class StreamProtocol(asyncio.StreamReaderProtocol):
    """A stream's protocol, which tells a punched socket when the transport lets go of it."""

    def __init__(self, reader: asyncio.StreamReader, punched: PunchedSocket | None = None) -> None:
        super().__init__(reader, loop=asyncio.get_running_loop())
        self._punched = punched

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio's; both loops close the descriptor right after.

        What it was lost with, readers and `wait_closed` raise. It is retrieved here for whoever asks neither: asyncio's
        own protocol does so as it is collected, which may be after the future told of an error that nobody caught.
        """
        if self._punched is not None:
            self._punched.about_to_close()
        super().connection_lost(of_a_stream(exc) if isinstance(exc, OSError) else exc)
        closed = self._get_close_waiter(None)  # type: ignore[attr-defined]
        if closed.done() and not closed.cancelled():
            closed.exception()


class PunchedWriter(Writer):
    """A stream's writer; `punched`, where there is one, is its socket."""

    punched: PunchedSocket | None = None
    _ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """As asyncio's."""
        self._require_no_end()
        super().write(data)

    def writelines(self, data: Iterable[bytes | bytearray | memoryview]) -> None:
        """As asyncio's."""
        self._require_no_end()
        super().writelines(data)

    def _require_no_end(self) -> None:
        if self._ended and not self.is_closing():  # in the transport's own words, which may not know of it yet
            raise RuntimeError("Cannot call write() after write_eof()")

    def write_eof(self) -> None:
        """End the stream in this direction: what was written leaves at once, the FIN as `delayed_close` says."""
        call = partial(_call, asyncio.get_running_loop(), self._end)
        if self.punched is None or not self.can_write_eof() or not self.punched.wait_to_end(call):
            super().write_eof()
        self._ended = True

    def _end(self) -> None:
        if not self.is_closing():
            with contextlib.suppress(ConnectionResetError):  # the reader hears of it
                super().write_eof()


def _call(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, and its streams with it
        loop.call_soon_threadsafe(call)
