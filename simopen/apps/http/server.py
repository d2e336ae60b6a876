"""Serving HTTP to a peer: an ASGI application, or a server that runs on this host already, over punched streams.

Theory of operation: servers accept connections, and take no streams. So the bytes of each stream go to a connection of
its own, by a Unix socket in a folder that only this user may enter, where uvicorn runs the application; or by TCP, to
the server that was named. Nothing is parsed on the way: what HTTP allows, WebSockets among it, passes, and a connection
is kept for as long as both ends keep it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import uvicorn

from simopen.model.endpoint import check_port, host_and_port
from simopen.net.os_errors import connection_reason

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Application: TypeAlias = Callable[..., Coroutine[Any, Any, None]]
Connect: TypeAlias = Callable[[], Coroutine[Any, Any, Streams]]

_CHUNK = 2**16
_KEPT_S = 10 * 365 * 86400  # uvicorn would end an idle connection after 5 s, and a punched one is precious
_CLOSE_S = 5.0
_NOBODY_THERE = (
    b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/plain\r\ncontent-length: 41\r\nconnection: close\r\n\r\n"
    b"the server behind this peer is not there\n"
)
logger = logging.getLogger(__name__)


async def serve(
    served: Application | str | tuple[str, int],
    streams: Streams | AsyncIterable[Streams],
    *,
    log_level: str = "warning",
) -> None:
    """Serve HTTP over one stream, or over each of several as they come, until they have ended.

    Args:
        served: an ASGI application; or the address of an HTTP server on this host or near it, as ("127.0.0.1", 8000) or
            "127.0.0.1:8000".
        streams: a (reader, writer), or what gives such pairs, `async for`. They are closed here.
        log_level: of uvicorn, which runs the application.

    Raises:
        ValueError, TypeError: `served` is neither.
        OSError: the server that was named cannot be reached. Where several streams are served, that is logged; in
            either case the peer is told by an answer, 502.
    """
    if callable(served):
        try:
            async with _running(served, log_level) as connect:
                await _carry(connect, streams)
        finally:
            if isinstance(streams, tuple):
                await _close(streams[1])
    else:
        host, port = _address(served)
        await _carry(lambda: _open(host, port), streams)


def _address(served: object) -> tuple[str, int]:
    if isinstance(served, str):
        host, port = host_and_port(served)
        if port is None:
            raise ValueError(f"a server's address is HOST:PORT, not {served!r}")
        return host, port
    if isinstance(served, tuple) and len(served) == 2 and isinstance(served[0], str):
        return served[0], check_port(served[1], "the server's port")
    raise TypeError(f"an ASGI application, or a server's address, is served, not {type(served).__name__}")


async def _open(host: str, port: int) -> Streams:
    try:
        return await asyncio.open_connection(host, port)
    except OSError as error:
        said = f"no HTTP server can be reached at {host}:{port}: {connection_reason(error)}"
        raise type(error)(error.errno, said) from error


@contextlib.asynccontextmanager
async def _running(application: Application, log_level: str) -> AsyncIterator[Connect]:
    """The application behind a Unix socket of its own; how to connect to it."""
    with tempfile.TemporaryDirectory(prefix="simopen-http-") as folder:
        path = str(Path(folder, "socket"))
        server = _Server(
            uvicorn.Config(application, uds=path, timeout_keep_alive=_KEPT_S, log_level=log_level, access_log=False)
        )
        running = asyncio.create_task(server.serve())
        listening = asyncio.create_task(server.listening.wait())
        await asyncio.wait({running, listening}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if running.done():
            running.result()
        try:
            yield lambda: asyncio.open_unix_connection(path)
        finally:
            server.should_exit = True
            await running


class _Server(uvicorn.Server):
    """uvicorn's, which leaves the program's signals alone, and tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, *arguments: Any, **options: Any) -> None:
        try:
            await super().startup(*arguments, **options)
        except SystemExit:  # it is made to be a program's main thing
            raise RuntimeError(
                "the application did not start: its lifespan failed, and uvicorn has logged why"
            ) from None
        if self.started:
            self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _carry(connect: Connect, streams: Streams | AsyncIterable[Streams]) -> None:
    if isinstance(streams, tuple):
        await _carry_one(connect, *streams)
        return
    async with asyncio.TaskGroup() as group:
        async for reader, writer in streams:
            group.create_task(_carry_one_of_many(connect, reader, writer))


async def _carry_one_of_many(connect: Connect, *streams: Any) -> None:
    try:
        await _carry_one(connect, *streams)
    except OSError as error:
        logger.warning("a stream was not served: %s", error)


async def _carry_one(connect: Connect, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One stream to one connection, until one of them has broken, or both have ended."""
    try:
        try:
            inner_reader, inner_writer = await connect()
        except OSError:
            with contextlib.suppress(OSError):
                writer.write(_NOBODY_THERE)
                await writer.drain()
            raise
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, inner_writer))
                group.create_task(_copy(inner_reader, writer))
        except* OSError as broken:
            logger.debug("a stream that was served broke: %s", broken.exceptions[0])
        finally:
            await _close(inner_writer)
    finally:
        await _close(writer)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK):
        if writer.is_closing():
            raise ConnectionResetError("the other side has gone")
        writer.write(chunk)
        await writer.drain()
    if not writer.is_closing():
        writer.write_eof()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        async with asyncio.timeout(_CLOSE_S):
            await writer.wait_closed()
    except OSError:  # a time-out, too
        writer.transport.abort()
