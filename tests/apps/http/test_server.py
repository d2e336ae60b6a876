"""An application, or a server of this host, behind a stream: asked by httpx, by a WebSocket client, and by hand."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

import httpx2
import pytest
import websockets

import simopen
import simopen.http
from simopen.apps.http import server
from tests.apps.http.test_client import Streams, good, meeting, stream_to

Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Says what was asked for, and how long the body was."""
    if scope["type"] == "lifespan":
        await lives(receive, send)
        return
    length, more = 0, True
    while more:
        message = await receive()
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": f"{scope['method']} {scope['path']} {length}".encode()})


async def lives(receive: Receive, send: Send) -> None:
    for what in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{what}"
        await send({"type": f"lifespan.{what}.complete"})


@contextlib.asynccontextmanager
async def served(
    what: Any, serve: Callable[..., Coroutine[Any, Any, None]] = simopen.http.serve
) -> AsyncIterator[Streams]:
    """A stream whose other end is served."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(what, (reader, writer))

    async with stream_to(one) as streams:
        yield streams


def client(streams: Streams) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=simopen.http.Transport.over(*streams))


async def test_an_application_answers_many_requests_over_one_stream() -> None:
    async with (
        served(application) as streams,
        client(streams) as http,
    ):
        for number in range(20):
            answer = await http.post(f"http://peer/{number}", content=bytes(number * 10_000))
            assert answer.text == f"POST /{number} {number * 10_000}"


NONSENSE = (
    b"\x16\x03\x01" * 50,
    b"GET / HTTP/1.1\r\nhost: x\r\nx: ".ljust(2**16 + 1, b"y"),
    b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
)


async def shout(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """An application that speaks WebSocket alone."""
    if scope["type"] != "websocket":
        raise NotImplementedError
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"].upper()})


async def test_a_programs_own_uvicorn_goes_on_logging() -> None:
    logs = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.error", "uvicorn.access")]
    handler = logging.NullHandler()
    for log in logs:
        log.addHandler(handler)
    logs[1].setLevel(logging.INFO)
    try:
        async with served(application) as streams, client(streams) as asking:
            assert (await asking.get("http://peer/")).status_code == 200
        assert all(handler in log.handlers for log in logs)
        assert logs[1].level == logging.INFO
        assert logs[2].propagate
    finally:
        for log in logs:
            log.removeHandler(handler)
        logs[1].setLevel(logging.NOTSET)


async def test_an_applications_websockets_pass() -> None:
    async with served(shout) as streams, websockets.connect("ws://peer/", sock=await simopen.bridge(streams)) as peer:
        await peer.send("hello")
        assert await peer.recv() == "HELLO"


async def test_a_server_of_this_host_is_asked_over_one_connection_of_its_own() -> None:
    async with meeting(good) as meet:  # the second connection would find nobody
        _, probe = await meet()
        address = probe.get_extra_info("peername")
        probe.close()
    connections = 0

    async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await good(reader, writer)
        writer.close()

    async with await asyncio.start_server(counts, *address[:2]):
        for where in (tuple(address[:2]), f"{address[0]}:{address[1]}"):
            async with served(where) as streams, client(streams) as http:
                for _ in range(5):
                    assert (await http.get("http://peer/")).text == "ok"
    assert connections == 2


async def test_where_no_server_is_both_are_told_and_the_stream_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "simopen"):
        async with served("127.0.0.1:1") as streams, client(streams) as http:
            for _ in range(2):
                answer = await http.post("http://peer/", content=b"body")
                assert (answer.status_code, answer.text) == (502, "the server behind this peer is not there\n")
    words = "a request was not answered: no HTTP server can be reached at 127.0.0.1:1: it refused the connection"
    assert [each.getMessage() for each in caplog.records] == [words] * 2


@contextlib.asynccontextmanager
async def served_many(what: Any, count: int) -> AsyncIterator[Callable[[], Awaitable[Streams]]]:
    """What opens one of so many streams, all served together."""
    streams: asyncio.Queue[Streams | None] = asyncio.Queue()

    async def coming() -> AsyncIterator[Streams]:
        while (each := await streams.get()) is not None:
            yield each

    async def hands_over(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await streams.put((reader, writer))
        await asyncio.Event().wait()

    async with meeting(*[hands_over] * count) as meet:
        serving = asyncio.create_task(simopen.http.serve(what, coming()))
        yield meet
        await streams.put(None)
        await serving


async def test_of_many_streams_each_is_served_until_its_end() -> None:
    async with served_many(application, 3) as meet:
        for _ in range(2):
            async with client(await meet()) as http:
                assert (await http.get("http://peer/")).text == "GET / 0"
        _, broken = await meet()
        broken.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf")
        broken.transport.abort()


async def test_what_an_application_is_asked_wrongly_is_refused_and_harms_no_other_stream() -> None:
    async with served_many(application, len(NONSENSE) + 1) as meet:
        for said in NONSENSE:
            reader, writer = await meet()
            writer.write(said)
            assert (await reader.readline()) == b"HTTP/1.1 400 Bad Request\r\n"
            writer.close()
        async with client(await meet()) as http:
            assert (await http.get("http://peer/")).text == "GET / 0"


async def test_a_stream_that_breaks_ends_the_serving_quietly() -> None:
    ended = asyncio.Event()

    async def serve(*arguments: Any) -> None:
        await simopen.http.serve(*arguments)
        ended.set()

    async with served(application, serve) as (_, writer):
        writer.write(b"POST / HTTP/1.1\r\ncontent-length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.transport.abort()
        await ended.wait()


async def test_a_fault_of_one_stream_is_logged_and_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1) == b"!":
            raise RuntimeError("a fault of this side's")
        writer.write(b"ok")

    async def coming() -> AsyncIterator[Streams]:
        while True:
            yield await streams.get()

    streams: asyncio.Queue[Streams] = asyncio.Queue()

    async def hands_over(*both: Any) -> None:
        await streams.put(both)
        await asyncio.Event().wait()

    async with meeting(hands_over, hands_over) as meet:
        carrying = asyncio.create_task(server._carry(one, coming()))
        reader, writer = await meet()
        other_reader, other = await meet()
        writer.write(b"!")
        assert await reader.read() == b""
        other.write(b"?")
        assert await other_reader.read() == b"ok"
        assert "a stream that was served has ended by a fault here" in caplog.text
        carrying.cancel()
        await asyncio.wait({carrying})
        writer.close()
        other.close()


async def test_what_ends_the_coming_of_streams_is_raised_as_it_is() -> None:
    async def coming() -> AsyncIterator[Streams]:
        raise simopen.PeerChanged("another key")
        yield

    with pytest.raises(simopen.PeerChanged, match="another key"):
        await simopen.http.serve(application, coming())


async def test_an_application_that_fails_to_start_is_an_error() -> None:
    async def broken(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async with meeting(good) as meet:
        streams = await meet()
        with pytest.raises(RuntimeError, match="did not start"):
            await simopen.http.serve(broken, streams, log_level="critical")
        assert streams[1].is_closing()


@pytest.mark.parametrize(("what", "kind"), [("127.0.0.1", ValueError), (8000, TypeError), (("host", 0), ValueError)])
async def test_what_cannot_be_served_is_refused(what: Any, kind: type[Exception]) -> None:
    async with meeting(good) as meet:
        streams = await meet()
        with pytest.raises(kind):
            await simopen.http.serve(what, streams)
        streams[1].close()
