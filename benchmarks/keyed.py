"""A link, plain TLS and a process at the other end, on loopback: what downloads are measured with, and against."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
import time
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

from simopen.link.contexts import ready
from simopen.link.handshake import Handshake
from simopen.link.session import Kind, Role, Session
from simopen.link.streams import streams

Streams: TypeAlias = tuple[StreamReader, StreamWriter]
Serve: TypeAlias = Callable[[StreamReader, StreamWriter], Awaitable[None]]

HERE = "127.0.0.1"
CHUNK = 2**18
_ENDS = ((b"one", b"other"), (b"other", b"one"))


def sessions() -> dict[Role, Session]:
    """Both sides' of a link, the same in every process."""
    both = [Session.between(Kind.TICKETS, bytes(32), *of) for of in _ENDS]
    return {side.role: side for side in both if side.role is not None}


def contexts() -> dict[Role, ssl.SSLContext]:
    """The same for bare TLS, so that the same cipher is chosen."""
    return {role: ready(session).context for role, session in sessions().items()}


async def linked(sock: socket.socket, role: Role) -> Streams:
    """A link over a connected socket whose other end does the same in the other role."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    handshake = Handshake(sessions()[role], limit_s=60.0)
    handshake.offer(sock)
    return streams(await handshake.link())


async def link_to(port: int) -> Streams:
    """To `link_server`."""
    return await linked(socket.create_connection((HERE, port)), Role.INITIATOR)


async def link_server(serve: Serve) -> int:
    """The port at which links are served, one at a time, until the program ends."""
    server = socket.create_server((HERE, 0))
    server.setblocking(False)

    async def accept() -> None:
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(server)
            await serve(*await linked(sock, Role.RESPONDER))

    _kept.append(asyncio.ensure_future(accept()))
    return int(server.getsockname()[1])


async def tls_to(port: int) -> Streams:
    """To `tls_server`."""
    return await asyncio.open_connection(HERE, port, ssl=contexts()[Role.INITIATOR], server_hostname="")


async def tls_server(serve: Serve) -> int:
    """The port at which plain TLS is served, by asyncio's own streams."""
    server = await asyncio.start_server(serve, HERE, 0, ssl=contexts()[Role.RESPONDER])
    _kept.append(server)
    return int(server.sockets[0].getsockname()[1])


_kept: list[object] = []


async def download_s(reader: StreamReader, writer: StreamWriter, asks: bytes, size: int) -> float:
    """Seconds until so many bytes have come, after the question has left."""
    begun_s = time.perf_counter()
    writer.write(asks)
    left = size
    while left > 0:
        piece = await reader.read(CHUNK)
        if not piece:
            raise RuntimeError(f"it ended {left:,} bytes too early")
        left -= len(piece)
    return time.perf_counter() - begun_s


@contextlib.asynccontextmanager
async def process(module: str, *words: str) -> AsyncIterator[tuple[Process, list[int]]]:
    """One that runs until it is ended here, and the numbers that its first line tells."""
    started = await asyncio.create_subprocess_exec(sys.executable, "-m", module, *words, stdout=PIPE)
    assert started.stdout is not None
    try:
        yield started, [int(word) for word in (await started.stdout.readline()).split()]
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.terminate()
        await started.wait()
