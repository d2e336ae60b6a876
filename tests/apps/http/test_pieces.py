"""A stream read piece by piece, in its reader's place: all of it, in order, to the same end; its writer as before."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest

from simopen.apps.http.pieces import Pieces
from simopen.net.sockets import drop
from simopen.net.streams import streams_over
from tests.link.peers import Pair, connected, pair, stream_pair

Both: TypeAlias = tuple[Pair, Pair]
MOST = 2**18


async def plain() -> Both:
    one, other = connected()
    return await streams_over(one), await streams_over(other)


both_kinds = pytest.mark.parametrize("kind", [plain, stream_pair])


async def all_of(pieces: Pieces, most: int = MOST) -> bytes:
    found = []
    while piece := await pieces.read(most):
        assert len(piece) <= most
        found.append(piece)
    return b"".join(found)


@both_kinds
@pytest.mark.parametrize("early", [0, 1, 100, 70_000, 300_000])
async def test_all_comes_in_order_and_what_has_come_before_is_first(
    kind: Callable[[], Awaitable[Both]], early: int
) -> None:
    said = bytes(range(251)) * 8000
    async with pair(kind) as ((reader, writer), (_, peer)):
        peer.write(said[:early])
        if early:
            first = await reader.readexactly(1)
            assert first == said[:1]
            await asyncio.sleep(0.01)
        pieces = Pieces(reader, writer)
        peer.write(said[early:])
        peer.write_eof()
        assert await all_of(pieces) == said[min(early, 1) :]
        assert pieces.has_come
        assert await pieces.read(1) == b""


@both_kinds
async def test_of_a_piece_that_is_too_large_the_rest_waits(kind: Callable[[], Awaitable[Both]]) -> None:
    async with pair(kind) as ((reader, writer), (_, peer)):
        pieces = Pieces(reader, writer)
        peer.write(b"abcdefg")
        peer.write_eof()
        assert [await pieces.read(3) for _ in range(4)] == [b"abc", b"def", b"g", b""]


@both_kinds
async def test_an_end_before_is_one_after(kind: Callable[[], Awaitable[Both]]) -> None:
    async with pair(kind) as ((reader, writer), (_, peer)):
        peer.write(b"last words")
        peer.write_eof()
        assert await reader.readexactly(5) == b"last "
        while not reader._eof:  # type: ignore[attr-defined]  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        pieces = Pieces(reader, writer)
        assert pieces.has_come
        assert await all_of(pieces) == b"words"


@both_kinds
async def test_the_peer_waits_while_nothing_is_read(kind: Callable[[], Awaitable[Both]]) -> None:
    async with pair(kind) as ((reader, writer), (_, peer)):
        for end in (writer, peer):
            sock = end.get_extra_info("socket")
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, 2**16)
        pieces = Pieces(reader, writer)
        said = bytes(20_000_000)
        peer.write(said)
        peer.write_eof()
        draining = asyncio.ensure_future(peer.drain())
        await asyncio.sleep(0.1)
        assert not draining.done()
        held = sum(map(len, pieces._waiting))
        assert held < 2_000_000
        assert len(await all_of(pieces)) == len(said)
        await draining


@both_kinds
async def test_a_break_is_an_error_once_all_has_been_read(kind: Callable[[], Awaitable[Both]]) -> None:
    async with pair(kind) as ((reader, writer), (_, peer)):
        pieces = Pieces(reader, writer)
        peer.write(b"half of it")
        await peer.drain()
        while not pieces.has_come:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        drop(peer.get_extra_info("socket"))
        peer.transport.abort()
        assert await pieces.read(MOST) == b"half of it"
        with pytest.raises(ConnectionResetError):
            await pieces.read(MOST)
        with pytest.raises(ConnectionResetError):
            await pieces.read(MOST)
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


async def test_what_the_peer_said_before_it_closed_comes_though_writing_to_it_failed_first() -> None:
    async with pair(plain) as ((reader, writer), (_, peer)):
        writer.write(b"a question")
        await writer.drain()
        pieces = Pieces(reader, writer)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # as a loop that comes to the writing first
        peer.write(b"an answer" * 3000)
        drop(peer.get_extra_info("socket"))
        peer.close()
        await peer.wait_closed()
        with pytest.raises(ConnectionError):  # noqa: PT012 - however soon
            while True:
                writer.write(bytes(2**16))
                await writer.drain()
        assert await pieces.read(MOST) == b"an answer" * 3000
        with pytest.raises(ConnectionError):
            await pieces.read(MOST)


@both_kinds
async def test_whoever_waits_hears_of_the_end(kind: Callable[[], Awaitable[Both]]) -> None:
    async with pair(kind) as ((reader, writer), (_, peer)):
        waiting = asyncio.ensure_future(Pieces(reader, writer).read(MOST))
        await asyncio.sleep(0.01)
        peer.write_eof()
        assert await waiting == b""


@both_kinds
async def test_its_writer_is_what_it_was(kind: Callable[[], Awaitable[Both]]) -> None:
    """It waits where the peer does not read, and goes on; and is seen off."""
    async with pair(kind) as ((reader, writer), (peer, peers)):
        pieces = Pieces(reader, writer)
        said = bytes(20_000_000)
        writer.write(said)
        draining = asyncio.ensure_future(writer.drain())
        await asyncio.sleep(0.05)
        assert not draining.done()
        assert len(await peer.readexactly(len(said))) == len(said)
        await draining
        writer.write_eof()
        assert await peer.read() == b""
        peers.close()
        assert await pieces.read(1) == b""
        writer.close()
        await writer.wait_closed()
        await peers.wait_closed()
