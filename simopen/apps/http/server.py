"""Serving HTTP to a peer: an ASGI application, or a server that runs on this host already, over punched streams.

Theory of operation: servers accept connections, and take no streams. So the bytes of each stream go to a connection of
its own, a pair of sockets of which uvicorn has one, and runs the application and keeps it; it listens nowhere. A server
that was named has a will of its own of when a connection ends: `gateway` asks it, request for request.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import socket
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import uvicorn
from uvicorn.config import LOG_LEVELS
from uvicorn.protocols.http.h11_impl import H11Protocol

from simopen.apps.http import gateway
from simopen.apps.http.application import Address, Application, Kept, Lived
from simopen.apps.http.pieces import Pieces
from simopen.apps.http.streams import CHUNK, Streams, end, linger, pour
from simopen.model.endpoint import check_port, host_and_port
from simopen.net.os_errors import connection_reason
from simopen.net.streams import close, cut, require_open, streams_over

One: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_KEPT_S = 10 * 365 * 86400  # uvicorn would end an idle connection after 5 s, and a punched one is precious
_TO_END_S = 5  # for what an application still does when nobody is there any more who has asked
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

    Where the server that was named cannot be reached, or does not answer, the peer is told so by an answer, 502, and
    that is logged; the stream goes on. What an application still does 5 s after all streams have ended, or after this
    was cancelled, is cancelled; its lifespan, where that has not ended 5 s later.
    """
    if callable(served):
        try:
            async with _running(served, log_level) as server:
                await _carry(partial(_connected, server), streams)
        finally:
            if isinstance(streams, tuple):
                await close(streams[1])
    else:
        host, port = _address(served)
        await _carry(partial(gateway.carry, lambda: _open(host, port)), streams)


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
async def _running(application: Application, log_level: str, limit_s: float = 2 * _TO_END_S) -> AsyncIterator[_Server]:
    """What connects to the application; `limit_s`: for it to end, before its lifespan is cancelled."""
    lived = Lived(application)
    server = _Server(
        _Config(
            lived,
            http=_Protocol,
            proxy_headers=False,
            timeout_keep_alive=_KEPT_S,
            timeout_graceful_shutdown=_TO_END_S,
            log_level=log_level,
            access_log=False,
        )
    )
    running = asyncio.create_task(server.serve(sockets=[]))
    try:
        starting = asyncio.create_task(server.up.wait())
        try:
            await asyncio.wait({running, starting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            starting.cancel()
        if running.done():
            running.result()
        yield server
    finally:
        server.should_exit = True
        ending = asyncio.get_running_loop().call_later(limit_s, lived.end)
        try:
            await _seen_off(running)
        finally:
            ending.cancel()


async def _seen_off(task: asyncio.Task[None]) -> None:
    """Its end is waited for, however often this is cancelled meanwhile. Raises: what it does; CancelledError."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        task.cancelled() or task.exception()
        raise asyncio.CancelledError
    task.result()


class _Protocol(H11Protocol):
    """uvicorn's, by the library that what the application says is judged with; it tells of its end."""

    def connection_lost(self, exc: Exception | None) -> None:
        application: Any = self.app
        application.lost()
        super().connection_lost(exc)


class _Config(uvicorn.Config):
    """uvicorn's, which leaves the program's logging alone."""

    def configure_logging(self) -> None:
        """The level holds where the program has said none."""
        log = logging.getLogger("uvicorn.error")
        if log.level == logging.NOTSET and self.log_level is not None:
            log.setLevel(LOG_LEVELS[self.log_level] if isinstance(self.log_level, str) else self.log_level)


class _Server(uvicorn.Server):
    """uvicorn's, which leaves the program's signals alone, tells when it is up, and is given connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, *arguments: Any, **options: Any) -> None:
        with contextlib.suppress(SystemExit):  # it is made to be a program's main thing
            await super().startup(*arguments, **options)
        if not self.started:
            raise RuntimeError("the application did not start: its lifespan failed, and uvicorn has logged why")
        self.up.set()

    async def connect(self, application: Kept) -> Streams:
        """To this one, by a connection of its own. Raises: OSError."""
        config = copy.copy(self.config)
        config.loaded_app = application
        make = partial(_Protocol, config, self.server_state, self.lifespan.state)
        theirs, ours = socket.socketpair()
        try:
            await asyncio.get_running_loop().connect_accepted_socket(make, theirs)
        except BaseException:
            for each in (theirs, ours):
                each.close()
            raise
        return await streams_over(ours)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _carry(one: One, streams: Streams | AsyncIterable[Streams]) -> None:
    if isinstance(streams, tuple):
        await _carry_one(one, *streams)
        return
    failed: Exception | None = None
    async with asyncio.TaskGroup() as group:
        try:
            async for reader, writer in streams:
                group.create_task(_carry_one_of_many(one, reader, writer))
        except Exception as error:  # a session's, that its peer has another key, say: in no group
            failed = error
    if failed is not None:
        raise failed


async def _carry_one_of_many(one: One, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await _carry_one(one, reader, writer)
    except Exception:  # a fault of this side's; the others' streams are not to end by it
        logger.exception("a stream that was served has ended by a fault here")


async def _carry_one(one: One, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One stream, until it has ended, or broken."""
    try:
        await one(reader, writer)
    except* OSError as broken:
        logger.debug("a stream that was served broke: %s", broken.exceptions[0])
    finally:
        await close(writer)


async def _connected(server: _Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """To a connection of its own, until that has ended; or until the peer's stream has broken. Raises: OSError."""
    ends = (_address_of(writer, name) for name in ("peername", "sockname"))
    application = Kept(server.config.loaded_app, *ends)
    inner_reader, inner_writer = await server.connect(application)
    try:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(_ask(reader, inner_writer))
            await pour(_Answers(Pieces(inner_reader, inner_writer)), writer)
            asking.cancel()
    finally:
        if application.is_in_an_answer:
            cut(writer)  # half of one shall not look like one that has ended
        await close(inner_writer)
    await linger(reader, writer)


def _address_of(writer: asyncio.StreamWriter, name: str) -> Address | None:
    address = writer.get_extra_info(name)
    return address[:2] if isinstance(address, tuple) else None


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What the peer says, until its end, or the connection's: whoever has answered need not have read it all.

    Raises: OSError, the peer's.
    """
    while chunk := await reader.read(CHUNK):
        try:
            require_open(writer)
            writer.write(chunk)
            await writer.drain()
        except OSError:
            return
    with contextlib.suppress(OSError):
        end(writer)


class _Answers:
    """What a connection says until it ends: one that was closed with something unread seems to have broken."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    async def read(self, most: int, /) -> bytes:
        """As asyncio's reader's."""
        try:
            return await self._pieces.read(most)
        except OSError:
            return b""
