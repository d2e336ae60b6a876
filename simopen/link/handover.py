"""A link's socket for a library that seals what it sends itself, so that nothing is sealed twice.

Theory of operation. Both ends end their streams, and what follows on the socket is no TLS. Nothing of it may come
while the link still reads. So it is the responder that waits: for the initiator's end, then with its own end as its
last word of TLS, and at last for one byte in the clear, which says that the initiator's link has read that end.

The link protects nothing from there on, but for its seed, which nobody else has: the library has to prove with it who
is at the other end, in both directions.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from simopen.errors import LinkBroken
from simopen.link.session import Role

if TYPE_CHECKING:
    from simopen.link.transport import LinkTransport

_GO = b"\n"


async def hand_over(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> socket.socket:
    """The socket of a link's stream, which ends here; the other end has to call this, too.

    Neither side may send anything between. The socket is the caller's to close.

    Raises:
        LinkBroken: the peer has sent something else.
        OSError: the stream broke.
        ValueError: the stream is no link's.
    """
    reader, writer = stream
    link: LinkTransport | None = writer.get_extra_info("simopen_link")
    if link is None:
        raise ValueError("this stream is no link's")
    writer.transport.set_write_buffer_limits(0)  # so that `drain` waits until all has left
    if link.role is Role.INITIATOR:
        await _end(writer)
        await _ended(reader)
        sock = link.detach()
        with _closing_on_error(sock):
            await asyncio.get_running_loop().sock_sendall(sock, _GO)
    else:
        await _ended(reader)
        link.pause_reading()
        await _end(writer)
        sock = link.detach()
        with _closing_on_error(sock):
            _check(await asyncio.get_running_loop().sock_recv(sock, len(_GO)), _GO)
    return sock


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.write_eof()
    await writer.drain()


async def _ended(reader: asyncio.StreamReader) -> None:
    _check(await reader.read(1), b"")


def _check(said: bytes, expected: bytes) -> None:
    if said != expected:
        raise LinkBroken("the peer goes on where it was to hand over its socket: it is no simopen, or another version")


@contextlib.contextmanager
def _closing_on_error(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise
