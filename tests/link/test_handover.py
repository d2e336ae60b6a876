"""A link's socket in the clear: nothing of it is lost, whoever is at the other end keeps to it, or it is an error."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from simopen.errors import LinkBroken
from simopen.link.handover import hand_over
from tests.link.peers import Pair, connected, pair


async def read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := await asyncio.get_running_loop().sock_recv(sock, size)):
        data += piece
    return data


async def test_all_that_follows_comes_by_the_socket_both_ways() -> None:
    loop = asyncio.get_running_loop()

    async def side(stream: Pair, says: bytes) -> bytes:
        with await hand_over(stream) as sock:
            await loop.sock_sendall(sock, says)  # at once
            heard = await read(sock, len(says))
            assert not stream[1].get_extra_info("simopen_link").get_write_buffer_size()
            await stream[1].wait_closed()  # and the socket is still there
            await loop.sock_sendall(sock, b"end")
            return heard + await read(sock, 3)

    for _ in range(20):
        async with pair() as both:
            said = b"x" * 1000, b"y" * 1000
            found = await asyncio.gather(*(side(*each) for each in zip(both, said, strict=True)))
            assert found == [said[1] + b"end", said[0] + b"end"]


async def test_what_was_written_before_has_come_before() -> None:
    async with pair() as (one, other):
        for stream, peer in ((one, other), (other, one)):
            stream[1].write(b"words\n")
            assert await peer[0].readline() == b"words\n"
        for sock in await asyncio.gather(hand_over(one), hand_over(other)):
            sock.close()


@pytest.mark.parametrize("side", ["initiator", "responder"])
async def test_a_peer_that_goes_on_is_told(side: str) -> None:
    async with pair() as both:
        ours, theirs = both if side == "initiator" else both[::-1]
        theirs[1].write(b"and another thing")
        with pytest.raises(LinkBroken, match="hand over"):
            await hand_over(ours)


@pytest.mark.parametrize("side", ["initiator", "responder"])
async def test_a_peer_that_is_gone_is_told(side: str) -> None:
    async with pair() as both:
        ours, theirs = both if side == "initiator" else both[::-1]
        theirs[1].transport.abort()
        with pytest.raises(ConnectionError):
            await hand_over(ours)


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-"])
async def test_somebody_who_takes_over_in_between_is_told(said: bytes) -> None:
    async with pair() as (initiator, responder):
        task = asyncio.ensure_future(hand_over(responder))
        initiator[1].write_eof()
        assert await initiator[0].read() == b""
        with initiator[1].get_extra_info("simopen_link").detach() as sock:
            if said:
                await asyncio.get_running_loop().sock_sendall(sock, said)
            sock.shutdown(socket.SHUT_WR)
            with pytest.raises(LinkBroken, match="hand over"):
                await task


@pytest.mark.parametrize("side", ["initiator", "responder"])
async def test_cancelled_it_leaves_nothing_open(side: str) -> None:
    before = sockets()
    async with pair() as both:
        ours, theirs = both if side == "initiator" else both[::-1]
        task = asyncio.ensure_future(hand_over(ours))
        if side == "responder":
            theirs[1].write_eof()
            assert await theirs[0].read() == b""  # it waits for the last byte now
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _, writer in both:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
    assert sockets() == before


def sockets() -> set[str]:
    """This process's, by what the kernel calls them."""
    found = set[str]()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # what lists them
            found |= {name for name in [str(each.readlink())] if name.startswith("socket")}
    return found


async def test_what_is_no_link_is_refused() -> None:
    one, other = connected()
    reader, writer = await asyncio.open_connection(sock=one)
    with pytest.raises(ValueError, match="no link"):
        await hand_over((reader, writer))
    writer.close()
    other.close()
