"""A transport over one stream alone: once that has ended, requests fail, and say why."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

import simopen.http
from simopen.net.streams import cut
from tests.apps.http.test_client import OK, Peer, client, leaves, long, meeting, request


async def test_over_one_stream_alone_the_requests_after_its_end_say_why() -> None:
    async with meeting(long(9_000_000)) as meet:
        transport = simopen.http.Transport.over(*await meet())
        async with client(httpx2, transport) as http:
            async with http.stream("GET", "/"):
                pass
            with pytest.raises(httpx2.ConnectError, match=r"closed before its end, 1,048,576 bytes .* read responses"):
                await http.get("/")


async def test_over_one_stream_alone_nothing_is_repeated() -> None:
    async with meeting(leaves) as meet, client(httpx2, simopen.http.Transport.over(*await meet())) as http:
        with pytest.raises(httpx2.RemoteProtocolError):
            await http.get("/")
        with pytest.raises(httpx2.ConnectError, match="this transport has no other"):
            await http.get("/")


@contextlib.asynccontextmanager
async def over(peer: Peer) -> AsyncIterator[Any]:
    """A client whose transport has a stream to this peer, and no other."""
    async with meeting(peer) as meet, client(httpx2, simopen.http.Transport.over(*await meet())) as http:
        yield http


async def refused(http: Any) -> str:
    """What the next request says that there is no stream for."""
    with pytest.raises(httpx2.ConnectError) as caught:
        await http.get("/")
    return str(caught.value).removeprefix("the stream has ended, and this transport has no other: ")


async def mute(reader: StreamReader, writer: StreamWriter) -> None:
    await reader.read()


async def cuts(reader: StreamReader, writer: StreamWriter) -> None:
    await request(reader)
    cut(writer)


async def nonsense(reader: StreamReader, writer: StreamWriter) -> None:
    await request(reader)
    writer.write(b"HTTP/9 what\r\n\r\n")
    await reader.read()


FAILING = {
    "the peer sent nothing for 0.05 s": mute,
    "the peer has ended it": leaves,
    "Connection reset by peer": cuts,
    "illegal status line: bytearray(b'HTTP/9 what')": nonsense,
}


@pytest.mark.parametrize(("why", "peer"), FAILING.items(), ids=FAILING)
async def test_what_ended_a_request_is_why_there_is_none_for_the_next(why: str, peer: Peer) -> None:
    async with over(peer) as http:
        with pytest.raises(httpx2.TransportError):
            await http.get("/", timeout=httpx2.Timeout(None, read=0.05))
        assert [await refused(http), await refused(http)] == [why] * 2


async def test_so_is_that_one_was_cancelled() -> None:
    got = asyncio.Event()

    async def mute(reader: StreamReader, writer: StreamWriter) -> None:
        await request(reader)
        got.set()
        await reader.read()

    async with over(mute) as http:
        asking = asyncio.create_task(http.get("/"))
        await got.wait()
        asking.cancel()
        await asyncio.wait({asking})
        assert await refused(http) == "a request was cancelled before its answer was whole"


UNASKED = {
    "the peer has ended it": lambda writer: writer.write_eof(),
    "Connection reset by peer": cut,
    "what the peer says as an answer was there before the request": lambda writer: writer.write(OK),
}


@pytest.mark.parametrize(("why", "does"), UNASKED.items(), ids=UNASKED)
async def test_so_is_what_the_peer_did_between_two_requests(why: str, does: Callable[[StreamWriter], None]) -> None:
    may = asyncio.Event()

    async def waits(reader: StreamReader, writer: StreamWriter) -> None:
        await request(reader)
        writer.write(OK)
        await may.wait()
        does(writer)
        await reader.read()

    async with meeting(waits) as meet:
        transport = simopen.http.Transport.over(*await meet())
        async with client(httpx2, transport) as http:
            assert (await http.get("/")).text == "ok"
            may.set()
            assert transport._stream is not None
            while not transport._stream.get_extra_info("is_readable"):  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert await refused(http) == why
