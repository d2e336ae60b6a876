"""Streams over a socket that is up already: how they are lost."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest

import simopen
from simopen.holepunch import api
from simopen.net.streams import pass_on, streams_over
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
