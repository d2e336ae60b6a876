"""A socket in place of a stream: what either end does, the other one sees."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest

import simopen
from simopen.errors import LinkBroken
from simopen.link.bridge import pair_by
from simopen.net.sockets import drop
from tests.link.peers import Pair, connected, stream_pair


@contextlib.asynccontextmanager
async def bridged() -> AsyncIterator[tuple[socket.socket, Pair]]:
    """One side's socket, and the other's stream."""
    one, other = await stream_pair()
    sock = await simopen.bridge(one)
    try:
        yield sock, other
    finally:
        sock.close()
        other[1].transport.abort()


async def test_data_goes_both_ways_and_half_closes_travel() -> None:
    loop = asyncio.get_running_loop()
    async with bridged() as (sock, (reader, writer)):
        assert sock.family == socket.AF_INET
        assert sock.getpeername()[0] == sock.getsockname()[0] == "127.0.0.1"
        await loop.sock_sendall(sock, b"question" * 50_000)
        sock.shutdown(socket.SHUT_WR)
        assert await reader.read() == b"question" * 50_000
        writer.write(b"answer")
        writer.write_eof()
        assert await loop.sock_recv(sock, 100) == b"answer"
        assert await loop.sock_recv(sock, 100) == b""
        writer.close()
        await writer.wait_closed()


async def test_asyncios_own_streams_take_it() -> None:
    async with bridged() as (sock, (reader, writer)):
        _, inner = await asyncio.open_connection(sock=sock)
        inner.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        inner.close()
        await inner.wait_closed()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_a_cut_is_an_error_at_the_socket_too() -> None:
    loop = asyncio.get_running_loop()
    async with bridged() as (sock, (_, writer)):
        writer.write(b"half of it")
        assert await loop.sock_recv(sock, 100) == b"half of it"
        writer.transport.abort()
        with pytest.raises(ConnectionResetError):
            await loop.sock_recv(sock, 100)


async def test_a_socket_that_is_reset_cuts_the_stream() -> None:
    async with bridged() as (sock, (reader, _)):
        drop(sock)
        sock.close()
        with pytest.raises(LinkBroken):
            await reader.read()


async def test_a_socket_that_is_reset_cuts_a_plain_stream_too() -> None:
    one, other = connected()
    reader, writer = await asyncio.open_connection(sock=other)
    sock = await simopen.bridge(await asyncio.open_connection(sock=one))
    drop(sock)
    sock.close()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_a_peer_that_writes_to_a_socket_that_is_closed_is_told() -> None:
    async with bridged() as (sock, (reader, writer)):
        sock.close()
        assert await reader.read() == b""
        with pytest.raises(ConnectionError):  # noqa: PT012 - however soon
            while True:
                writer.write(bytes(2**16))
                await writer.drain()


async def test_what_the_socket_does_not_read_makes_the_peer_wait() -> None:
    async with bridged() as (sock, (_, writer)):
        writer.transport.set_write_buffer_limits(high=2**16)
        with pytest.raises(TimeoutError):  # noqa: PT012 - however soon
            async with asyncio.timeout(0.2):
                while True:
                    writer.write(bytes(2**16))
                    await writer.drain()
        received = len(await asyncio.get_running_loop().sock_recv(sock, 2**20))
        assert received > 0


async def test_a_plain_stream_is_bridged_as_well() -> None:
    one, other = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=other)
    sock = await simopen.bridge(await asyncio.open_connection(sock=one))
    writer.write(b"hello")
    assert await asyncio.get_running_loop().sock_recv(sock, 10) == b"hello"
    sock.close()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


@contextlib.contextmanager
def crowded(count: int) -> Iterator[tuple[socket.socket, list[socket.socket]]]:
    """A listening socket in whose queue strangers wait already."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server, contextlib.ExitStack() as stack:
        yield (
            server,
            [stack.enter_context(socket.create_connection(server.getsockname())) for _ in range(count)],
        )


async def test_strangers_who_are_first_at_its_port_are_turned_away_and_block_nobody() -> None:
    loop = asyncio.get_running_loop()
    with crowded(100) as (server, strangers):
        strangers[0].send(b"me, me")
        strangers[1].close()
        inner, outer = await pair_by(server)
        with inner, outer:
            assert outer.getpeername() == inner.getsockname()
            assert inner.getpeername() == outer.getsockname()
            assert not inner.getblocking()
            assert not outer.getblocking()
            await loop.sock_sendall(outer, b"mine")
            assert await loop.sock_recv(inner, 10) == b"mine"
        for stranger in strangers[2:]:
            stranger.setblocking(False)
            with pytest.raises(ConnectionResetError):
                await loop.sock_recv(stranger, 1)


async def test_while_it_waits_for_its_own_client_the_loop_goes_on() -> None:
    """Nothing of it blocks: another task has its turns until the pair is there."""
    turns, done = 0, asyncio.Event()

    async def count() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    with crowded(100) as (server, _):
        for each in await pair_by(server):
            each.close()
    done.set()
    await counting
    assert turns > 1


@pytest.mark.parametrize("turns", range(8))
async def test_a_bridge_whose_making_is_cancelled_leaves_nothing(turns: int) -> None:
    one, other = await stream_pair()
    making = asyncio.ensure_future(simopen.bridge(one))
    for _ in range(turns):
        await asyncio.sleep(0)
    making.cancel()
    for made in await asyncio.gather(making, return_exceptions=True):
        if isinstance(made, socket.socket):
            made.close()
    for _, writer in (one, other):
        writer.transport.abort()


async def test_what_is_no_stream_is_refused_there_and_then() -> None:
    """It was found out by a task that nobody sees; the caller had a socket on which nothing came."""
    (reader, writer), (_, other) = await stream_pair()
    unawaited = asyncio.sleep(0)
    for given in (writer, (writer, reader), (reader,), (reader, writer, None), None, unawaited):
        with pytest.raises(TypeError, match=r"bridge takes a \(reader, writer\), as `await simopen\.connect"):
            await simopen.bridge(cast("Any", given))
    unawaited.close()
    writer.transport.abort()
    other.transport.abort()


async def test_where_no_client_can_be_had_nothing_waits_for_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.close()
        with pytest.raises(OSError, match="descriptor"):
            await pair_by(server)
