"""Streams over a socket that is up already: how they are lost."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
import struct
from typing import Any

import pytest

import simopen
from simopen.holepunch import api
from simopen.net import delayed_close
from simopen.net.sockets import drop
from simopen.net.streams import StreamProtocol, abort, cut, pass_on, streams_over
from tests.link.peers import connected
from tests.loopback import HERE


async def test_what_a_stream_was_lost_with_is_no_error_of_whoever_does_not_ask() -> None:
    """The garbage collector may come to the future before it comes to the protocol, and then tells."""
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    with socket.create_server((HERE, 0)) as server:
        other = socket.create_connection(server.getsockname())
        sock, _ = server.accept()
    sock.setblocking(False)
    reader, writer = await api._streams(sock, 2**16, None)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()
    with pytest.raises(ConnectionError):
        await reader.read()
    closed = writer._protocol._get_close_waiter(writer)  # type: ignore[attr-defined]
    await asyncio.wait({closed})
    closed.__del__()
    assert not unseen
    assert isinstance(closed.exception(), ConnectionError)
    writer.close()


async def test_a_stream_that_the_loop_does_not_take_is_an_error_of_this_library() -> None:
    sock = socket.socket()
    sock.close()
    with pytest.raises(simopen.PunchError, match="the stream came up, but this program's event loop") as caught:
        await api._streams(sock, 2**16, None)
    assert isinstance(caught.value.__cause__, OSError)


async def test_what_is_passed_on_to_a_stream_that_is_lost_is_an_error_of_the_system_s_on_either_loop() -> None:
    """uvloop's transport raises a RuntimeError, which a bridge took for a fault of its own, and told of."""
    for words in (b"some", b""):
        one, other = await stream_pair()
        one[1].transport.abort()
        await one[1].wait_closed()
        reader = asyncio.StreamReader()
        reader.feed_data(words)
        reader.feed_eof()
        with pytest.raises(ConnectionResetError):
            await pass_on(reader, one[1])
        other[1].close()


async def stream_pair() -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    with socket.create_server((HERE, 0)) as server:
        socks = socket.create_connection(server.getsockname()), server.accept()[0]
    for sock in socks:
        sock.setblocking(False)
    return [await streams_over(sock) for sock in socks]


@pytest.mark.parametrize("is_held", [False, True])
async def test_a_stream_that_was_reset_before_its_end_is_told_as_that(*, is_held: bool) -> None:
    """The kernel then says that it is not connected: asyncio raises that, and uvloop loses the stream by it."""
    ours, theirs = connected()
    held = delayed_close.shared.hold(ours, 1 if is_held else 0)
    reader, writer = await streams_over(held)
    if not is_held:
        await asyncio.sleep(0.05)  # it may end at once now
    drop(theirs)
    theirs.close()
    select.select([held.fileno()], [], [])  # the reset is here, and the loop has not seen it
    with contextlib.suppress(ConnectionResetError):
        writer.write_eof()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    with pytest.raises(ConnectionResetError):
        await writer.wait_closed()


async def test_a_stream_that_is_lost_as_not_connected_was_reset() -> None:
    """As uvloop loses it, where that comes before what the kernel has to read."""
    reader = asyncio.StreamReader()
    protocol = StreamProtocol(reader)
    protocol.connection_lost(OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN)))
    with pytest.raises(ConnectionResetError, match="reset"):
        await reader.read()


async def test_a_stream_that_is_cut_does_not_look_like_one_that_has_ended() -> None:
    one, other = await stream_pair()
    one[1].write(b"half of it")
    assert await other[0].readexactly(10) == b"half of it"
    cut(one[1])
    with pytest.raises(ConnectionResetError):
        await other[0].read()
    other[1].close()


async def test_a_stream_that_has_ended_can_be_aborted_and_cut() -> None:
    """Closed with something unsent, and ended since: asyncio's transport has no loop any more."""
    one, other = await stream_pair()
    one[1].write(bytes(20_000_000))
    one[1].close()
    await other[0].read()
    await one[1].wait_closed()
    abort(one[1])
    cut(one[1])
    abort(other[1])
    abort(other[1])
