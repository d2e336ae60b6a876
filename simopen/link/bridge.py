"""A real connected socket for libraries that take nothing else (`sock=`), whose other end is a stream.

Theory of operation. A TCP pair on loopback: the library has one end, and two tasks carry what comes between the other
end and the stream. Half-closes travel, and an error of either is an error of the other: a FIN never stands for a cut.
The listening socket lives until its own client has come, and whoever else connects meanwhile is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from simopen.model.endpoint import normalise
from simopen.net.sockets import connect, drop
from simopen.net.streams import cut, pass_on, streams_over

_BACKLOG = 128
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Ends = tuple[socket.socket, socket.socket]
_running: set[asyncio.Task[None]] = set()
"""A task lives as long as somebody refers to it."""


async def bridge(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> socket.socket:
    """A connected, non-blocking TCP socket that carries what `stream`, a (reader, writer), does.

    The stream is the bridge's from here on, and the socket is the caller's: closing it, or shutting it down for
    writing, ends the stream in that direction; where the stream is cut, reading from the socket meets ECONNRESET.

    Raises:
        TypeError: that is no stream, but the call for one, say, that nobody has awaited.
        OSError: no socket can be had on loopback.
    """
    stream = _checked(stream)
    mine, theirs = await _loopback_pair()
    try:
        inner = await streams_over(mine)
    except BaseException:
        theirs.close()
        raise
    task = asyncio.get_running_loop().create_task(_carry(stream, inner))
    _running.add(task)
    task.add_done_callback(_running.discard)
    return theirs


def _checked(stream: Any) -> Pair:
    """It would be found out by nobody but the task that carries. Raises: TypeError."""
    match stream:
        case (reader, writer) if hasattr(reader, "read") and hasattr(writer, "write"):
            return reader, writer
    raise TypeError(
        f"bridge takes a (reader, writer), as `await simopen.connect(...)` gives it, not {type(stream).__name__}"
    )


async def _loopback_pair() -> Ends:
    """Two connected ends, of which nobody else has one."""
    with socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG) as server:
        return await pair_by(server)


async def pair_by(server: socket.socket) -> Ends:
    """Two connected ends by way of this listening socket: the one that it has let in, and its own client.

    Whoever else is, or comes, in its queue is closed; meanwhile the loop goes on. Raises: OSError.
    """
    server.setblocking(False)
    with contextlib.ExitStack() as undone:
        client = undone.enter_context(socket.socket(server.family))
        client.setblocking(False)
        client.bind((server.getsockname()[0], 0))
        admitting = asyncio.ensure_future(_admitted(server, client.getsockname()))
        undone.callback(_drop_result, admitting)
        try:
            await connect(client, normalise(server.getsockname()))
            await asyncio.wait({admitting})
        finally:
            admitting.cancel()
            await asyncio.wait({admitting})
        sock = admitting.result()
        undone.pop_all()
    for each in (sock, client):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock, client


def _drop_result(admitting: asyncio.Task[socket.socket]) -> None:
    if admitting.done() and not admitting.cancelled() and admitting.exception() is None:
        admitting.result().close()


async def _admitted(server: socket.socket, client: object) -> socket.socket:
    """The stream from there; any other is another program's of this host."""
    while True:
        with contextlib.suppress(ConnectionAbortedError):  # it is gone already
            sock, remote = await asyncio.get_running_loop().sock_accept(server)
            if remote == client:
                return sock
            drop(sock)
            sock.close()


async def _carry(outer: Pair, inner: Pair) -> None:
    """Both directions, until both have ended; or until one fails, and the other with it."""
    ways = [asyncio.ensure_future(pass_on(outer[0], inner[1])), asyncio.ensure_future(pass_on(inner[0], outer[1]))]
    try:
        await asyncio.gather(*ways)
    except (Exception, asyncio.CancelledError) as error:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        cut(inner[1])
        cut(outer[1])
        if not isinstance(error, OSError):
            raise
    finally:
        for _, writer in (outer, inner):
            writer.close()
